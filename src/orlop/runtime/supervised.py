r"""One child of a supervisor, from clone to the last byte of its output.

launched --ready, end of channel--> running --pidfd--> ended --outputs drained--> done
    \--failure, pidfd--> failed
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from orlop.base.clock import SystemClock
from orlop.procs.channel import close_all
from orlop.runtime import terminal
from orlop.runtime.launch import Launched, Pipes, read_report
from orlop.runtime.loop import READ, Loop, Timer
from orlop.runtime.spec import ProcessSpec
from orlop.runtime.streams import OutputSink, Streams
from orlop.wire.stdstream import STDOUT

__all__ = ["DRAIN_LIMIT_S", "Events", "Supervised"]

# A process that left a background child holding its output: Docker waits for two seconds too.
DRAIN_LIMIT_S = 2.0
_KILLED_EARLY = {"step": "start", "errno": 0, "message": "init was killed before it could start the program"}


@dataclass(frozen=True, slots=True)
class Events:
    """Whom to tell. Exactly one of `failed` and `done` comes last, once."""

    started: Callable[[], None]
    failed: Callable[[dict[str, Any]], None]
    ended: Callable[[], None]  # the process is gone, output may still come
    done: Callable[[], None]
    settled: Callable[[], None] = lambda: None  # a driver has ended


class Supervised:
    """Owns the child's pidfd, report channel, pipes and terminal."""

    def __init__(
        self,
        loop: Loop,
        spec: ProcessSpec,
        launched: Launched,
        pipes: Pipes,
        *,
        sink: OutputSink | None,
        buffer: memoryview,
        closes_stdin: bool,
        events: Events,
    ) -> None:
        self.pid = launched.pid
        self.pidfd = launched.pidfd
        self._is_driven = launched.is_driver
        self._has_program = not launched.is_driver
        self._driver_pidfd = -1
        self._pipes = pipes
        self.started_at_ns = 0
        self.exit_code: int | None = None
        self.devpts_fd = -1
        self._loop = loop
        self._spec = spec
        self._launched = launched
        self._events = events
        self._master = -1
        self._is_ready = False
        self._failure: dict[str, Any] | None = None
        self._drain: Timer | None = None
        self._is_over = False
        self.streams = Streams(
            loop,
            sink=sink,
            is_raw=spec.has_tty,
            closes_stdin=closes_stdin,
            buffer=buffer,
            on_drained=self._drained,
        )
        pipes.close_child()
        self.streams.awaits_input = spec.has_tty and spec.has_stdin
        if pipes.input >= 0:
            self.streams.set_input(pipes.input)
        if self._has_program:
            self._open_outputs()
        loop.watch(launched.channel.fileno(), READ, self._reported)
        loop.watch(self.pidfd, READ, self._exited)

    def _open_outputs(self) -> None:
        """Begin to read: what a driven runtime says earlier is no output of the container."""
        for fd, stream in self._pipes.outputs:
            self.streams.add_output(fd, stream)
        self._pipes.outputs.clear()

    @property
    def is_running(self) -> bool:
        """True between execve and exit."""
        return bool(self.started_at_ns) and self.exit_code is None

    def signal(self, number: int) -> None:
        """Send a signal to exactly this process; ProcessLookupError when it is gone."""
        if self.exit_code is not None:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        signal.pidfd_send_signal(self.pidfd, number)

    def resize(self, rows: int, columns: int) -> None:
        """Set the terminal's size; nothing without a terminal."""
        if self._master >= 0 and not self.streams.is_drained:
            terminal.set_size(self._master, rows, columns)

    def go(self) -> None:
        """Let init go on: its cgroup is ready."""
        with contextlib.suppress(OSError):
            self._launched.channel.send({"go": True})

    def abort(self, failure: dict[str, Any]) -> None:
        """End a process that must not start, for a reason of ours."""
        self._failure = failure
        self.signal(signal.SIGKILL)

    def release(self) -> None:
        """Give back what belongs to the process; its clients still get what they are due. Repeatable."""
        self._stop_listening()
        self._drop_driver()
        close_all(fd for fd, _ in self._pipes.outputs)
        self._pipes.outputs.clear()
        if self.pidfd >= 0:
            self._loop.unwatch(self.pidfd)
            os.close(self.pidfd)
            self.pidfd = -1
        if self.devpts_fd >= 0:
            os.close(self.devpts_fd)
            self.devpts_fd = -1
        if self.streams.input is not None:
            self.streams.input.close()

    def close(self) -> None:
        """Give back everything; the process itself is not touched."""
        self.release()
        self.streams.close()

    def _reported(self) -> None:
        while (report := read_report(self._launched.channel)) is not None:
            if report.fds:
                self._take_terminal(report.fds)
            elif report.program is not None:
                self._take_program(*report.program)
            elif report.master >= 0:
                self._take_terminal((-1, report.master))
            elif report.is_ready:
                self._is_ready = True
            elif report.failure is not None:
                self._failure = self._failure or report.failure
            else:
                self._stop_listening()
                if self._is_ready and self._failure is None and self.exit_code is None:
                    self.started_at_ns = SystemClock().now_ns()
                    self._events.started()
                elif self._is_driven and self._has_program and self.exit_code is None:
                    self.signal(signal.SIGKILL)  # made, but it could not be started
                return

    def _take_program(self, pid: int, pidfd: int) -> None:
        """The driver has made the process that all this is about."""
        self._driver_pidfd, self.pid, self.pidfd = self.pidfd, pid, pidfd
        self._has_program = True
        self._open_outputs()
        self._loop.watch(self._driver_pidfd, READ, self._driver_exited)
        self._loop.watch(self.pidfd, READ, self._exited)

    def _driver_exited(self) -> None:
        if os.waitid(os.P_PIDFD, self._driver_pidfd, os.WEXITED | os.WNOHANG) is None:
            return
        if self._launched.channel.fileno() >= 0:
            self._reported()
        self._drop_driver()
        self._events.settled()
        if self.exit_code is None and self.pidfd >= 0:
            self._loop.watch(self.pidfd, READ, self._exited)

    def _drop_driver(self) -> None:
        if self._driver_pidfd >= 0:
            self._loop.unwatch(self._driver_pidfd)
            os.close(self._driver_pidfd)
            self._driver_pidfd = -1

    def _stop_listening(self) -> None:
        if self._launched.channel.fileno() >= 0:
            self._loop.unwatch(self._launched.channel.fileno())
            self._launched.channel.close()

    def _take_terminal(self, fds: tuple[int, ...]) -> None:
        """The first descriptor is the container's devpts, the second (if any) this process's master."""
        self.devpts_fd, *rest = fds
        if rest:
            self._master = rest[0]
            self.streams.add_output(self._master, STDOUT)
            if self._spec.has_stdin:
                self.streams.set_input(self._master)
        close_all(rest[1:])

    def _exited(self) -> None:
        if not self._has_program and self._launched.channel.fileno() >= 0:
            self._reported()  # a driver's last words may be of a program
            if self._has_program:
                return
        if self._driver_pidfd >= 0:
            self._loop.unwatch(self.pidfd)  # until the driver has said how the start went, and has ended
            return
        result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG)
        if result is None:
            return
        self._loop.unwatch(self.pidfd)
        if self._launched.channel.fileno() >= 0:
            self._reported()  # what it said before it ended counts
            self._stop_listening()
        code = result.si_status
        self.exit_code = code if result.si_code == os.CLD_EXITED else 128 + code
        if not self._has_program:
            self._events.settled()
        if not self.started_at_ns:
            self._is_over = True
            self._events.failed(self._failure or {**_KILLED_EARLY, "exit_code": 128})
            return
        self._events.ended()
        if self.streams.is_drained:
            self._finish()
        else:
            self._drain = self._loop.call_later(DRAIN_LIMIT_S, self.streams.abandon_outputs)

    def _drained(self) -> None:
        if self.exit_code is not None:
            self._finish()

    def _finish(self) -> None:
        if not self._is_over and self.started_at_ns:
            self._is_over = True
            if self._drain is not None:
                self._drain.cancel()
            self._events.done()
