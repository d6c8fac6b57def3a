"""The supervisor's event loop: descriptors, timers, nothing else.

Callbacks run one at a time and must not block. A callback may watch and unwatch anything,
itself included.
"""

from __future__ import annotations

import heapq
import itertools
import select
import time
from collections.abc import Callable

from orlop.base import log

__all__ = ["HANGUP", "READ", "WRITE", "Loop", "Timer"]

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
HANGUP = select.EPOLLHUP  # always reported; named to watch for nothing else


class Timer:
    """A call in the future; `cancel` may be repeated."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Do not call."""
        self.callback = None


class Loop:
    """epoll with callbacks."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, tuple[Callable[[], None], Callable[[], None] | None]] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._is_running = True

    def watch(
        self, fd: int, events: int, callback: Callable[[], None], on_error: Callable[[], None] | None = None
    ) -> None:
        """Call back when `fd` is ready for any of `events` (or broken); replaces an earlier watch.

        A callback that raises ends `run`, unless `on_error` is there to get rid of its guest: one
        client's trouble is not the container's.
        """
        if fd in self._callbacks:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._callbacks[fd] = (callback, on_error)

    def unwatch(self, fd: int) -> None:
        """Forget `fd`; to be done before it is closed. May be repeated."""
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Call once after `delay_s` seconds."""
        timer = Timer(callback)
        heapq.heappush(self._timers, (time.monotonic() + delay_s, next(self._order), timer))
        return timer

    def stop(self) -> None:
        """Make `run` return after the present round."""
        self._is_running = False

    def run(self) -> None:
        """Serve until `stop`."""
        while self._is_running:
            for fd, _ in self._epoll.poll(self._timeout_s()):
                # An earlier callback of this round may have unwatched it. If another file has taken
                # its number since, the callback finds nothing to read and returns.
                watched = self._callbacks.get(fd)
                if watched is not None:
                    _call(*watched)
            self._fire_timers()

    def close(self) -> None:
        """Close the epoll descriptor."""
        self._epoll.close()

    def _timeout_s(self) -> float | None:
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None

    def _fire_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            _, _, timer = heapq.heappop(self._timers)
            callback, timer.callback = timer.callback, None
            if callback is not None:
                callback()


def _call(callback: Callable[[], None], on_error: Callable[[], None] | None) -> None:
    try:
        callback()
    except Exception as error:
        if on_error is None:
            raise
        log.error("a client of the supervisor was dropped", error=f"{type(error).__name__}: {error}")
        on_error()
