"""Metrics of containers: what is known of each, and the newest reading of those that run.

Pure: values in, families out. Labels are the short id, name and image: unique, because names are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from orlop.engine.lifecycle import Status
from orlop.engine.model import Container
from orlop.engine.stats_history import moved, working_set
from orlop.runtime.contract import Stats
from orlop.wire.promtext import Family, label_text

__all__ = ["Reading", "container_families", "container_labels"]

_NANO = 1_000_000_000
_UP = (Status.RUNNING, Status.PAUSED)
_HEALTHS = ("starting", "healthy", "unhealthy")


@dataclass(frozen=True, slots=True)
class Reading:
    """A container and what it uses; None when it does not run or did not answer in time."""

    container: Container
    stats: Stats | None = None


def container_labels(container: Container) -> dict[str, str]:
    """How its samples are told from those of others."""
    return {"id": container.id[:12], "name": container.name, "image": container.record.image_name}


def container_families(readings: Iterable[Reading], oom_kills: Mapping[str, int]) -> list[Family]:
    """All families of containers; `oom_kills` are counted by id since the engine began."""
    known, used = _Known(), _Used()
    for reading in readings:
        labels = container_labels(reading.container)
        text = label_text(labels)
        known.add(reading.container, labels, text, oom_kills.get(reading.container.id, 0))
        if reading.container.status in _UP:
            known.answered.add(int(reading.stats is not None), text)
        if reading.stats is not None:
            used.add(reading.stats, text)
    return [*known.families, *used.families]


class _Known:
    """What the engine knows without asking."""

    def __init__(self) -> None:
        self.up = Family("orlop_container_up", "gauge", "1 while the container runs")
        self.started = Family("orlop_container_start_time_seconds", "gauge", "When it was last started")
        self.restarts = Family("orlop_container_restarts_total", "counter", "Restarts by its restart policy")
        self.ooms = Family(
            "orlop_container_oom_events_total", "counter", "Kills for lack of memory since the engine began"
        )
        self.exit_code = Family("orlop_container_exit_code", "gauge", "How its last run ended")
        self.health = Family("orlop_container_health", "gauge", "1 at what its health check says")
        self.answered = Family(
            "orlop_container_stats_up",
            "gauge",
            "0 when a running container did not tell in time what it uses",
        )
        self.families = [
            self.up,
            self.started,
            self.restarts,
            self.ooms,
            self.exit_code,
            self.health,
            self.answered,
        ]

    def add(self, container: Container, labels: dict[str, str], text: str, oom_kills: int) -> None:
        state = container.state
        self.up.add(int(state.status in _UP), text)
        self.restarts.add(state.restart_count, text)
        self.ooms.add(oom_kills, text)
        if state.started_ns:
            self.started.add(state.started_ns / _NANO, text)
        if state.finished_ns and state.status not in _UP:
            self.exit_code.add(state.exit_code, text)
        if state.health:
            for health in _HEALTHS:
                self.health.add(int(state.health == health), label_text({**labels, "status": health}))


class _Used:
    """What its supervisor has read."""

    def __init__(self) -> None:
        def family(name: str, kind: str, text: str) -> Family:
            return Family(f"orlop_container_{name}", kind, text)

        self.cpu = family("cpu_seconds_total", "counter", "Processor time")
        self.throttled = family(
            "cpu_throttled_seconds_total", "counter", "Time its processor limit took away"
        )
        self.memory = family("memory_working_set_bytes", "gauge", "Memory as docker stats shows it")
        self.usage = family("memory_usage_bytes", "gauge", "Memory with all page cache")
        self.limit = family(
            "memory_limit_bytes", "gauge", "Memory it may use; that of the host without a limit"
        )
        self.pids = family("pids", "gauge", "Processes and threads")
        self.pids_limit = family(
            "pids_limit", "gauge", "Processes and threads it may have; absent without a limit"
        )
        self.received = family("network_receive_bytes_total", "counter", "Bytes received, by all interfaces")
        self.sent = family("network_transmit_bytes_total", "counter", "Bytes sent, by all interfaces")
        self.read = family("block_read_bytes_total", "counter", "Bytes read from block devices")
        self.written = family("block_written_bytes_total", "counter", "Bytes written to block devices")
        self.families = [
            self.cpu,
            self.throttled,
            self.memory,
            self.usage,
            self.limit,
            self.pids,
            self.pids_limit,
            self.received,
            self.sent,
            self.read,
            self.written,
        ]

    def add(self, stats: Stats, text: str) -> None:
        self.cpu.add(stats.cpu_total_ns / _NANO, text)
        self.throttled.add(stats.throttled_ns / _NANO, text)
        self.memory.add(working_set(stats), text)
        self.usage.add(stats.memory_usage_bytes, text)
        self.limit.add(stats.memory_limit_bytes, text)
        self.pids.add(stats.pids_current, text)
        if stats.pids_limit:
            self.pids_limit.add(stats.pids_limit, text)
        self.received.add(_network(stats, "rx_bytes"), text)
        self.sent.add(_network(stats, "tx_bytes"), text)
        self.read.add(moved(stats, "read"), text)
        self.written.add(moved(stats, "write"), text)


def _network(stats: Stats, word: str) -> int:
    """Of all interfaces together: a container chooses their names, and how many there are."""
    return sum(values.get(word, 0) for values in stats.networks.values())
