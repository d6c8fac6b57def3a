"""Stop, kill, restart, pause.

Stop and kill take no lock, so that `kill` always gets through to a container that is being
stopped, and a hung program hangs nobody but those who wait for it.
"""

from __future__ import annotations

import asyncio
import contextlib

from orlop.base import log
from orlop.base.errors import Kind, OrlopError
from orlop.engine import lifecycle
from orlop.engine.lifecycle import Event, NotPossible, Status
from orlop.engine.model import Container
from orlop.engine.running import Runner
from orlop.engine.services import Services, emit
from orlop.engine.signals import DEFAULT_STOP_SIGNAL, parse_signal
from orlop.runtime.contract import Task, TaskGone, TaskStuck

__all__ = ["ContainerStuck", "Stopper", "stop_signal_of"]

_DEFAULT_STOP_TIMEOUT_S = 10
_KILL_WAIT_S = 10.0
_SIGKILL = 9


class ContainerStuck(OrlopError):
    """A process did not end although it was killed."""

    kind = Kind.INTERNAL
    code = "container-stuck"


def stop_signal_of(container: Container) -> int:
    """The signal that asks this container to end."""
    text = container.record.config.stop_signal
    return parse_signal(text) if text else DEFAULT_STOP_SIGNAL


class Stopper:
    """Ends containers that run."""

    def __init__(self, services: Services, runner: Runner) -> None:
        self._services = services
        self._runner = runner

    async def stop(self, container: Container, *, timeout_s: int | None, signal: str = "") -> None:
        """Ask it to end, then insist.

        Args:
            container: which.
            timeout_s: None = its own, -1 = wait for ever.
            signal: instead of its stop signal.

        Raises:
            AlreadyThere: it does not run.
        """
        number = parse_signal(signal) if signal else stop_signal_of(container)
        await self._after_start(container)
        task = container.task
        self._runner.fire(container, Event.STOP, was_stopped=True)
        if task is not None:
            await self.end(container, task, number, timeout_s=timeout_s)
        emit(self._services, container, "stop")

    async def kill(self, container: Container, signal: str) -> None:
        """Send a signal; with SIGKILL wait for the end.

        Raises:
            NotPossible: it does not run; dockerd's text.
        """
        number = parse_signal(signal) if signal else _SIGKILL
        await self._after_start(container)
        task = container.task
        if number in (_SIGKILL, stop_signal_of(container)):
            self._runner.fire(container, Event.KILL, was_stopped=True)
        else:
            self._runner.fire(container, Event.SIGNAL)
        if task is None:
            return
        if number == _SIGKILL:
            await self.kill_hard(container, task)
        else:
            is_stop = number == stop_signal_of(container)
            await self._signal(container, task, number, is_stop=is_stop)

    async def restart(self, container: Container, *, timeout_s: int | None, signal: str = "") -> None:
        """Stop it when it runs, then start it. AutoRemove does not apply to the stop."""
        number = parse_signal(signal) if signal else stop_signal_of(container)
        await self._after_start(container)
        container.keeps_after_exit = True
        try:
            if container.task is not None:
                await self.end(container, container.task, number, timeout_s=timeout_s)
                emit(self._services, container, "stop")
            await self._runner.start(container)
        finally:
            container.keeps_after_exit = False
        emit(self._services, container, "restart")

    async def pause(self, container: Container) -> None:
        """Freeze all its processes."""
        await self._freeze(container, Event.PAUSE)

    async def unpause(self, container: Container) -> None:
        """Let them run again."""
        await self._freeze(container, Event.UNPAUSE)

    async def end(
        self, container: Container, task: Task, number: int, *, timeout_s: int | None = None
    ) -> None:
        """Signal it and, when it is deaf, kill it. Says nothing about who wanted that."""
        try:
            await self._signal(container, task, number, is_stop=True)
        except TaskStuck as error:
            await self._put_down(container, task, error)
            return
        if not await self._gone(container, task, _timeout(container, timeout_s)):
            log.info("container ignores its stop signal and is killed", container=container.id)
            await self.kill_hard(container, task)

    async def kill_hard(self, container: Container, task: Task) -> None:
        """SIGKILL everything and wait.

        Raises:
            ContainerStuck: it is still there after ten seconds.
        """
        try:
            await self._signal(container, task, _SIGKILL, all_processes=True)
        except TaskStuck as error:
            await self._put_down(container, task, error)
            return
        await self._await_end(container, task)

    async def _put_down(self, container: Container, task: Task, reason: TaskStuck) -> None:
        log.error("a wedged container is killed with its supervisor", container=container.id, error=reason)
        await task.put_down()
        await self._await_end(container, task)

    async def _await_end(self, container: Container, task: Task) -> None:
        if not await self._gone(container, task, _KILL_WAIT_S):
            raise ContainerStuck(
                f"container {container.id} did not end although it was killed",
                hint="a process may hang in the kernel: see its stack in /proc",
            )

    async def stop_all(self) -> None:
        """End everything for a shutdown; `unless-stopped` containers come back with the engine."""
        running = [container for container in self._services.catalog if container.task is not None]
        spawn = self._services.background.spawn
        tasks = [spawn(self._stop_for_shutdown(item), name=f"shutdown {item.id[:12]}") for item in running]
        if tasks:
            await asyncio.wait(tasks)

    # --- steps ---

    async def _after_start(self, container: Container) -> None:
        """Let a start in progress come to its end: the request is meant for what it makes."""
        if container.is_starting:
            async with container.lock:
                pass

    async def _signal(
        self,
        container: Container,
        task: Task,
        number: int,
        *,
        all_processes: bool = False,
        is_stop: bool = False,
    ) -> None:
        emit(self._services, container, "kill", signal=str(number))
        with contextlib.suppress(TaskGone):
            await task.signal(number, all_processes=all_processes)
            if container.status is Status.PAUSED and (number == _SIGKILL or is_stop):
                await task.unpause()  # a frozen process takes no signal

    async def _gone(self, container: Container, task: Task, timeout_s: float | None) -> bool:
        """Wait until the exit has been dealt with; False when that takes longer."""
        watcher = container.watcher
        if container.task is not task or watcher is None:
            return True
        done, _ = await asyncio.wait([watcher], timeout=timeout_s)
        return bool(done)

    async def _freeze(self, container: Container, event: Event) -> None:
        async with container.lock:
            lifecycle.apply(container.status, event, container.name, container.id)
            task = container.task
            if task is None:
                raise NotPossible(f"container {container.id} is not running")
            await (task.pause() if event is Event.PAUSE else task.unpause())
            if container.task is task:  # it may have ended meanwhile
                self._runner.fire(container, event)

    async def _stop_for_shutdown(self, container: Container) -> None:
        task = container.task
        if task is None:
            return
        try:
            await self.end(container, task, stop_signal_of(container))
        except OrlopError as error:
            log.error("container could not be stopped", container=container.id, error=error)


def _timeout(container: Container, timeout_s: int | None) -> float | None:
    own = container.record.config.stop_timeout
    value = timeout_s if timeout_s is not None else own if own is not None else _DEFAULT_STOP_TIMEOUT_S
    return None if value < 0 else float(value)
