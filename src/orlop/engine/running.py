"""Start and end of containers: carries the transitions of `lifecycle` out.

One `Runner` per engine. An exit is handled without the container's lock and without waiting:
everything that it changes is changed between two awaits, so readers never see half of it.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from orlop.base import failpoints, log, trace
from orlop.base.errors import OrlopError
from orlop.engine import lifecycle, restart
from orlop.engine.lifecycle import Effect, Event, NotPossible, Status
from orlop.engine.model import Container
from orlop.engine.services import Services, emit, emit_mounts, emit_unmounts
from orlop.engine.starting import launch
from orlop.runtime.contract import StartFailed, Task, TaskGone, TaskStuck
from orlop.runtime.spec import ExitRecord

__all__ = ["Hooks", "Runner"]

_NANO = 1_000_000_000
_FAILED_START_CODE = 128
_LOST_CODE = 255


@dataclass(slots=True)
class Hooks:
    """What else happens at a start, an exit, a removal; set once by the engine."""

    remove: Callable[[Container], Awaitable[None]] | None = None
    on_start: list[Callable[[Container], None]] = field(default_factory=list)
    on_adopt: list[Callable[[Container], None]] = field(default_factory=list)
    on_exit: list[Callable[[Container], None]] = field(default_factory=list)
    on_removed: list[Callable[[Container], None]] = field(default_factory=list)


class Runner:
    """Starts containers and deals with their ends."""

    def __init__(self, services: Services, hooks: Hooks) -> None:
        self._services = services
        self._hooks = hooks
        self._is_stopping = False
        self._effects: dict[Effect, Callable[[Container], None]] = {
            Effect.SAVE: services.catalog.save_soon,
            Effect.WATCH: self._watch,
            Effect.EMIT_START: self._emit_start,
            Effect.EMIT_DIE: self._emit_die,
            Effect.EMIT_PAUSE: lambda container: emit(services, container, "pause"),
            Effect.EMIT_UNPAUSE: lambda container: emit(services, container, "unpause"),
            Effect.START_HEALTH: self._run_start_hooks,
            Effect.STOP_HEALTH: self._run_exit_hooks,
            Effect.ARM_BACKOFF: self._arm_backoff,
            Effect.CANCEL_BACKOFF: self._cancel_backoff,
            Effect.WAKE_WAITERS: Container.wake_exit_waiters,
            Effect.AUTO_REMOVE: self._auto_remove,
        }

    def fire(self, container: Container, event: Event, **facts: object) -> None:
        """Change the state by one event and carry its effects out.

        Args:
            container: whose state changes.
            event: what happened or is asked for.
            facts: fields of the state that change with it.

        Raises:
            NotPossible, AlreadyThere: the table does not have it.
        """
        transition = lifecycle.apply(container.status, event, container.name, container.id)
        container.change(status=transition.next, **facts)
        for effect in transition.effects:
            self._effects[effect](container)

    async def start(self, container: Container) -> None:
        """Start it; returns when its program runs.

        Raises:
            AlreadyThere, NotPossible: its state does not allow it.
            StartFailed: it never ran.
        """
        async with container.lock:
            self.fire(container, Event.START)
            container.restart_delay_s = 0.0
            await self._launch(container, restart_count=0)

    async def _launch(self, container: Container, restart_count: int) -> None:
        container.is_starting = True
        try:
            with trace.span("container.start", **{"container.id": container.id}):
                task = await launch(self._services, container)
        except BaseException as error:
            self._fail(container, error)
            raise
        finally:
            container.is_starting = False
        if container.status is Status.REMOVING:  # by force, while it was started: nobody else knows the task
            await _put_down(task)
            await self._services.endpoints.release(container)
            self.fire(container, Event.STARTED)  # says so
        self.took_over(container, task, restart_count=restart_count, was_stopped=False)

    def _fail(self, container: Container, error: BaseException) -> None:
        text = error.message if isinstance(error, OrlopError) else str(error)
        code = error.exit_code if isinstance(error, StartFailed) else _FAILED_START_CODE
        self.fire(container, Event.START_FAILED, exit_code=code, error=text, pid=0)

    def took_over(self, container: Container, task: Task, **facts: object) -> None:
        """A program runs: after a start, or found by the reconciliation."""
        container.task = task
        self.fire(
            container,
            Event.STARTED,
            pid=task.pid,
            started_ns=task.started_at_ns,
            exit_code=0,
            error="",
            is_oom_killed=False,
            restarts_after_exit=False,
            boot_id=self._services.boot_id,
            **facts,
        )

    def adopt(self, container: Container, task: Task, *, is_paused: bool) -> None:
        """A program that was started by an engine before this one: no event, no new start time."""
        container.task = task
        container.change(
            status=Status.PAUSED if is_paused else Status.RUNNING,
            pid=task.pid,
            started_ns=task.started_at_ns,
            exit_code=0,
            error="",
            boot_id=self._services.boot_id,
        )
        for effect in (Effect.SAVE, Effect.WATCH):
            self._effects[effect](container)
        for hook in self._hooks.on_adopt:
            hook(container)

    # --- the end ---

    def _watch(self, container: Container) -> None:
        assert container.task is not None, "only a running container is watched"
        container.watcher = self._services.background.spawn(
            self._wait_for_end(container, container.task), name=f"watch {container.id[:12]}"
        )

    async def _wait_for_end(self, container: Container, task: Task) -> None:
        try:
            record = await task.wait()
        except OrlopError as error:
            log.error("lost sight of a container", container=container.id, error=error)
            now_ns = self._services.clock.now_ns()
            record = ExitRecord(exit_code=_LOST_CODE, finished_at_ns=now_ns, error=error.message)
        self.ended(container, record)

    def ended(self, container: Container, record: ExitRecord) -> None:
        """The program ended: new state, events, waiters, and what the restart policy wants."""
        failpoints.hit("container.exit.before-save")
        container.task = None
        container.watcher = None
        again = self._shall_restart(container, record.exit_code)
        facts: dict[str, object] = {
            "exit_code": record.exit_code,
            "error": record.error,
            "pid": 0,
            "finished_ns": record.finished_at_ns,
            "is_oom_killed": record.is_oom_killed,
        }
        if again and self._is_stopping:
            again, facts["restarts_after_exit"] = False, True  # by the next engine
        if again:
            facts["restart_count"] = container.state.restart_count + 1
        self.fire(container, Event.EXITED_TO_RESTART if again else Event.EXITED, **facts)

    def _shall_restart(self, container: Container, exit_code: int) -> bool:
        if container.status is Status.REMOVING or container.keeps_after_exit:
            return False
        state = container.state
        if state.restarts_after_exit and not state.was_stopped:
            return True
        return restart.shall_restart(
            container.record.host.restart_policy,
            exit_code,
            state.restart_count,
            was_stopped=state.was_stopped,
        )

    def _emit_start(self, container: Container) -> None:
        emit_mounts(self._services, container)
        emit(self._services, container, "start")

    def _emit_die(self, container: Container) -> None:
        state = container.state
        if state.is_oom_killed and not container.told_oom_kills:
            emit(self._services, container, "oom")
        ran_s = max(state.finished_ns - state.started_ns, 0) // _NANO
        emit(self._services, container, "die", exitCode=str(state.exit_code), execDuration=str(ran_s))
        emit_unmounts(self._services, container)

    def _run_start_hooks(self, container: Container) -> None:
        for hook in self._hooks.on_start:
            hook(container)

    def removed(self, container: Container) -> None:
        """The container is unreachable from now on."""
        for hook in self._hooks.on_removed:
            hook(container)

    def _run_exit_hooks(self, container: Container) -> None:
        for hook in self._hooks.on_exit:
            hook(container)

    # --- what follows ---

    def _arm_backoff(self, container: Container) -> None:
        state = container.state
        ran_s = max(state.finished_ns - state.started_ns, 0) / _NANO
        container.restart_delay_s = restart.next_delay_s(container.restart_delay_s, ran_s)
        container.backoff = self._services.background.spawn(
            self._start_again(container, container.restart_delay_s), name=f"restart {container.id[:12]}"
        )

    def restart_soon(self, container: Container, restart_count: int) -> None:
        """Start it in the background: the policy wants it when the engine starts."""
        self.fire(container, Event.START_WITH_ENGINE, restart_count=restart_count)

    async def _start_again(self, container: Container, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        async with container.lock:
            if container.status is not Status.RESTARTING:
                return
            container.backoff = None
            try:
                await self._launch(container, restart_count=container.state.restart_count)
            except (OrlopError, OSError) as error:
                log.warning("container could not be restarted", container=container.id, error=error)

    def _cancel_backoff(self, container: Container) -> None:
        if container.backoff is not None:
            container.backoff.cancel()
            container.backoff = None

    def _auto_remove(self, container: Container) -> None:
        if container.record.host.auto_remove and not container.keeps_after_exit:
            self._services.later(self._remove_quietly(container), f"auto-remove {container.id[:12]}")

    async def _remove_quietly(self, container: Container) -> None:
        assert self._hooks.remove is not None, "set by the composition root"
        try:
            await self._hooks.remove(container)
        except NotPossible:
            return  # somebody else removes it
        except (OrlopError, OSError) as error:
            log.error("container could not be removed", container=container.id, error=error)

    def prepare_shutdown(self) -> None:
        """Arm nothing any more: containers go on, or are stopped, without us."""
        self._is_stopping = True
        for container in self._services.catalog:
            self._cancel_backoff(container)


async def _put_down(task: Task) -> None:
    """End what must not run, and wait for its end."""
    try:
        await task.signal(signal.SIGKILL, all_processes=True)
    except TaskGone:
        pass
    except TaskStuck:
        await task.put_down()
    await task.wait()
