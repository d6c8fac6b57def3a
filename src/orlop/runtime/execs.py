"""Further processes in a running container.

The supervisor forks; the child joins the cgroup, then all namespaces of the first process by
its pidfd, and from there goes the way of init: user, confinement, filter, execve. It is not
dumpable until execve, so what runs in the container cannot look into it (CVE-2016-9962).
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from orlop.kernel import process
from orlop.kernel.cgroup import Cgroup, Mode
from orlop.kernel.namespaces import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    TIME_FLAG,
    setns,
)
from orlop.kernel.userns import become_root
from orlop.procs.channel import Channel
from orlop.procs.forker import CHANGED_SIGNALS, close_others, reset_signals, seal_imports
from orlop.runtime import confine, contain, terminal
from orlop.runtime.contract import EXIT_START_FAILED, StartFailed, TaskGone, TaskRefused
from orlop.runtime.init import READY, fail, place_standard_fds
from orlop.runtime.launch import Launched, Pipes, launch_process, open_pipes
from orlop.runtime.mapped import give_streams
from orlop.runtime.plan import plan_process
from orlop.runtime.server import Pending
from orlop.runtime.spec import AttachSpec, ExecSpec
from orlop.runtime.supervised import Events, Supervised

if TYPE_CHECKING:
    from orlop.runtime.supervisor import Supervisor

__all__ = ["Execs"]

MAX_EXECS = 4096
_KEPT_RESULTS = 1024
_NAMESPACES = (
    CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWCGROUP | TIME_FLAG
)


@dataclass(slots=True)
class _Exec:
    spec: ExecSpec
    running: Supervised | None = None
    exit_code: int | None = None
    waiting: list[Pending] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Entry:
    """What the forked child needs."""

    plan: confine.ProcessPlan
    cgroup: Cgroup
    is_in_unified: bool
    init_pidfd: int
    devpts_fd: int
    standard_fds: tuple[int, int, int]
    tty_size: tuple[int, int]
    is_mapped: bool  # into a user namespace


class Execs:
    """All execs of one container."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._execs: dict[str, _Exec] = {}

    def state(self) -> list[dict[str, Any]]:
        """Those that run: id and pid."""
        return [
            {"id": name, "pid": item.running.pid}
            for name, item in self._execs.items()
            if item.running is not None and item.exit_code is None
        ]

    def start(
        self, spec: ExecSpec, attach: tuple[AttachSpec, socket.socket] | None, pending: Pending
    ) -> dict[str, Any] | None:
        """Launch; the reply comes when execve has succeeded or failed. Owns the socket."""
        init = self._supervisor.running()
        if spec.id in self._execs and self._execs[spec.id].exit_code is None:
            raise TaskRefused(f"exec {spec.id} runs already")
        if len(self.state()) >= MAX_EXECS:
            raise TaskRefused(
                "too many execs in this container",
                hint="wait until some have ended, or kill what hangs in them",
            )
        self._forget_old()
        pipes = open_pipes(spec.process)
        try:
            launched = self._launch(spec, init, pipes)
        except BaseException:
            pipes.close()
            raise
        item = _Exec(spec)
        self._execs[spec.id] = item
        item.running = Supervised(
            self._supervisor.loop,
            spec.process,
            launched,
            pipes,
            sink=None,
            buffer=self._supervisor.buffer,
            closes_stdin=not spec.process.has_tty,
            events=self._events(item, pending),
        )
        if attach is not None:
            item.running.streams.attach(*attach)
        return None

    def _launch(self, spec: ExecSpec, init: Supervised, pipes: Pipes) -> Launched:
        supervisor = self._supervisor
        if supervisor.driver is not None:
            return supervisor.driver.launch_exec(spec, init.pid, supervisor.cgroup_fd, pipes)
        own = supervisor.spec.user_namespace
        if own is not None:
            give_streams(pipes, own)
        entry = _Entry(
            plan=plan_process(spec.process, is_privileged=spec.is_privileged),
            cgroup=self._supervisor.cgroup,
            is_in_unified=self._supervisor.cgroup_fd is not None,
            init_pidfd=init.pidfd,
            devpts_fd=init.devpts_fd,
            standard_fds=pipes.child,
            tty_size=spec.process.tty_size,
            is_mapped=own is not None,
        )
        setns(init.pidfd, CLONE_NEWPID)  # for our children only
        return launch_process(lambda channel: _run(entry, channel), cgroup_fd=supervisor.cgroup_fd)

    def _events(self, item: _Exec, pending: Pending) -> Events:
        def started() -> None:
            assert item.running is not None
            problem = self._difference(item)
            if problem:  # as for the first process: nobody is told that it runs (I21)
                item.running.signal(signal.SIGKILL)
                text = contain.exec_failure_text({"message": problem})
                pending.fail(StartFailed(text, exit_code=EXIT_START_FAILED, step="confinement"))
                return
            pending.reply({"pid": item.running.pid})

        def failed(failure: dict[str, Any]) -> None:
            code = contain.exec_exit_code(failure)
            text = contain.exec_failure_text(failure)
            pending.fail(StartFailed(text, exit_code=code, step=str(failure.get("step"))))
            self._end(item, code)

        def done() -> None:
            assert item.running is not None
            self._end(item, item.running.exit_code or 0)

        return Events(started, failed, _nothing, done, self._supervisor.settled)

    def _difference(self, item: _Exec) -> str:
        assert item.running is not None
        driver = self._supervisor.driver  # another runtime confines it, in its own way
        return contain.verify_exec(item.running.pid, item.spec) if driver is None else ""

    def _end(self, item: _Exec, code: int) -> None:
        item.exit_code = code
        for pending in item.waiting:
            pending.reply({"exit_code": code})
        item.waiting.clear()
        if item.running is not None:
            item.running.streams.finish_attachments()
            item.running.release()

    def wait(self, exec_id: str, pending: Pending) -> dict[str, Any] | None:
        """The exit code, once there is one."""
        item = self._get(exec_id)
        if item.exit_code is not None:
            return {"exit_code": item.exit_code}
        item.waiting.append(pending)
        return None

    def running(self, exec_id: str) -> Supervised:
        """The process of a running exec.

        Raises:
            TaskGone: it has ended.
        """
        item = self._get(exec_id)
        if item.running is None or item.exit_code is not None:
            raise TaskGone(f"exec {exec_id} is not running")
        return item.running

    def pids(self) -> set[int]:
        """Every process that is not reaped yet."""
        return {item.running.pid for item in self._execs.values() if item.running and item.exit_code is None}

    def container_ended(self) -> None:
        """Their processes were killed with the pid namespace; without one, they are killed here."""
        for item in self._execs.values():
            if item.running is not None and item.running.exit_code is None:
                with contextlib.suppress(ProcessLookupError):
                    item.running.signal(signal.SIGKILL)

    def finish(self) -> None:
        """The container is over: whoever still waits is told 137."""
        for item in self._execs.values():
            if item.exit_code is None:
                self._end(item, 137)

    def _get(self, exec_id: str) -> _Exec:
        if exec_id not in self._execs:
            raise TaskGone(f"exec {exec_id} is not known")
        return self._execs[exec_id]

    def _forget_old(self) -> None:
        over = [name for name, item in self._execs.items() if item.exit_code is not None]
        for name in over[: max(0, len(over) - _KEPT_RESULTS)]:
            item = self._execs.pop(name)
            if item.running is not None:
                item.running.close()


def _run(entry: _Entry, channel: Channel) -> NoReturn:
    """The child: from the host into the container, then as init does it."""
    step = "session"
    try:
        seal_imports()
        reset_signals(CHANGED_SIGNALS)
        process.set_dumpable(is_dumpable=False)
        os.setsid()
        fds = [fd for fd in entry.standard_fds if fd >= 0]
        close_others(sorted({channel.fileno(), entry.init_pidfd, entry.devpts_fd, *fds} - {-1}))
        step = "limits"
        confine.limit(entry.plan)
        step = "terminal"
        standard = list(entry.standard_fds)
        if entry.plan.has_tty:
            standard = _open_terminal(entry, channel)
        step = "cgroup"
        if entry.cgroup.host.mode is not Mode.NONE:
            entry.cgroup.join(is_in_unified=entry.is_in_unified)
        step = "namespaces"
        setns(entry.init_pidfd, _NAMESPACES | (CLONE_NEWUSER if entry.is_mapped else 0))
        if entry.is_mapped:
            become_root()
        place_standard_fds(standard)
        close_others([channel.fileno()])
        step = "process"
        ready = confine.prepare(entry.plan)
        channel.send_packed(READY)
        confine.become(ready)
        step = "exec"
        confine.execute(ready)
    except BaseException as error:  # noqa: BLE001 - the process border
        fail(channel, step, error)


def _open_terminal(entry: _Entry, channel: Channel) -> list[int]:
    master, slave, _ = terminal.open_terminal(entry.devpts_fd, entry.tty_size)
    channel.send({"terminal": True}, [entry.devpts_fd, master])
    os.close(master)
    terminal.take_control(slave)
    return [slave, slave, slave]


def _nothing() -> None:
    """Nothing follows from the mere end of an exec's process."""
