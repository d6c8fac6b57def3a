"""Execs: further processes in a running container.

An exec is asked for, started once, and remembered for a while after its end; nothing of it is
stored. After a restart of the engine running execs are gone from the list,
but they go on in the container.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from orlop.base import ids, log
from orlop.base.errors import InvalidInput, Kind, NotFound, OrlopError
from orlop.base.ids import ExecId
from orlop.engine.catalog import Catalog
from orlop.engine.detach import parse_detach_keys
from orlop.engine.hostconfig import check_words
from orlop.engine.launch import process_spec
from orlop.engine.lifecycle import NotPossible, Status
from orlop.engine.merge import overlay_env
from orlop.engine.model import Container
from orlop.engine.requests import ExecConfig, ExecStart
from orlop.engine.services import Services, emit
from orlop.engine.views import ExecInspect, ProcessConfigView
from orlop.runtime.contract import ExecTask, StartFailed, Task
from orlop.runtime.spec import AttachSpec, ExecSpec, ProcessSpec

__all__ = ["Exec", "Execs", "NoSuchExec", "told_words"]

_EXIT_CODE_S = 5.0
_READY_S = 10.0
_MAX_KEPT = 1000  # finished execs that can still be asked about
_MAX_WAITING = 1000  # execs that were asked for and not started


class NoSuchExec(NotFound):
    """No exec has this id."""

    code = "no-such-exec"


class ExecGone(OrlopError):
    """The exec has been started before."""

    kind = Kind.CONFLICT
    code = "exec-state"


class NotReady(OrlopError):
    """The exec has not been started in time."""

    kind = Kind.INTERNAL
    code = "exec-not-ready"


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
    started: asyncio.Event = field(default_factory=asyncio.Event)  # or has failed to
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

    def create(self, container: Container, config: ExecConfig, asked: str = "") -> ExecId:
        """Ask for a process; it does not run yet. `asked` is how the client named the container.

        Raises:
            NotPossible: the container does not run; dockerd's texts.
            InvalidInput: no command.
        """
        _running_task(container, asked)
        if not config.cmd:
            raise InvalidInput("No exec command specified")
        check_words(*config.cmd, *(config.env or ()), config.working_dir, config.user)
        if config.detach_keys:
            _check_keys(config.detach_keys)
        if config.working_dir and not config.working_dir.startswith("/"):
            raise InvalidInput(f"Cwd must be an absolute path: {config.working_dir[:200]!r}")
        exec_id = ExecId(ids.new_hex_id())
        if len(self._execs) > _MAX_KEPT:
            self._forget_old()
        self._execs[exec_id] = Exec(exec_id, container, config)
        container.exec_ids.add(exec_id)
        emit(self._services, container, f"exec_create: {told_words(config.cmd)}", execID=exec_id)
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
            state = "is already running" if item.is_running else "has already run"
            raise ExecGone(f"Error: Exec command {item.id} {state}")
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
        words = told_words(config.cmd or ("",))
        spec = ExecSpec(item.id, self._process(item, request), is_privileged=config.privileged)
        attach = None
        if not request.detach:
            attach = AttachSpec(config.attach_stdin, config.attach_stdout, config.attach_stderr)
        emit(self._services, item.container, f"exec_start: {words}", execID=item.id)
        try:
            running = await task.exec(spec, attach)
        except StartFailed as error:
            self._finished(item, error.exit_code)  # it never lived: no event of its death
            raise
        except BaseException:
            self._finished(item, 126)
            raise
        item.task, item.pid = running, running.pid
        item.started.set()
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
        """Set the size of its terminal; waits for a start that is about to come.

        Raises:
            NotReady: it has not come.
            NotPossible: the process has ended.
        """
        item = self.get(exec_id)
        try:
            async with asyncio.timeout(_READY_S):
                await item.started.wait()
        except TimeoutError:
            raise NotReady("timeout waiting for exec session ready") from None
        if item.task is None or not item.is_running:
            raise NotPossible(f"cannot resize a stopped exec: {item.id}")
        await item.task.resize(rows, columns)

    def container_ended(self, container: Container) -> None:
        """Forget what was never started: the container's next run knows nothing of it."""
        for exec_id in list(container.exec_ids):
            item = self._execs.get(exec_id)
            if item is None or not item.is_started:
                container.exec_ids.discard(exec_id)
                self._execs.pop(exec_id, None)

    def container_removed(self, container: Container) -> None:
        """Forget them all: nobody can ask for them any more, and each would keep its container in memory."""
        self._drop([item for item in self._execs.values() if item.container is container])

    def _forget_old(self) -> None:
        """Finished ones stay for whoever asks for their exit code, but not for ever; neither do others."""
        self._drop([item for item in self._execs.values() if item.exit_code is not None][:-_MAX_KEPT])
        self._drop([item for item in self._execs.values() if not item.is_started][:-_MAX_WAITING])

    def _drop(self, items: Sequence[Exec]) -> None:
        for item in items:
            item.container.exec_ids.discard(item.id)
            del self._execs[item.id]

    async def _watch(self, item: Exec, task: ExecTask) -> None:
        try:
            code = await task.wait()
        except OrlopError as error:
            log.debug("exec ended with its container", exec=item.id, error=error)
            code = 137
        self._ended(item, code)

    def _finished(self, item: Exec, exit_code: int) -> None:
        item.is_running = False
        item.exit_code = exit_code
        item.container.exec_ids.discard(item.id)
        item.started.set()
        item.finished.set()

    def _ended(self, item: Exec, exit_code: int) -> None:
        self._finished(item, exit_code)
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


def told_words(command: Sequence[str]) -> str:
    """The command as events tell it: dockerd has a blank after a program without arguments."""
    return f"{command[0]} {' '.join(command[1:])}"


def _check_keys(text: str) -> None:
    try:
        parse_detach_keys(text)
    except InvalidInput as error:
        raise InvalidInput(f"Invalid escape keys ({text[:100]}) provided") from error


def _running_task(container: Container, asked: str = "") -> Task:
    if container.status is Status.PAUSED:
        name = asked or container.id
        raise NotPossible(f"Container {name} is paused, unpause the container before exec")
    if container.status is Status.RESTARTING:
        raise NotPossible(f"Container {container.id} is restarting, wait until the container is running")
    if container.task is None:
        raise NotPossible(f"container {container.id} is not running")
    return container.task
