"""Where tasks live: nothing outlives its owner by accident.

Two owners exist. A `Scope` is for work that succeeds or fails as one: it ends when all its
tasks have ended, and the first failure cancels the others and is raised as it is. A
`Background` is for services: connections, watchers and timers whose failures are logged and
do not touch their siblings; closing it cancels and awaits them all. No other module creates
tasks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from orlop.base import log

__all__ = ["Background", "Scope"]

T = TypeVar("T")


class Scope:
    """Tasks that succeed or fail together; use as `async with Scope("pull") as scope`.

    Unlike a bare TaskGroup it raises the first failure itself, not a group around it: callers
    match on `OrlopError` kinds. Failures that followed from the first one are dropped.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._group = asyncio.TaskGroup()
        self._first: BaseException | None = None

    def spawn(self, work: Coroutine[Any, Any, T], *, name: str = "") -> asyncio.Task[T]:
        """Start `work` as a task of this scope."""
        task = self._group.create_task(work, name=f"{self._name}:{name}" if name else self._name)
        task.add_done_callback(self._remember)
        return task

    def start(self, work: Coroutine[Any, Any, object], *, name: str = "") -> None:
        """`spawn` for those who do not keep the task."""
        _ = self.spawn(work, name=name)

    def _remember(self, task: asyncio.Task[Any]) -> None:
        if self._first is None and not task.cancelled():
            self._first = task.exception()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None and self._first is None and not isinstance(error, asyncio.CancelledError):
            self._first = error
        try:
            await self._group.__aexit__(kind, error, traceback)
        except BaseExceptionGroup as group:
            first = self._first or group.exceptions[0]
            if first is error:
                return  # the body's own exception goes on by itself, with its traceback
            raise first from None


class Background:
    """Tasks that serve independently until their owner closes this.

    A failing task is logged as an error and forgotten. `close` may be called twice.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: set[asyncio.Task[Any]] = set()
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, work: Coroutine[Any, Any, T], *, name: str = "") -> asyncio.Task[T]:
        """Start `work`; the task is for cancelling or awaiting it.

        Raises:
            RuntimeError: the owner has closed this.
        """
        if self._is_closed:
            work.close()
            raise RuntimeError(f"{self._name} is closed")
        full = f"{self._name}:{name}" if name else self._name
        task = asyncio.create_task(work, name=full)  # noqa: TID251 - the one place that creates tasks
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def start(self, work: Coroutine[Any, Any, object], *, name: str = "") -> None:
        """`spawn` for those who do not keep the task."""
        _ = self.spawn(work, name=name)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            log.error(
                "background task failed", task=task.get_name(), error=f"{type(error).__name__}: {error}"
            )

    async def close(self) -> None:
        """Cancel all tasks and wait until the last has ended; new ones are refused."""
        self._is_closed = True
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
