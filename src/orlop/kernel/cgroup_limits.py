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
    """One value for one control file. `limit` is the name of the limit, for telling what was not possible."""

    controller: str
    file: str
    value: str
    limit: str


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
    return _given(
        ("memory", "memory.limit_in_bytes", limits.memory_limit_bytes, "memory limit"),
        ("memory", "memory.memsw.limit_in_bytes", limits.memory_and_swap(), "swap limit"),
        ("memory", "memory.soft_limit_in_bytes", limits.memory_reservation_bytes, "memory reservation"),
        ("memory", "memory.oom_control", int(limits.oom_kill_disable), "OOM kill disable"),
        ("cpu", "cpu.shares", limits.cpu_shares, "CPU shares"),
        ("cpu", "cpu.cfs_period_us", period, "CPU period"),
        ("cpu", "cpu.cfs_quota_us", max(quota, -1), "CPU quota"),
        ("cpuset", "cpuset.cpus", limits.cpuset_cpus, "cpuset"),
        ("cpuset", "cpuset.mems", limits.cpuset_mems, "cpuset"),
        ("blkio", "blkio.weight", limits.blkio_weight, "blkio weight"),
        ("pids", "pids.max", _or_max(limits.pids_limit or 0), "pids limit"),
    )


def v2_writes(limits: Limits) -> list[Write]:
    """Files of the unified hierarchy. It has no `memory.oom_control`: that limit is reported as missing."""
    quota, period = limits.quota()
    cpu_max = f"{quota if quota > 0 else 'max'} {period or DEFAULT_PERIOD_US}" if quota or period else ""
    swap = limits.memory_and_swap()
    only_swap = str(max(swap - limits.memory_limit_bytes, 0)) if swap > 0 else _or_max(swap)
    weight = weight_of_shares(limits.cpu_shares) if limits.cpu_shares > 0 else 0
    io_weight = io_weight_of(limits.blkio_weight) if limits.blkio_weight > 0 else 0
    return _given(
        ("memory", "memory.swap.max", only_swap, "swap limit"),
        ("memory", "memory.max", limits.memory_limit_bytes, "memory limit"),
        ("memory", "memory.low", limits.memory_reservation_bytes, "memory reservation"),
        ("memory", "memory.oom_control", int(limits.oom_kill_disable), "OOM kill disable"),
        ("cpu", "cpu.weight", weight, "CPU shares"),
        ("cpu", "cpu.max", cpu_max, "CPU quota"),
        ("cpuset", "cpuset.cpus", limits.cpuset_cpus, "cpuset"),
        ("cpuset", "cpuset.mems", limits.cpuset_mems, "cpuset"),
        ("io", "io.weight", io_weight, "blkio weight"),
        ("pids", "pids.max", _or_max(limits.pids_limit or 0), "pids limit"),
    )


def _given(*rows: tuple[str, str, int | str, str]) -> list[Write]:
    """The rows that say something: not 0 and not empty."""
    return [Write(controller, file, str(value), limit) for controller, file, value, limit in rows if value]


def _or_max(value: int) -> str:
    """-1 is no limit, 0 nothing given."""
    return "max" if value < 0 else str(value or "")
