"""Limits of a cgroup as values, and the files they become on version 1 and on version 2. Pure.

Conversions follow runc, so that a limit means the same under every runtime: Docker's units in,
the kernel's files out. 0 (None for pids) means: leave as it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["Limits", "Write", "io_weight_of", "v1_writes", "v2_writes", "weight_of_shares"]

DEFAULT_PERIOD_US = 100_000
_NANOS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Limits:
    """What a container may use. Field names and meanings are those of a container's resources.

    `memory_swap_bytes` is memory plus swap: 0 stands for twice the memory, -1 for no limit.
    """

    memory_limit_bytes: int = 0
    memory_reservation_bytes: int = 0
    memory_swap_bytes: int = 0
    nano_cpus: int = 0
    cpu_shares: int = 0
    cpu_period_us: int = 0
    cpu_quota_us: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    blkio_weight: int = 0
    pids_limit: int | None = None
    oom_kill_disable: bool = False
    memory_swappiness: int | None = None
    cpu_rt_period_us: int = 0
    cpu_rt_runtime_us: int = 0
    blkio_weight_devices: tuple[str, ...] = ()  # each `major:minor value`, here and below
    blkio_read_bps: tuple[str, ...] = ()
    blkio_write_bps: tuple[str, ...] = ()
    blkio_read_iops: tuple[str, ...] = ()
    blkio_write_iops: tuple[str, ...] = ()

    def quota(self) -> tuple[int, int]:
        """(quota, period) in microseconds; 0 = not given, quota -1 = no limit."""
        if self.nano_cpus > 0:
            return self.nano_cpus * DEFAULT_PERIOD_US // _NANOS, DEFAULT_PERIOD_US
        return self.cpu_quota_us, self.cpu_period_us

    def memory_and_swap(self) -> int:
        """Memory plus swap in bytes; 0 = not given, -1 = no limit."""
        if self.memory_limit_bytes > 0 and self.memory_swap_bytes == 0:
            return 2 * self.memory_limit_bytes  # as dockerd fills it in
        return self.memory_swap_bytes


class Write(NamedTuple):
    """One value for one control file. `limit` is the name of the limit, for telling what was not possible.

    `instead` is another file and its value, for kernels that have no `file`.
    """

    controller: str
    file: str
    value: str
    limit: str
    instead: tuple[str, str] | None = None


def weight_of_shares(shares: int) -> int:
    """cpu.shares (2..262144) as cpu.weight (1..10000), so that the default 1024 becomes the default 100.

    The curve is the one of runc 1.4 and crun; older ones used a straight line (1024 -> 39).
    """
    if shares <= 2:
        return 1
    if shares >= 262144:
        return 10000
    log = math.log2(shares)
    return math.ceil(round(10 ** ((log * log + 125 * log) / 612 - 7 / 34), 9))


def io_weight_of(blkio_weight: int) -> int:
    """blkio.weight (10..1000) as io.weight (1..10000)."""
    return 1 + (blkio_weight - 10) * 9999 // 990


def v1_writes(limits: Limits) -> list[Write]:
    """Files of the v1 controllers, in the order that suits a fresh cgroup."""
    quota, period = limits.quota()
    plain = _given(
        ("memory", "memory.limit_in_bytes", limits.memory_limit_bytes, "memory limit"),
        ("memory", "memory.memsw.limit_in_bytes", limits.memory_and_swap(), "swap limit"),
        ("memory", "memory.soft_limit_in_bytes", limits.memory_reservation_bytes, "memory reservation"),
        ("memory", "memory.oom_control", int(limits.oom_kill_disable), "OOM kill disable"),
        ("cpu", "cpu.shares", limits.cpu_shares, "CPU shares"),
        ("cpu", "cpu.cfs_period_us", period, "CPU period"),
        ("cpu", "cpu.cfs_quota_us", max(quota, -1), "CPU quota"),
        ("cpuset", "cpuset.cpus", limits.cpuset_cpus, "cpuset"),
        ("cpuset", "cpuset.mems", limits.cpuset_mems, "cpuset"),
        ("memory", "memory.swappiness", _text(limits.memory_swappiness), "memory swappiness"),
        ("cpu", "cpu.rt_period_us", limits.cpu_rt_period_us, "CPU real-time period"),
        ("cpu", "cpu.rt_runtime_us", limits.cpu_rt_runtime_us, "CPU real-time runtime"),
        ("pids", "pids.max", _or_max(limits.pids_limit or 0), "pids limit"),
    )
    return plain + _v1_io_writes(limits)


def _v1_io_writes(limits: Limits) -> list[Write]:
    writes = []
    if limits.blkio_weight:
        text = str(limits.blkio_weight)
        # CFQ had the first; it is gone since Linux 5.0, and BFQ has its own
        writes.append(Write("blkio", "blkio.weight", text, "blkio weight", ("blkio.bfq.weight", text)))
    writes += [
        Write(
            "blkio",
            "blkio.weight_device",
            line,
            "blkio weight of a device",
            ("blkio.bfq.weight_device", line),
        )
        for line in limits.blkio_weight_devices
    ]
    for file, lines in (
        ("read_bps", limits.blkio_read_bps),
        ("write_bps", limits.blkio_write_bps),
        ("read_iops", limits.blkio_read_iops),
        ("write_iops", limits.blkio_write_iops),
    ):
        writes += [Write("blkio", f"blkio.throttle.{file}_device", line, f"blkio {file}") for line in lines]
    return writes


def v2_writes(limits: Limits) -> list[Write]:
    """Files of the unified hierarchy. It has no `memory.oom_control`: that limit is reported as missing."""
    quota, period = limits.quota()
    cpu_max = f"{quota if quota > 0 else 'max'} {period or DEFAULT_PERIOD_US}" if quota or period else ""
    swap = limits.memory_and_swap()
    only_swap = str(max(swap - limits.memory_limit_bytes, 0)) if swap > 0 else _or_max(swap)
    weight = weight_of_shares(limits.cpu_shares) if limits.cpu_shares > 0 else 0
    plain = _given(
        ("memory", "memory.swap.max", only_swap, "swap limit"),
        ("memory", "memory.max", limits.memory_limit_bytes, "memory limit"),
        ("memory", "memory.low", limits.memory_reservation_bytes, "memory reservation"),
        ("memory", "memory.oom_control", int(limits.oom_kill_disable), "OOM kill disable"),
        ("cpu", "cpu.weight", weight, "CPU shares"),
        ("cpu", "cpu.max", cpu_max, "CPU quota"),
        ("cpuset", "cpuset.cpus", limits.cpuset_cpus, "cpuset"),
        ("cpuset", "cpuset.mems", limits.cpuset_mems, "cpuset"),
        # these two are of version 1 only: they are reported as missing
        ("memory", "memory.swappiness", _text(limits.memory_swappiness), "memory swappiness"),
        ("cpu", "cpu.rt_runtime_us", limits.cpu_rt_runtime_us, "CPU real-time runtime"),
        ("pids", "pids.max", _or_max(limits.pids_limit or 0), "pids limit"),
    )
    return plain + _v2_io_writes(limits)


def _v2_io_writes(limits: Limits) -> list[Write]:
    """BFQ takes the weight as it is; `io.weight` (of iocost) has another range."""
    writes = []
    if limits.blkio_weight > 0:
        instead = ("io.weight", str(io_weight_of(limits.blkio_weight)))
        writes.append(Write("io", "io.bfq.weight", str(limits.blkio_weight), "blkio weight", instead))
    for line in limits.blkio_weight_devices:
        device, _, weight = line.partition(" ")
        instead = ("io.weight", f"{device} {io_weight_of(int(weight))}")
        writes.append(Write("io", "io.bfq.weight", line, "blkio weight of a device", instead))
    for key, lines, limit in (
        ("rbps", limits.blkio_read_bps, "blkio read_bps"),
        ("wbps", limits.blkio_write_bps, "blkio write_bps"),
        ("riops", limits.blkio_read_iops, "blkio read_iops"),
        ("wiops", limits.blkio_write_iops, "blkio write_iops"),
    ):
        for line in lines:
            device, _, rate = line.partition(" ")
            value = "max" if rate == "0" else rate  # 0 lifts the limit on version 1
            writes.append(Write("io", "io.max", f"{device} {key}={value}", limit))
    return writes


def _given(*rows: tuple[str, str, int | str, str]) -> list[Write]:
    """The rows that say something: not 0 and not empty."""
    return [Write(controller, file, str(value), limit) for controller, file, value, limit in rows if value]


def _text(value: int | None) -> str:
    return "" if value is None else str(value)


def _or_max(value: int) -> str:
    """-1 is no limit, 0 nothing given."""
    return "max" if value < 0 else str(value or "")
