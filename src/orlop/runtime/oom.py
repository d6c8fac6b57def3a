"""Out-of-memory kills of a running container, told as they happen.

A client asks for a count above the one that it knows and is answered when there is one. The total is read
from the cgroup, so a kill that no notification told of is counted with the next, at the latest at the end.
"""

from __future__ import annotations

import contextlib
from typing import Any

from orlop.kernel.cgroup import Cgroup
from orlop.kernel.cgroup_oom import OomWatch
from orlop.runtime.loop import READ, Loop, Timer
from orlop.runtime.server import Pending

__all__ = ["OomReports"]

# v1 tells of the lack of memory, and the victim is chosen after that
_LOOK_AGAIN_S = (0.05, 0.25, 1.0)


class OomReports:
    """One per supervisor."""

    def __init__(self, loop: Loop, cgroup: Cgroup) -> None:
        self._loop = loop
        self._cgroup = cgroup
        self._watch: OomWatch | None = None
        self._timers: list[Timer] = []
        self._waiting: list[tuple[int, Pending]] = []
        self.count = 0

    def start(self) -> None:
        """Begin to watch; a kernel that cannot tell leaves the count at the end."""
        with contextlib.suppress(OSError):
            self._watch = OomWatch(self._cgroup)
            self._loop.watch(self._watch.fileno(), READ, self._ready)
            self._look_on()  # the program has begun already

    def wait(self, seen: int | None, pending: Pending) -> dict[str, Any] | None:
        """The count once it is above `seen`; at once for None."""
        if seen is None or self.count > seen:
            return {"count": self.count}
        self._waiting.append((seen, pending))
        return None

    def finish(self) -> None:
        """Count for the last time; the cgroup may go afterwards. May be repeated."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        watch, self._watch = self._watch, None
        if watch is not None:
            self._loop.unwatch(watch.fileno())
            watch.close()
        self._look()

    def _ready(self) -> None:
        assert self._watch is not None
        self._watch.new_kills()  # its count is not ours: it forgets
        self._look_on()

    def _look_on(self) -> None:
        before = self.count
        self._look()
        if self.count == before and not self._timers:
            self._timers = [self._loop.call_later(delay_s, self._look) for delay_s in _LOOK_AGAIN_S]
            self._timers.append(self._loop.call_later(_LOOK_AGAIN_S[-1], self._timers.clear))

    def _look(self) -> None:
        self.count = max(self.count, self._cgroup.oom_kill_count())
        waiting, self._waiting = self._waiting, []
        for seen, pending in waiting:
            if self.count > seen:
                pending.reply({"count": self.count})
            else:
                self._waiting.append((seen, pending))
