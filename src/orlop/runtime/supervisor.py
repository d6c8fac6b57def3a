"""The supervisor: one small process per container, which outlives engine and zygote.

It makes the cgroup, clones init, owns pipes, terminal, log and execs, waits for the end, and
leaves the exit record. Nobody else needs to be alive for a container to run and end well.
Protocol, files and order of writes: docs/internals/supervisor.md. Stdlib only, one thread.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import signal
import socket
from collections.abc import Sequence
from typing import Any

from orlop.base import failpoints, log
from orlop.base.clock import SystemClock
from orlop.base.errors import OrlopError
from orlop.kernel.cgroup import Cgroup, Host
from orlop.kernel.process import start_ticks
from orlop.procs.channel import close_all
from orlop.runtime import ahead, contain, rundir
from orlop.runtime.contract import EXIT_START_FAILED, StartFailed, TaskGone
from orlop.runtime.driving import Driver, DriverFactory
from orlop.runtime.endpoints import Endpoints
from orlop.runtime.execs import Execs
from orlop.runtime.handlers import Handlers
from orlop.runtime.launch import Launched, Pipes, launch_container, open_pipes
from orlop.runtime.logarchive import Compressor
from orlop.runtime.logsenders import ServiceError
from orlop.runtime.logshipping import LogShipping, start_shipping
from orlop.runtime.logwriter import LogWriter
from orlop.runtime.loop import READ, Loop
from orlop.runtime.mapped import launch_mapped
from orlop.runtime.nameserver import NameServer
from orlop.runtime.oom import OomReports
from orlop.runtime.server import Pending, Server
from orlop.runtime.spec import (
    AttachSpec,
    ContainerSpec,
    ExitRecord,
    NameServerSpec,
    to_json,
)
from orlop.runtime.strangers import Strangers
from orlop.runtime.streams import READ_BYTES, STALL_LIMIT_S
from orlop.runtime.supervised import Events, Supervised

__all__ = ["Supervisor"]

_LINGER_STEP_S = 0.05
_UNTOLD_LINGER_S = 1.0


class Supervisor:
    """The state of one container."""

    def __init__(
        self, spec: ContainerSpec, host: Host, made: ahead.Ahead, drivers: DriverFactory | None = None
    ) -> None:
        """`made` is used up by the start; `drivers` makes the driver where another runtime is asked for."""
        self.spec = spec
        self._made = made
        self.driver: Driver | None = None
        self._drivers = drivers
        self._strangers: Strangers | None = None
        self.loop = Loop()
        self.run_fd = os.open(spec.run_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.cgroup: Cgroup = contain.cgroup_of(spec, host)
        # Takes memory only as far as it was written to.
        self.buffer = memoryview(mmap.mmap(-1, READ_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        self.cgroup_fd: int | None = None
        self.init: Supervised | None = None
        self.exit_record: ExitRecord | None = None
        self.failure: StartFailed | None = None
        self.execs = Execs(self)
        self.endpoints = Endpoints(spec.endpoints)
        self.name_server: NameServer | None = None
        self._log: LogWriter | None = None
        self._shipping: LogShipping | None = None
        self._waiting_start: list[Pending] = []
        self._waiting_exit: list[Pending] = []
        self._is_told = False  # somebody knows that the container has started
        self.ooms = OomReports(self.loop, self.cgroup)
        self._server: Server | None = None
        self._socket_inode = 0

    # --- start ---

    def start(self, control: socket.socket, attachments: Sequence[tuple[AttachSpec, socket.socket]]) -> None:
        """Launch the container; every failure ends in an exit record, too."""
        failpoints.hit("supervisor.start.before-socket")
        self._server = Server(self.loop, rundir.listen(self.run_fd), Handlers(self))
        self._socket_inode = rundir.socket_inode(self.run_fd)
        if _is_hung_up(control):
            # The engine is gone, and the next one may have looked for us before there was a socket.
            for _, sock in attachments:
                sock.close()
            self.loop.stop()
            return
        self._server.add(control)
        try:
            self._launch(attachments)
        except (OrlopError, OSError, ValueError) as error:
            for _, sock in attachments:
                sock.close()
            self._start_failed(_failure_of(error))

    def _launch(self, attachments: Sequence[tuple[AttachSpec, socket.socket]]) -> None:
        self._write_record()  # first: by it the cgroup is found if we are killed
        self.cgroup_fd = contain.create(self.cgroup)
        pipes = open_pipes(self.spec.process)
        try:
            launched = self._launch_first(pipes)
        except BaseException:
            pipes.close()
            raise
        failpoints.hit("supervisor.launch.after-clone")
        # From here on init builds the root while we do the rest.
        problem = self._open_log()
        self.init = Supervised(
            self.loop,
            self.spec.process,
            launched,
            pipes,
            sink=self._log,
            buffer=self.buffer,
            closes_stdin=self.spec.process.stdin_once and not self.spec.process.has_tty,
            events=Events(self._started, self._start_failed, self._ended, self._done, self.settled),
        )
        for spec, sock in attachments:
            self.init.streams.attach(spec, sock)
        try:
            if problem is not None:
                raise problem
            contain.limit(self.cgroup, self.spec)
            self.endpoints.attach_wanted(self.init.pid)
            if self.spec.name_server is not None:
                self.serve_names(self.spec.name_server)
        except (OSError, ValueError) as error:
            self.init.abort(_failure_of(error))
        else:
            self.init.go()

    def serve_names(self, spec: NameServerSpec) -> None:
        """Begin to, or go on with other networks' names. Raises OSError."""
        if self.name_server is not None:
            self.name_server.use(spec)
        elif self.endpoints.namespace >= 0:
            self.name_server = NameServer(self.loop, spec, self.endpoints.namespace)

    def _launch_first(self, pipes: Pipes) -> Launched:
        made = self._made
        if self.spec.runtime is None and self.spec.user_namespace is not None:
            made.close()  # its namespaces belong to the host's
            launched, pidfd = launch_mapped(self.spec, self.cgroup, self.cgroup_fd, pipes)
            self.loop.watch(pidfd, READ, lambda: self._reap(pidfd))
            return launched
        if self.spec.runtime is None:
            self.endpoints.keep_namespace(made.network)
            return launch_container(self.spec, self.cgroup, self.cgroup_fd, pipes, made)
        made.close()
        if self._drivers is None:
            raise ValueError(f"runtime {self.spec.runtime.name} cannot be driven here")
        self.driver = self._drivers(self.spec, self.cgroup)
        self._strangers = Strangers(self.loop, self._known)
        return self.driver.launch(self.cgroup_fd, pipes)

    def _reap(self, pidfd: int) -> None:
        """The host side of the start has ended; what it had to say, it said to init."""
        self.loop.unwatch(pidfd)
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        os.close(pidfd)

    def settled(self) -> None:
        """A driver has ended."""
        if self.driver is not None:
            self.driver.settle()
        if self._strangers is not None:
            self._strangers.reap()

    def _known(self) -> set[int] | None:
        if self.driver is None or self.driver.is_busy:
            return None
        return self.execs.pids() | ({self.init.pid} if self.init and self.init.exit_code is None else set())

    def _open_log(self) -> OSError | None:
        if self.spec.log.driver == "none":
            return None
        try:
            self._log = LogWriter(
                self.spec.log.directory,
                max_size_bytes=self.spec.log.max_size_bytes,
                max_files=self.spec.log.max_files,
                on_full=Compressor(self.spec.log.directory).start
                if self.spec.log.is_compressed
                else _nothing,
            )
            if self.spec.log.service is not None:
                self._shipping = start_shipping(self.spec.log)
        except OSError as error:
            return error
        return None

    def _write_record(self) -> None:
        init_pid = self.init.pid if self.init else 0
        rundir.write_record(
            self.run_fd,
            rundir.Record(
                id=self.spec.id,
                supervisor_pid=os.getpid(),
                supervisor_ticks=start_ticks(os.getpid()),
                init_pid=init_pid,
                init_ticks=start_ticks(init_pid),
                cgroup=self.cgroup.path,
                started_at_ns=self.init.started_at_ns if self.init else 0,
            ),
        )

    def _started(self) -> None:
        assert self.init is not None
        problem = ""
        if self.driver is None or self.driver.is_native:
            problem = contain.verify(self.init.pid, self.spec, self.cgroup)
        if problem:  # nobody is told that it runs (I21)
            log.error("a start was undone", container=self.spec.id, problem=problem)
            self.init.signal(signal.SIGKILL)
            text = contain.start_failure_text({"message": problem})
            self.failure = StartFailed(text, exit_code=EXIT_START_FAILED, step="confinement")
        for pending in self._waiting_start:
            if self.failure is not None:
                pending.fail(self.failure)
            else:
                pending.reply(self.state())
            self._is_told = True
        self._waiting_start.clear()
        self._write_record()
        self.ooms.start()

    def _start_failed(self, failure: dict[str, Any]) -> None:
        message = contain.start_failure_text(failure)
        code = int(failure.get("exit_code", 128))
        self.failure = StartFailed(message, exit_code=code, step=str(failure.get("step", "start")))
        self._finish(ExitRecord(code, SystemClock().now_ns(), error=message))

    # --- life ---

    def state(self) -> dict[str, Any]:
        """What a client needs to make a task of us."""
        assert self.init is not None
        return {
            "id": self.spec.id,
            "pid": self.init.pid,
            "started_at_ns": self.init.started_at_ns,
            "has_tty": self.spec.process.has_tty,
            "execs": self.execs.state(),
            "endpoints": self.endpoints.state(),
        }

    def wait_started(self, pending: Pending) -> dict[str, Any] | None:
        """The state once execve has succeeded, or the failure."""
        if self.failure is not None:
            raise self.failure
        if self.init is not None and self.init.started_at_ns:
            self._is_told = True
            return self.state()
        self._waiting_start.append(pending)
        return None

    def wait_exit(self, pending: Pending) -> dict[str, Any] | None:
        """The exit record, once there is one."""
        if self.exit_record is not None:
            return to_json(self.exit_record)
        self._waiting_exit.append(pending)
        return None

    def clear_log(self) -> dict[str, Any]:
        """Remove what was logged so far."""
        if self._log is not None and self.exit_record is None:
            self._log.clear()
        return {}

    def running(self) -> Supervised:
        """The first process.

        Raises:
            TaskGone: it has ended or has not begun.
        """
        if self.init is None or not self.init.is_running:
            raise TaskGone(f"container {self.spec.id} is not running")
        return self.init

    # --- end ---

    def _ended(self) -> None:
        """The first process is gone: so is everything else of the container."""
        self.ooms.finish()
        self.execs.container_ended()
        if self.spec.pid != "private":
            self.cgroup.kill_nowait()

    def _done(self) -> None:
        assert self.init is not None
        record = ExitRecord(
            exit_code=self.failure.exit_code if self.failure else self.init.exit_code or 0,
            error=str(self.failure.message) if self.failure else "",
            finished_at_ns=SystemClock().now_ns(),
            is_oom_killed=self.ooms.count > 0,
            started_at_ns=self.init.started_at_ns,
        )
        self._finish(record)

    def _finish(self, record: ExitRecord) -> None:
        """Log, cgroup, exit record, then whoever waits: in this order."""
        if self._log is not None:
            self._log.close()
        if self._shipping is not None:
            self._shipping.finish()
        self.ooms.finish()
        failpoints.hit("supervisor.exit.before-destroy")
        if self.driver is not None:
            self.driver.finish()
        contain.destroy(self.cgroup)
        self.exit_record = record
        failpoints.hit("supervisor.exit.before-record")
        try:
            rundir.write_exit(self.run_fd, record)
        except OSError as error:  # the run dir was removed under us: whoever waits is told all the same
            log.error("exit record not written", container=self.spec.id, error=error)
        is_told = bool(self._waiting_start) or self._is_told
        for pending in self._waiting_start:
            pending.fail(self.failure or TaskGone("the container has ended"))
        for pending in self._waiting_exit:
            pending.reply(to_json(record))
        self.execs.finish()
        if self.init is not None:
            self.init.streams.finish_attachments()
        if is_told:
            self._linger(STALL_LIMIT_S)
        else:  # whoever started us may not have asked yet how it went
            self.loop.call_later(_UNTOLD_LINGER_S, lambda: self._linger(0))

    def _linger(self, left_s: float) -> None:
        """Stay until clients have what they are due, for a while."""
        assert self._server is not None
        is_flushed = self._server.is_flushed and (self.init is None or self.init.streams.is_flushed)
        if is_flushed or left_s <= 0:
            self.loop.stop()
        else:
            self.loop.call_later(_LINGER_STEP_S, lambda: self._linger(left_s - _LINGER_STEP_S))

    def run(self) -> None:
        """Serve until the container has ended and everybody was told."""
        self.loop.run()
        with contextlib.suppress(FileNotFoundError):
            rundir.unlink_socket(self.run_fd, self._socket_inode)
        if self._server is not None:
            self._server.close()
        if self.init is not None:
            self.init.close()
        if self.name_server is not None:
            self.name_server.close()
        self.endpoints.close()
        close_all([self.run_fd] if self.cgroup_fd is None else [self.run_fd, self.cgroup_fd])


def _nothing() -> None:
    return


def _is_hung_up(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, 0)
    return any(events & select.POLLHUP for _, events in poll.poll(0))


def _failure_of(error: Exception) -> dict[str, Any]:
    """What init would have reported, had it failed."""
    text = str(error)
    if isinstance(error, OSError):
        text = error.strerror or text
        text += f" ({os.fsdecode(error.filename)})" if isinstance(error.filename, str | bytes) else ""
    return {"step": "log" if isinstance(error, ServiceError) else "launch", "message": text, "exit_code": 128}
