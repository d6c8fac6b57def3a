"""Execs: further processes in a running container.

An exec is asked for, started once, and remembered for a while after its end; nothing of it is
stored. After a restart of the engine running execs are gone from the list,
but they go on in the container.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field, replace

from orlop.base import ids, log
from orlop.base.errors import InvalidInput, Kind, NotFound, OrlopError
from orlop.base.ids import ExecId
from orlop.engine.catalog import Catalog
from orlop.engine.detach import parse_detach_keys
from orlop.engine.launch import process_spec
from orlop.engine.lifecycle import NotPossible, Status
from orlop.engine.merge import overlay_env
from orlop.engine.model import Container
from orlop.engine.requests import ExecConfig, ExecStart
from orlop.engine.services import Services, emit
from orlop.engine.views import ExecInspect, ProcessConfigView
from orlop.runtime.contract import ExecTask, StartFailed, Task
from orlop.runtime.spec import AttachSpec, ExecSpec, ProcessSpec

__all__ = ["Exec", "Execs", "NoSuchExec"]

_EXIT_CODE_S = 5.0
_MAX_KEPT = 1000  # finished execs that can still be asked about


class NoSuchExec(NotFound):
    """No exec has this id."""

    code = "no-such-exec"


class ExecGone(OrlopError):
    """The exec has been started before."""

    kind = Kind.CONFLICT
    code = "exec-state"


@dataclass(slots=True)
class Exec:
    """One exec: what was asked for and how far it is."""

    id: ExecId
    container: Container
    config: ExecConfig
    is_started: bool = False
    is_running: bool = False
    exit_code: int | None = None
    pid: int = 0
    task: ExecTask | None = None
    finished: asyncio.Event = field(default_factory=asyncio.Event)

    async def wait_finished(self) -> None:
        """Wait until the exit code is known; after the end of its output that is a matter of moments."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_EXIT_CODE_S):
                await self.finished.wait()


class Execs:
    """All execs that are known."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._execs: dict[str, Exec] = {}

    @property
    def catalog(self) -> Catalog:
        """The containers."""
        return self._services.catalog

    def create(self, container: Container, config: ExecConfig) -> ExecId:
        """Ask for a process; it does not run yet.

        Raises:
            NotPossible: the container does not run; dockerd's texts.
            InvalidInput: no command.
        """
        _running_task(container)
        if not config.cmd:
            raise InvalidInput("No exec command specified")
        if config.detach_keys:
            parse_detach_keys(config.detach_keys)
        if config.working_dir and not config.working_dir.startswith("/"):
            raise InvalidInput(f"Cwd must be an absolute path: {config.working_dir[:200]!r}")
        exec_id = ExecId(ids.new_hex_id())
        self._forget_old()
        self._execs[exec_id] = Exec(exec_id, container, config)
        container.exec_ids.add(exec_id)
        words = " ".join(config.cmd)
        emit(self._services, container, f"exec_create: {words}", execID=exec_id)
        return exec_id

    def get(self, exec_id: str) -> Exec:
        """The exec.

        Raises:
            NoSuchExec: with dockerd's text.
        """
        found = self._execs.get(exec_id)
        if found is None:
            raise NoSuchExec(f"No such exec instance: {exec_id[:100]}")
        return found

    def check_startable(self, item: Exec) -> None:
        """Raise ExecGone or NotPossible when `start` would."""
        if item.is_started:
            state = "running" if item.is_running else "stopped"
            raise ExecGone(f"Error: Exec command {item.id} is already {state}")
        _running_task(item.container)

    def detached(self, item: Exec) -> None:
        """A client left by the detach keys; the process goes on."""
        emit(self._services, item.container, "exec_detach", execID=item.id)

    async def start(self, item: Exec, request: ExecStart) -> ExecTask:
        """Run it. The task's `stream` is the caller's unless `detach` was asked for.

        Raises:
            ExecGone: it was started before.
            NotPossible: the container does not run.
            StartFailed: the program could not be executed.
        """
        self.check_startable(item)
        task = _running_task(item.container)
        item.is_started = True
        item.is_running = True
        config = item.config
        words = " ".join(config.cmd or ())
        spec = ExecSpec(item.id, self._process(item, request), is_privileged=config.privileged)
        attach = None
        if not request.detach:
            attach = AttachSpec(config.attach_stdin, config.attach_stdout, config.attach_stderr)
        emit(self._services, item.container, f"exec_start: {words}", execID=item.id)
        try:
            running = await task.exec(spec, attach)
        except StartFailed as error:
            self._ended(item, error.exit_code)
            raise
        except BaseException:
            self._ended(item, 126)
            raise
        item.task, item.pid = running, running.pid
        self._services.later(self._watch(item, running), f"exec {item.id[:12]}")
        return running

    def inspect(self, exec_id: str) -> ExecInspect:
        """What is known of it."""
        item = self.get(exec_id)
        config = item.config
        words = config.cmd or ("",)
        return ExecInspect(
            id=item.id,
            running=item.is_running,
            exit_code=item.exit_code,
            process_config=ProcessConfigView(
                config.tty, words[0], tuple(words[1:]), config.privileged, config.user
            ),
            open_stdin=config.attach_stdin,
            open_stderr=config.attach_stderr,
            open_stdout=config.attach_stdout,
            can_remove=False,
            container_id=item.container.id,
            detach_keys=config.detach_keys,
            pid=item.pid,
        )

    async def resize(self, exec_id: str, rows: int, columns: int) -> None:
        """Set the size of its terminal."""
        item = self.get(exec_id)
        if item.task is None or not item.is_running:
            raise NotPossible(f"cannot resize a stopped exec: {item.id}")
        await item.task.resize(rows, columns)

    def _forget_old(self) -> None:
        """Finished ones stay for whoever asks for their exit code, but not for ever."""
        surplus = len(self._execs) - _MAX_KEPT
        if surplus > 0:
            done = [item.id for item in self._execs.values() if item.exit_code is not None]
            for exec_id in done[:surplus]:
                del self._execs[exec_id]

    async def _watch(self, item: Exec, task: ExecTask) -> None:
        try:
            code = await task.wait()
        except OrlopError as error:
            log.debug("exec ended with its container", exec=item.id, error=error)
            code = 137
        self._ended(item, code)

    def _ended(self, item: Exec, exit_code: int) -> None:
        item.is_running = False
        item.exit_code = exit_code
        item.container.exec_ids.discard(item.id)
        item.finished.set()
        emit(self._services, item.container, "exec_die", execID=item.id, exitCode=str(exit_code))

    def _process(self, item: Exec, request: ExecStart) -> ProcessSpec:
        config, record = item.config, item.container.record
        size = request.console_size or config.console_size or ()
        with_tty = replace(record, config=replace(record.config, tty=config.tty))
        plain = process_spec(
            with_tty, self._services.defaults, config.cmd or (), is_privileged=config.privileged
        )
        return replace(
            plain,
            env=overlay_env(plain.env, config.env or ()),
            cwd=config.working_dir or plain.cwd,
            user=config.user or plain.user,
            has_tty=config.tty,
            tty_size=(size[0], size[1]) if config.tty and len(size) == 2 else (0, 0),
            has_stdin=config.attach_stdin,
            stdin_once=True,
        )


def _running_task(container: Container) -> Task:
    if container.status is Status.PAUSED:
        raise NotPossible(f"container {container.id} is paused, unpause the container before exec")
    if container.status is Status.RESTARTING:
        raise NotPossible(f"Container {container.id} is restarting, wait until the container is running")
    if container.task is None:
        raise NotPossible(f"container {container.id} is not running")
    return container.task
