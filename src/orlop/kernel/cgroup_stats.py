"""What a cgroup has used, read from either version's files into one shape."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = [
    "CpuStats",
    "IoEntry",
    "MemoryStats",
    "PidsStats",
    "Stats",
    "flat_keyed",
    "host_memory_bytes",
    "v1_stats",
    "v2_stats",
]

Read = Callable[[str, str], str]
"""(controller, file) -> text; empty when there is no such file."""

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_HOST_MEMORY_BYTES = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class CpuStats:
    """CPU time in nanoseconds and how often the quota held it back. `percpu_ns` is empty on v2."""

    total_ns: int = 0
    user_ns: int = 0
    system_ns: int = 0
    percpu_ns: tuple[int, ...] = ()
    periods: int = 0
    throttled_periods: int = 0
    throttled_ns: int = 0


@dataclass(frozen=True, slots=True)
class MemoryStats:
    """Memory in bytes; `limit_bytes` is never more than the machine has. `details` is memory.stat."""

    usage_bytes: int = 0
    max_usage_bytes: int = 0
    limit_bytes: int = 0
    failure_count: int = 0
    details: dict[str, int] = field(default_factory=dict)

    @property
    def working_set_bytes(self) -> int:
        """Usage without the page cache that nobody misses: what `docker stats` shows."""
        inactive = self.details.get("total_inactive_file", self.details.get("inactive_file", 0))
        return self.usage_bytes - inactive if inactive < self.usage_bytes else self.usage_bytes


@dataclass(frozen=True, slots=True)
class PidsStats:
    """Tasks now and at most (0 = unlimited)."""

    current: int = 0
    limit: int = 0


class IoEntry(NamedTuple):
    """One counter of one block device; `op` is Read, Write, Sync, Async, Discard or Total."""

    major: int
    minor: int
    op: str
    value: int


@dataclass(frozen=True, slots=True)
class Stats:
    """One reading of all controllers; those that the host lacks are zero."""

    cpu: CpuStats = CpuStats()
    memory: MemoryStats = MemoryStats()
    pids: PidsStats = PidsStats()
    io_bytes: tuple[IoEntry, ...] = ()
    io_count: tuple[IoEntry, ...] = ()
    oom_kill_count: int = 0


def host_memory_bytes() -> int:
    """The machine's memory: the limit of whoever has none."""
    return _HOST_MEMORY_BYTES


def v1_stats(read: Read) -> Stats:
    """A reading of v1 controllers."""
    throttling = flat_keyed(read("cpu", "cpu.stat"))
    ticks = flat_keyed(read("cpuacct", "cpuacct.stat"))
    cpu = CpuStats(
        total_ns=_number(read("cpuacct", "cpuacct.usage")),
        user_ns=_number(read("cpuacct", "cpuacct.usage_user")) or ticks.get("user", 0) * _TICK_NS,
        system_ns=_number(read("cpuacct", "cpuacct.usage_sys")) or ticks.get("system", 0) * _TICK_NS,
        percpu_ns=tuple(_number(word) for word in read("cpuacct", "cpuacct.usage_percpu").split()),
        periods=throttling.get("nr_periods", 0),
        throttled_periods=throttling.get("nr_throttled", 0),
        throttled_ns=throttling.get("throttled_time", 0),
    )
    memory = MemoryStats(
        usage_bytes=_number(read("memory", "memory.usage_in_bytes")),
        max_usage_bytes=_number(read("memory", "memory.max_usage_in_bytes")),
        limit_bytes=_limit(read("memory", "memory.limit_in_bytes")),
        failure_count=_number(read("memory", "memory.failcnt")),
        details=flat_keyed(read("memory", "memory.stat")),
    )
    return Stats(
        cpu=cpu,
        memory=memory,
        pids=_pids(read("pids", "pids.current"), read("pids", "pids.max")),
        io_bytes=_v1_io(read, "io_service_bytes"),
        io_count=_v1_io(read, "io_serviced"),
        oom_kill_count=flat_keyed(read("memory", "memory.oom_control")).get("oom_kill", 0),
    )


def v2_stats(read: Read) -> Stats:
    """A reading of the unified hierarchy."""
    usage = flat_keyed(read("cpu", "cpu.stat"))
    events = flat_keyed(read("memory", "memory.events"))
    cpu = CpuStats(
        total_ns=usage.get("usage_usec", 0) * 1000,
        user_ns=usage.get("user_usec", 0) * 1000,
        system_ns=usage.get("system_usec", 0) * 1000,
        periods=usage.get("nr_periods", 0),
        throttled_periods=usage.get("nr_throttled", 0),
        throttled_ns=usage.get("throttled_usec", 0) * 1000,
    )
    memory = MemoryStats(
        usage_bytes=_number(read("memory", "memory.current")),
        max_usage_bytes=_number(read("memory", "memory.peak")),
        limit_bytes=_limit(read("memory", "memory.max")),
        failure_count=events.get("max", 0),
        details=flat_keyed(read("memory", "memory.stat")),
    )
    io = read("io", "io.stat")
    return Stats(
        cpu=cpu,
        memory=memory,
        pids=_pids(read("pids", "pids.current"), read("pids", "pids.max")),
        io_bytes=_v2_io(io, {"rbytes": "Read", "wbytes": "Write", "dbytes": "Discard"}),
        io_count=_v2_io(io, {"rios": "Read", "wios": "Write", "dios": "Discard"}),
        oom_kill_count=events.get("oom_kill", 0),
    )


def flat_keyed(text: str) -> dict[str, int]:
    """`key number` lines; other lines are passed over."""
    values: dict[str, int] = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if value.isdecimal():
            values[key] = int(value)
    return values


def _number(text: str) -> int:
    text = text.strip()
    return int(text) if text.isdecimal() else 0


def _limit(text: str) -> int:
    return min(_number(text) or _HOST_MEMORY_BYTES, _HOST_MEMORY_BYTES)


def _pids(current: str, limit: str) -> PidsStats:
    return PidsStats(_number(current), _number(limit))


def _v1_io(read: Read, name: str) -> tuple[IoEntry, ...]:
    for file in (f"blkio.throttle.{name}_recursive", f"blkio.throttle.{name}"):
        entries = tuple(_v1_io_lines(read("blkio", file)))
        if entries:
            return entries
    return ()


def _v1_io_lines(text: str) -> list[IoEntry]:
    entries = []
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3 and words[2].isdecimal():  # the sum line has two words
            major, _, minor = words[0].partition(":")
            entries.append(IoEntry(_number(major), _number(minor), words[1], int(words[2])))
    return entries


def _v2_io(text: str, ops: dict[str, str]) -> tuple[IoEntry, ...]:
    entries = []
    for line in text.splitlines():
        device, _, rest = line.partition(" ")
        major, _, minor = device.partition(":")
        for word in rest.split():
            key, _, value = word.partition("=")
            if key in ops and value.isdecimal():
                entries.append(IoEntry(_number(major), _number(minor), ops[key], int(value)))
    return tuple(entries)
