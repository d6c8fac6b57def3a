"""The document that Prometheus scrapes: the engine's own numbers and those of all containers.

A scrape never waits for a container that does not answer: readings have half a second each, what is late
is left out (`orlop_container_stats_up` says so) and not asked again for a while. Scrapes that come
together, or within a second, share one document.
"""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Mapping
from contextlib import suppress
from typing import Protocol

from orlop.aio.scope import Scope
from orlop.base.clock import Clock
from orlop.base.errors import InvalidInput, OrlopError
from orlop.engine.catalog import Catalog
from orlop.engine.container_metrics import Reading, container_families
from orlop.engine.events import EventBus
from orlop.engine.lifecycle import Status
from orlop.engine.meters import Meters, counter
from orlop.engine.model import Container
from orlop.runtime.contract import Stats, Task
from orlop.wire.promtext import Family, encode, label_text

__all__ = ["EngineFacts", "Telemetry", "is_loopback", "split_metrics_address"]

_AT_ONCE = 16
_READ_TIMEOUT_S = 0.5
_SILENCE_S = 30.0  # how long a container is left alone that did not answer
_FRESH_S = 1.0
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICK = os.sysconf("SC_CLK_TCK")


class EngineFacts(Protocol):
    """What does not change while the engine runs."""

    @property
    def info(self) -> Mapping[str, str]:
        """The labels of `engine_daemon_engine_info`."""

    @property
    def cpu_count(self) -> int:
        """Processors of the host."""

    @property
    def memory_bytes(self) -> int:
        """Memory of the host."""


class Telemetry:
    """One per engine that has `--metrics-addr`."""

    def __init__(
        self, catalog: Catalog, events: EventBus, meters: Meters, facts: EngineFacts, clock: Clock
    ) -> None:
        self._catalog = catalog
        self._events = events
        self._meters = meters
        self._facts = facts
        self._clock = clock
        self._silent: dict[str, tuple[Task, float]] = {}  # until when it is left alone
        self._lock = asyncio.Lock()
        self._document = b""
        self._made_s = -_FRESH_S

    async def document(self) -> bytes:
        """All metrics in the text format."""
        async with self._lock:
            if self._clock.monotonic_s() - self._made_s >= _FRESH_S:
                readings = await self._read_all()
                families = (
                    *self._engine_families(),
                    *self._meters.families(),
                    *container_families(readings, self._meters.oom_kills),
                )
                self._document = encode(families)
                self._made_s = self._clock.monotonic_s()
            return self._document

    async def _read_all(self) -> list[Reading]:
        for gone in [item for item in self._silent if item not in self._catalog]:
            del self._silent[gone]
        limit = asyncio.Semaphore(_AT_ONCE)
        containers = list(self._catalog)
        async with Scope("metrics") as scope:
            tasks = {
                item.id: scope.spawn(self._read(item, item.task, limit))
                for item in containers
                if item.task is not None
            }
        return [Reading(item, tasks[item.id].result() if item.id in tasks else None) for item in containers]

    async def _read(self, container: Container, task: Task, limit: asyncio.Semaphore) -> Stats | None:
        async with limit:
            silent = self._silent.get(container.id)
            if silent is not None and silent[0] is task and self._clock.monotonic_s() < silent[1]:
                return None
            try:
                async with asyncio.timeout(_READ_TIMEOUT_S):
                    return await task.stats()
            except TimeoutError:
                self._silent[container.id] = (task, self._clock.monotonic_s() + _SILENCE_S)
            except (OrlopError, OSError):
                pass  # it has just ended
        return None

    def _engine_families(self) -> list[Family]:
        facts = self._facts
        info = Family("engine_daemon_engine_info", "gauge", "Which engine this is, and where it runs")
        info.add(1, label_text(facts.info))
        states = Family("engine_daemon_container_states_containers", "gauge", "Containers by state")
        counts = {"paused": 0, "running": 0, "stopped": 0}
        for container in self._catalog:
            counts[_STATES.get(container.status, "stopped")] += 1
        for state, count in counts.items():
            states.add(count, label_text({"state": state}))
        return [
            info,
            _gauge("engine_daemon_engine_cpus_cpus", "Processors of the host", facts.cpu_count),
            _gauge("engine_daemon_engine_memory_bytes", "Memory of the host", facts.memory_bytes),
            _gauge(
                "engine_daemon_events_subscribers_total",
                "Who listens to events now",
                self._events.listener_count(),
            ),
            states,
            *_process_families(),
        ]


_STATES = {Status.PAUSED: "paused", Status.RUNNING: "running", Status.RESTARTING: "running"}


def _process_families() -> list[Family]:
    """Of the engine's own process, by the names that every Prometheus client library uses."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    used_s = usage.ru_utime + usage.ru_stime
    families = [
        counter("process_cpu_seconds_total", "Processor time of the engine", used_s),
        _gauge("process_open_fds", "Open descriptors", len(os.listdir("/proc/self/fd")) - 1),
        _gauge("process_max_fds", "Descriptors it may open", resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
    ]
    with suppress(OSError, ValueError, IndexError):
        with open("/proc/self/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        families += [
            _gauge("process_virtual_memory_bytes", "Virtual memory", int(fields[20])),
            _gauge("process_resident_memory_bytes", "Memory", int(fields[21]) * _PAGE),
            _gauge("process_start_time_seconds", "When it began", _boot_time_s() + int(fields[19]) / _TICK),
        ]
    return families


def _boot_time_s() -> int:
    with open("/proc/stat", "rb") as file:
        return int(next(line for line in file if line.startswith(b"btime")).split()[1])


def _gauge(name: str, text: str, value: float) -> Family:
    family = Family(name, "gauge", text)
    family.add(value)
    return family


def split_metrics_address(text: str) -> tuple[str, int]:
    """`host:port`; no host means every address, as it does for dockerd.

    Raises:
        InvalidInput: anything else.
    """
    host, colon, port = text.removeprefix("tcp://").rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        colon = ""
    if not colon or not port.isdecimal() or int(port[:6]) > 65535 or len(port) > 5:
        raise InvalidInput(
            f'invalid argument "{text[:100]}" for "--metrics-addr" flag: HOST:PORT is wanted',
            hint="127.0.0.1:9323 is what Docker's manual uses",
        )
    return host or "0.0.0.0", int(port)


def is_loopback(host: str) -> bool:
    """True when nobody but this machine can reach it."""
    return host in ("localhost", "::1") or host.startswith("127.")
