"""What a container uses and runs, read from the host's side."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Any

from orlop.base.clock import SystemClock
from orlop.kernel.cgroup import Cgroup
from orlop.runtime.contract import Process, Stats

__all__ = ["processes", "read_stats"]

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_NANO = 1_000_000_000
_NETWORK_FIELDS = (
    "rx_bytes rx_packets rx_errors rx_dropped rx_fifo rx_frame rx_compressed rx_multicast "
    "tx_bytes tx_packets tx_errors tx_dropped tx_fifo tx_collisions tx_carrier tx_compressed"
).split()


def read_stats(cgroup: Cgroup, init_pid: int) -> dict[str, Any]:
    """`contract.Stats` as JSON values."""
    reading = cgroup.stats()
    stats = Stats(
        read_at_ns=SystemClock().now_ns(),
        cpu_total_ns=reading.cpu.total_ns,
        cpu_user_ns=reading.cpu.user_ns,
        cpu_kernel_ns=reading.cpu.system_ns,
        cpu_each_ns=reading.cpu.percpu_ns,
        cpu_system_ns=_host_cpu_ns(),
        online_cpus=os.cpu_count() or 1,
        throttled_periods=reading.cpu.throttled_periods,
        periods=reading.cpu.periods,
        throttled_ns=reading.cpu.throttled_ns,
        memory_usage_bytes=reading.memory.usage_bytes,
        memory_max_bytes=reading.memory.max_usage_bytes,
        memory_limit_bytes=reading.memory.limit_bytes,
        memory_fail_count=reading.memory.failure_count,
        memory_detail=reading.memory.details,
        pids_current=reading.pids.current,
        pids_limit=reading.pids.limit,
        networks=_networks(init_pid),
        blkio=[(entry.major, entry.minor, entry.op, entry.value) for entry in reading.io_bytes],
        blkio_ops=[(entry.major, entry.minor, entry.op, entry.value) for entry in reading.io_count],
    )
    return asdict(stats)


def processes(cgroup: Cgroup) -> list[dict[str, Any]]:
    """`contract.Process` values as JSON, oldest first."""
    boot_ns = _boot_time_ns()
    found = []
    for pid in cgroup.pids():
        process = _process(pid, boot_ns)
        if process is not None:
            found.append(process)
    found.sort(key=lambda item: (item.started_at_ns, item.pid))
    return [asdict(item) for item in found]


def _process(pid: int, boot_ns: int) -> Process | None:
    try:
        text = _read(f"/proc/{pid}/stat")
        args = _read(f"/proc/{pid}/cmdline")
        uid = os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return None
    close = text.rindex(b")")
    comm = text[text.index(b"(") + 1 : close].decode("utf-8", "replace")
    fields = text[close + 2 :].split()
    started_at_ns = boot_ns + int(fields[19]) * (_NANO // _TICKS)
    cpu_time_s = (int(fields[11]) + int(fields[12])) // _TICKS
    age_s = max((SystemClock().now_ns() - started_at_ns) // _NANO, 1)
    return Process(
        pid=pid,
        ppid=int(fields[1]),
        uid=uid,
        started_at_ns=started_at_ns,
        cpu_time_s=cpu_time_s,
        cpu_percent=min(99, 100 * cpu_time_s // age_s),
        tty=_tty_name(int(fields[4])),
        args=args.replace(b"\0", b" ").decode("utf-8", "replace").strip() or f"[{comm}]",
        comm=comm,
        rss_bytes=int(fields[21]) * _PAGE,
        vsz_bytes=int(fields[20]),
        state=fields[0].decode("ascii"),
    )


def _tty_name(device: int) -> str:
    major, minor = os.major(device), os.minor(device)
    return f"pts/{minor}" if 136 <= major <= 143 else "?"


def _networks(pid: int) -> dict[str, dict[str, int]]:
    try:
        lines = _read(f"/proc/{pid}/net/dev").decode("ascii", "replace").splitlines()[2:]
    except OSError:
        return {}
    networks = {}
    for line in lines:
        name, _, numbers = line.partition(":")
        values = dict(zip(_NETWORK_FIELDS, map(int, numbers.split()), strict=False))
        if name.strip() != "lo":
            networks[name.strip()] = values
    return networks


def _host_cpu_ns() -> int:
    """The first line of /proc/stat without guest time, which user time includes already."""
    words = _read("/proc/stat").split(b"\n", 1)[0].split()[1:9]
    return sum(map(int, words)) * (_NANO // _TICKS)


def _boot_time_ns() -> int:
    for line in _read("/proc/stat").split(b"\n"):
        if line.startswith(b"btime "):
            return int(line.split()[1]) * _NANO
    return 0


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
