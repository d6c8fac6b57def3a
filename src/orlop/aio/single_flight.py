"""Many callers, one execution.

The first caller of a key starts the work; those who come while it runs wait for the same
result. A caller that is cancelled leaves the others alone; when the last one leaves, the
work is cancelled too, and that caller waits until it has really ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from functools import partial
from typing import Any, Generic, TypeVar

from orlop.aio.scope import Background

__all__ = ["SingleFlight"]

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class _Flight(Generic[T]):
    __slots__ = ("is_abandoned", "task", "waiters")

    def __init__(self, task: asyncio.Task[T]) -> None:
        self.task = task
        self.waiters = 0
        self.is_abandoned = False


class SingleFlight(Generic[K, T]):
    """De-duplicates concurrent executions by key; nothing is cached after the end.

    An error is raised in every waiter. Cancelling the work from inside (a task that raises
    CancelledError by itself) cancels every waiter's `run`.
    """

    def __init__(self, name: str) -> None:
        self._tasks = _Quiet(name)
        self._flights: dict[K, _Flight[T]] = {}

    def __contains__(self, key: K) -> bool:
        return key in self._flights

    async def run(self, key: K, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result of `work()`, or of the execution of this key that is already under way."""
        while (flight := self._flights.get(key)) is not None and flight.is_abandoned:
            await asyncio.wait([flight.task])
        if flight is None:
            flight = _Flight(self._tasks.spawn(work(), name=str(key)))
            self._flights[key] = flight
            flight.task.add_done_callback(partial(self._forget, key, flight))
        flight.waiters += 1
        try:
            await asyncio.wait([flight.task])
        finally:
            flight.waiters -= 1
            if flight.waiters == 0 and not flight.task.done():
                flight.is_abandoned = True
                flight.task.cancel()
                await _ended(flight.task)
        return flight.task.result()

    def _forget(self, key: K, flight: _Flight[T], _task: asyncio.Task[T]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]

    async def close(self) -> None:
        """Cancel what is still running and wait for it."""
        await self._tasks.close()


async def _ended(task: asyncio.Task[Any]) -> None:
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            continue  # cancelled again: the caller's first cancellation goes on after the end


class _Quiet(Background):
    """The waiters see the failures; logging them once more would be noise."""

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # marks it as retrieved
