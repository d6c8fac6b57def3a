"""The recent past of what containers use: a few numbers each minute, kept in memory only.

Bounded and cheap on purpose: one ring of fixed size per container, one reading per interval of those that
run, nothing when none does. A history begins with the engine and ends with it or with the container.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Iterable
from dataclasses import dataclass

from orlop.base.clock import format_rfc3339_nano
from orlop.base.errors import OrlopError
from orlop.engine.model import Container
from orlop.engine.services import Services
from orlop.runtime.contract import Stats

__all__ = ["CAPACITY", "HistoryView", "Ring", "Sample", "StatsHistory", "moved", "working_set"]

CAPACITY = 120  # two hours at one a minute: 8 KiB for each container
_AT_ONCE = 8
_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One reading; counters go on from the container's start. `cpu_percent` is since the sample before."""

    read: str
    cpu_total_nanos: int
    cpu_percent: float
    memory_bytes: int
    memory_limit_bytes: int
    pids: int
    network_received_bytes: int
    network_sent_bytes: int
    block_read_bytes: int
    block_written_bytes: int


@dataclass(frozen=True, slots=True)
class HistoryView:
    """`GET /containers/{id}/stats/history`: oldest first."""

    id: str
    name: str
    interval_seconds: int
    samples: tuple[Sample, ...]


class Ring:
    """The newest readings of one container."""

    _WIDTH = 9

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._values = array("q", bytes(8 * self._WIDTH * capacity))
        self._capacity = capacity
        self._count = 0

    def add(self, stats: Stats) -> None:
        """Keep a reading; the oldest goes when the ring is full."""
        networks = stats.networks.values()
        row = (
            stats.read_at_ns,
            stats.cpu_total_ns,
            working_set(stats),
            stats.memory_limit_bytes,
            stats.pids_current,
            sum(item.get("rx_bytes", 0) for item in networks),
            sum(item.get("tx_bytes", 0) for item in networks),
            moved(stats, "read"),
            moved(stats, "write"),
        )
        start = self._count % self._capacity * self._WIDTH
        self._values[start : start + self._WIDTH] = array("q", (min(value, (1 << 63) - 1) for value in row))
        self._count += 1

    def samples(self) -> tuple[Sample, ...]:
        """Oldest first."""
        out: list[Sample] = []
        before: tuple[int, ...] | None = None
        for number in range(max(self._count - self._capacity, 0), self._count):
            start = number % self._capacity * self._WIDTH
            row = tuple(self._values[start : start + self._WIDTH])
            out.append(Sample(format_rfc3339_nano(row[0]), row[1], _percent(row, before), *row[2:]))
            before = row
        return tuple(out)


class StatsHistory:
    """One per engine."""

    def __init__(self, services: Services, interval_s: int) -> None:
        self._services = services
        self._interval_s = interval_s
        self._rings: dict[str, Ring] = {}

    async def run(self) -> None:
        """Take a reading of what runs, every interval, for ever."""
        while self._interval_s > 0:
            await asyncio.sleep(self._interval_s)
            await self.take()

    async def take(self) -> None:
        """Take one reading of every running container; whoever does not answer is left out."""
        catalog = self._services.catalog
        for gone in [item for item in self._rings if item not in catalog]:
            del self._rings[gone]
        limit = asyncio.Semaphore(_AT_ONCE)
        await asyncio.gather(*(self._read(item, limit) for item in self._running()))

    def _running(self) -> Iterable[Container]:
        return [item for item in self._services.catalog if item.task is not None]

    async def _read(self, container: Container, limit: asyncio.Semaphore) -> None:
        async with limit:
            task = container.task
            if task is None:
                return
            try:
                async with asyncio.timeout(_TIMEOUT_S):
                    stats = await task.stats()
            except (OrlopError, TimeoutError, OSError):
                return
        self._rings.setdefault(container.id, Ring()).add(stats)

    def view(self, reference: str) -> HistoryView:
        """What is known of one container. Raises NoSuchContainer."""
        container = self._services.catalog.get(reference)
        ring = self._rings.get(container.id)
        return HistoryView(
            container.id, f"/{container.name}", self._interval_s, ring.samples() if ring else ()
        )


def working_set(stats: Stats) -> int:
    """Memory as `docker stats` shows it: without the page cache that nobody misses."""
    detail = stats.memory_detail
    inactive = detail.get("total_inactive_file", detail.get("inactive_file", 0))
    return (
        stats.memory_usage_bytes - inactive
        if inactive < stats.memory_usage_bytes
        else stats.memory_usage_bytes
    )


def moved(stats: Stats, word: str) -> int:
    """Bytes that block devices read or wrote."""
    return sum(value for _, _, operation, value in stats.blkio if operation.lower() == word)


def _percent(row: tuple[int, ...], before: tuple[int, ...] | None) -> float:
    """Of one processor; 0 for the first sample and after a restart of the container."""
    if before is None or row[0] <= before[0] or row[1] < before[1]:
        return 0.0
    return round(100 * (row[1] - before[1]) / (row[0] - before[0]), 2)
