"""Which limits the running kernel can set: one flag each, for `docker info` and the checks at create."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass

from orlop.kernel.cgroup import Host, Mode

__all__ = ["Support", "read_support", "support_of"]

Exists = Callable[[str], bool]
Read = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Support:
    """True where a limit has a control file; `cpus` and `mems` are lists of what there is, "" = unknown."""

    version: int = 2
    memory_limit: bool = True
    memory_reservation: bool = True
    swap_limit: bool = True
    memory_swappiness: bool = True
    oom_kill_disable: bool = True
    kernel_memory_tcp: bool = True
    cpu_shares: bool = True
    cpu_quota: bool = True
    cpu_realtime: bool = True
    cpuset: bool = True
    pids_limit: bool = True
    blkio_weight: bool = True
    blkio_weight_device: bool = True
    blkio_read_bps: bool = True
    blkio_write_bps: bool = True
    blkio_read_iops: bool = True
    blkio_write_iops: bool = True
    cpus: str = ""
    mems: str = ""


def read_support(host: Host) -> Support:
    """Look at the control files of the running kernel."""
    sample = _sample_child(host.unified) if host.mode is Mode.V2 and host.unified else ""
    return support_of(host, os.path.exists, _read, sample)


def support_of(host: Host, exists: Exists, read: Read, sample: str = "") -> Support:
    """The same from any tree of files; pure.

    Args:
        host: where the hierarchies are.
        exists: whether a path is there.
        read: the content of a file, "" when it is not there.
        sample: a v2 cgroup below the root that has the controllers: the root has no limits. "" = none
            was found; then the controllers themselves have to do.
    """
    if host.mode is Mode.V2:
        return _v2_support(host, exists, read, sample)
    return _v1_support(host, exists, read)


def _v1_support(host: Host, exists: Exists, read: Read) -> Support:
    def has(controller: str, *files: str) -> bool:
        top = host.v1.get(controller)
        return top is not None and (not files or any(exists(f"{top}/{file}") for file in files))

    def text(file: str) -> str:
        return read(f"{host.v1['cpuset']}/{file}").strip() if "cpuset" in host.v1 else ""

    return Support(
        version=host.version,
        memory_limit=has("memory"),
        memory_reservation=has("memory", "memory.soft_limit_in_bytes"),
        swap_limit=has("memory", "memory.memsw.limit_in_bytes"),
        memory_swappiness=has("memory", "memory.swappiness"),
        oom_kill_disable=has("memory", "memory.oom_control"),
        kernel_memory_tcp=has("memory", "memory.kmem.tcp.limit_in_bytes"),
        cpu_shares=has("cpu", "cpu.shares"),
        cpu_quota=has("cpu", "cpu.cfs_quota_us"),
        cpu_realtime=has("cpu", "cpu.rt_period_us"),
        cpuset=has("cpuset"),
        pids_limit=has("pids"),
        blkio_weight=has("blkio", "blkio.weight", "blkio.bfq.weight"),
        blkio_weight_device=has("blkio", "blkio.weight_device", "blkio.bfq.weight_device"),
        blkio_read_bps=has("blkio", "blkio.throttle.read_bps_device"),
        blkio_write_bps=has("blkio", "blkio.throttle.write_bps_device"),
        blkio_read_iops=has("blkio", "blkio.throttle.read_iops_device"),
        blkio_write_iops=has("blkio", "blkio.throttle.write_iops_device"),
        cpus=text("cpuset.cpus"),
        mems=text("cpuset.mems"),
    )


def _v2_support(host: Host, exists: Exists, read: Read, sample: str) -> Support:
    def has(controller: str, *files: str) -> bool:
        if controller not in host.v2_controllers:
            return False
        return not sample or not files or any(exists(f"{sample}/{file}") for file in files)

    has_io_max = has("io", "io.max")
    return Support(
        version=2,
        memory_limit=has("memory"),
        memory_reservation=has("memory"),
        swap_limit=has("memory", "memory.swap.max"),
        # these are of version 1 alone
        memory_swappiness=False,
        oom_kill_disable=False,
        kernel_memory_tcp=False,
        cpu_realtime=False,
        cpu_shares=has("cpu"),
        cpu_quota=has("cpu", "cpu.max"),
        cpuset=has("cpuset"),
        pids_limit=has("pids"),
        # iocost or BFQ: a kernel may have neither
        blkio_weight=has("io", "io.bfq.weight", "io.weight"),
        blkio_weight_device=has("io", "io.bfq.weight", "io.weight"),
        blkio_read_bps=has_io_max,
        blkio_write_bps=has_io_max,
        blkio_read_iops=has_io_max,
        blkio_write_iops=has_io_max,
        cpus=read(f"{host.unified}/cpuset.cpus.effective").strip(),
        mems=read(f"{host.unified}/cpuset.mems.effective").strip(),
    )


def _sample_child(top: str) -> str:
    """A cgroup below the root with as many controllers as possible."""
    best, most = "", 0
    with contextlib.suppress(OSError):
        for entry in os.scandir(top):
            if entry.is_dir(follow_symlinks=False):
                count = len(_read(f"{entry.path}/cgroup.controllers").split())
                if count > most:
                    best, most = entry.path, count
    # one that lacks a controller would show its files as missing
    return best if most >= len(_read(f"{top}/cgroup.controllers").split()) else ""


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read(1 << 16)
    except OSError:
        return ""
