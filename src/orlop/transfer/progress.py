"""Progress of a transfer as values, their Docker form, and the way from worker to client.

Workers report into a `Feed`; one reader iterates over it. A reader that is slower than the
workers loses intermediate byte counts, never a change of status: the feed keeps one pending
count per id. Texts and shapes are those of the Docker engine's pull and push streams, which
the docker CLI draws by id and scripts match on.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from orlop.aio.scope import Background
from orlop.oci.digest import Digest, encoded

__all__ = ["Feed", "Meter", "Progress", "Report", "narrate", "short", "to_message"]

_METER_STEP_S = 0.1
_BAR_WIDTH = 50


@dataclass(frozen=True, slots=True)
class Progress:
    """One line: `id: status`, with byte counts while data moves (`is_layer`) or data for programs."""

    status: str = ""
    id: str = ""
    current: int = 0
    total: int = 0
    is_layer: bool = False
    aux: Mapping[str, object] | None = None


Report = Callable[[Progress], None]


def short(digest: Digest) -> str:
    """The twelve digits by which layers are shown."""
    return encoded(digest)[:12]


def to_message(progress: Progress) -> dict[str, object]:
    """Docker's JSON message; keys in the order dockerd writes them."""
    if progress.aux is not None:
        return {"progressDetail": {}, "aux": dict(progress.aux)}
    message: dict[str, object] = {"status": progress.status}
    if progress.is_layer:
        detail: dict[str, int] = {}
        if progress.current:
            detail["current"] = progress.current
        if progress.total:
            detail["total"] = progress.total
        message["progressDetail"] = detail
        if detail:
            message["progress"] = _bar(progress.current, progress.total)
    if progress.id:
        message["id"] = progress.id
    return message


def _bar(current: int, total: int) -> str:
    if total <= 0 or current > total:
        return f"{_human(current):>8}"
    done = _BAR_WIDTH * current // total
    return f"[{'=' * done}>{' ' * (_BAR_WIDTH - done)}] {_human(current):>8}/{_human(total)}"


def _human(size_bytes: int) -> str:
    """`1.234MB`: units.HumanSize of Docker's go-units, four significant digits, powers of 1000."""
    value, units = float(size_bytes), ["B", "kB", "MB", "GB", "TB", "PB"]
    while value >= 1000 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.4g}{units[0]}"


class Feed:
    """Hands reports of many workers to one reader, counts of one id merged while they wait."""

    def __init__(self) -> None:
        self._pending: deque[Progress] = deque()
        self._ready = asyncio.Event()
        self.is_done = False

    def report(self, progress: Progress) -> None:
        """Queue a value; never blocks."""
        if progress.is_layer and progress.current:
            for index, waiting in enumerate(self._pending):
                if waiting.id == progress.id and waiting.status == progress.status and waiting.current:
                    self._pending[index] = progress
                    return
        self._pending.append(progress)
        self._ready.set()

    def finish(self) -> None:
        """No more will come."""
        self.is_done = True
        self._ready.set()

    async def values(self) -> AsyncGenerator[Progress, None]:
        """Everything reported, until `finish`."""
        while True:
            while self._pending:
                yield self._pending.popleft()
            if self.is_done:
                return
            self._ready.clear()
            await self._ready.wait()


async def narrate(
    name: str, work: Callable[[Report], Coroutine[Any, Any, object]]
) -> AsyncGenerator[Progress, None]:
    """Run `work` and yield what it reports; its failure is raised after its last report.

    Closing the generator early cancels the work and waits for its end.
    """
    # Not a Scope: a task group cancels the task that entered it, and between two yields that
    # task is inside the consumer's code.
    feed = Feed()
    failures: list[Exception] = []

    async def run() -> None:
        try:
            await work(feed.report)
        except Exception as error:  # noqa: BLE001 - carried over to the reader, who raises it
            failures.append(error)
        finally:
            feed.finish()

    async with Background(name) as background:
        background.start(run())
        async for progress in feed.values():
            yield progress
    if failures:
        raise failures[0]


class Meter:
    """Counts bytes of one layer and reports at most ten times a second, and at the end."""

    def __init__(self, report: Report, identifier: str, status: str, total: int) -> None:
        self._report = report
        self._id = identifier
        self._status = status
        self._total = total
        self._last_s = -1.0

    def at(self, current: int) -> None:
        """So many bytes are done."""
        now_s = asyncio.get_running_loop().time()
        if now_s - self._last_s < _METER_STEP_S and current != self._total:
            return
        self._last_s = now_s
        self._report(Progress(self._status, self._id, current, self._total, is_layer=True))
