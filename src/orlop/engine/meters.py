"""What the engine counts about itself while `--metrics-addr` is given: nobody counts without it.

Updates are a few additions on the event loop. Every key is one of ours (an operation, an action) or
the id of a container that exists, so nothing here grows without bound.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter

from orlop.engine.events import Event
from orlop.engine.views import HealthLog
from orlop.wire.promtext import Family, label_text

__all__ = ["Histogram", "Meters", "Total"]

BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # those of dockerd
ACTIONS = {
    "ContainerChanges": "changes",
    "ImageCommit": "commit",
    "ContainerCreate": "create",
    "ContainerDelete": "delete",
    "ContainerStart": "start",
}


class Histogram:
    """How long something took, in buckets."""

    __slots__ = ("counts", "sum_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_S) + 1)
        self.sum_s = 0.0

    def add(self, took_s: float) -> None:
        """One more; a bound belongs to the bucket below it."""
        self.counts[bisect_left(BOUNDS_S, took_s)] += 1
        self.sum_s += took_s

    def show(self, family: Family, labels: dict[str, str]) -> None:
        """Add its samples to a family."""
        total = 0
        for bound, count in zip((*BOUNDS_S, None), self.counts, strict=True):
            total += count
            le = "+Inf" if bound is None else f"{bound:g}"
            family.add(total, label_text({**labels, "le": le}), "_bucket")
        family.add(self.sum_s, label_text(labels), "_sum")
        family.add(total, label_text(labels), "_count")


class Total:
    """How often and for how long."""

    __slots__ = ("count", "sum_s")

    def __init__(self) -> None:
        self.count = 0
        self.sum_s = 0.0


class Meters:
    """One per engine."""

    def __init__(self) -> None:
        self.actions = {action: Histogram() for action in ACTIONS.values()}
        self.requests: dict[str, Total] = {}
        self.answers: Counter[str] = Counter()
        self.builds = 0
        self.events = 0
        self.oom_kills: Counter[str] = Counter()
        self.probes = 0
        self.failed_probes = 0

    def answered(self, operation: str, status: int, took_s: float) -> None:
        """A request of the API has its answer; of a stream that is its beginning."""
        total = self.requests.setdefault(operation, Total())
        total.count += 1
        total.sum_s += took_s
        self.answers[f"{status // 100}xx"] += 1
        action = ACTIONS.get(operation)
        if action is not None and status < 400:
            self.actions[action].add(took_s)
        if operation == "ImageBuild":
            self.builds += 1

    def published(self, event: Event) -> None:
        """Something happened."""
        self.events += 1
        if event.type == "container":
            if event.action == "oom":
                self.oom_kills[event.actor.id] += 1
            elif event.action == "destroy":
                self.oom_kills.pop(event.actor.id, None)

    def probed(self, result: HealthLog) -> None:
        """A health check ended."""
        self.probes += 1
        self.failed_probes += result.exit_code != 0

    def families(self) -> list[Family]:
        """All of it; the names that start with `engine_daemon` and `builder` are those of dockerd."""
        actions = Family(
            "engine_daemon_container_actions_seconds", "histogram", "How long actions on containers took"
        )
        for action, histogram in self.actions.items():
            histogram.show(actions, {"action": action})
        requests = Family(
            "orlop_api_request_seconds", "summary", "How long requests took until their answer began"
        )
        for operation, total in sorted(self.requests.items()):
            labels = label_text({"operation": operation})
            requests.add(total.sum_s, labels, "_sum")
            requests.add(total.count, labels, "_count")
        answers = Family("orlop_api_responses_total", "counter", "Answers of the API by class of status")
        for code, count in sorted(self.answers.items()):
            answers.add(count, label_text({"code": code}))
        return [
            actions,
            requests,
            answers,
            counter("builder_builds_triggered_total", "Builds that were begun", self.builds),
            counter("engine_daemon_events_total", "Events since the engine began", self.events),
            counter("engine_daemon_health_checks_total", "Health checks that were run", self.probes),
            counter(
                "engine_daemon_health_checks_failed_total", "Health checks that failed", self.failed_probes
            ),
        ]


def counter(name: str, text: str, value: float) -> Family:
    """A family of one counter."""
    family = Family(name, "counter", text)
    family.add(value)
    return family
