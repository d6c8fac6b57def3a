"""The command in front of a process: waits for it, passes signals on, and its terminal's bytes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import struct
import termios
import tty
from collections.abc import Iterator

from orlop.procs.channel import close_all

__all__ = ["ConsolePair", "hold_signals", "raw_terminal", "wait_for"]

_CHUNK_BYTES = 65536
_NOT_PASSED_ON = {signal.SIGCHLD, signal.SIGURG, signal.SIGPIPE, signal.SIGWINCH}
_PASSED_ON = [
    number
    for number in signal.Signals
    if number not in {signal.SIGKILL, signal.SIGSTOP, *_NOT_PASSED_ON}
    and number < signal.SIGRTMIN
    and number
    not in {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTTIN, signal.SIGTTOU}
]


class ConsolePair:
    """A console socket of our own, for a terminal that the command itself passes on."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)

    def master(self) -> int:
        """The terminal, once the process has sent it; -1 if it never did."""
        self.theirs.close()
        with self.ours:
            _, fds, _, _ = socket.recv_fds(self.ours, 4096, 1)
        if not fds:
            return -1
        # Our own terminal, or a pipe, gets the line ends that the program wrote.
        attributes = termios.tcgetattr(fds[0])
        attributes[1] &= ~termios.ONLCR
        termios.tcsetattr(fds[0], termios.TCSANOW, attributes)
        return fds[0]


def hold_signals() -> None:
    """Keep signals until `wait_for` can pass them on: to be called before the program runs."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)


def wait_for(pid: int, pidfd: int, master: int = -1) -> int:
    """Wait for our child; returns what a shell would: its code, or 128 and the signal."""
    wake_read, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    pending: list[int] = []

    def note(number: int, _: object) -> None:
        pending.append(number)

    for number in _PASSED_ON:
        signal.signal(number, note)
    signal.signal(signal.SIGWINCH, note)
    signal.set_wakeup_fd(wake_write)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)
    try:
        _loop(pidfd, master, wake_read, pending)
    finally:
        signal.set_wakeup_fd(-1)
        close_all([wake_read, wake_write])
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _loop(pidfd: int, master: int, wake: int, pending: list[int]) -> None:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(wake, select.POLLIN)
    if master >= 0:
        _copy_size(master)
        poll.register(master, select.POLLIN)
        poll.register(0, select.POLLIN)
    while True:
        ready = {fd for fd, _ in poll.poll()}
        if wake in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(wake, 4096)
        while pending:
            _pass_on(pending.pop(0), pidfd, master)
        if master in ready and not _copy(master, 1):
            poll.unregister(master)
        elif 0 in ready and master >= 0 and not _copy(0, master):
            poll.unregister(0)
        if pidfd in ready and master not in ready:
            return


def _pass_on(number: int, pidfd: int, master: int) -> None:
    if number == signal.SIGWINCH:
        if master >= 0:
            _copy_size(master)
        return
    with contextlib.suppress(OSError):
        signal.pidfd_send_signal(pidfd, number)


def _copy(source: int, target: int) -> bool:
    try:
        data = os.read(source, _CHUNK_BYTES)
    except OSError:  # EIO: nobody has the terminal open any more
        return False
    view = memoryview(data)
    while view:
        view = view[os.write(target, view) :]
    return bool(data)


def _copy_size(master: int) -> None:
    with contextlib.suppress(OSError):
        fcntl.ioctl(
            master, termios.TIOCSWINSZ, fcntl.ioctl(0, termios.TIOCGWINSZ, struct.pack("4H", 0, 0, 0, 0))
        )


@contextlib.contextmanager
def raw_terminal() -> Iterator[None]:
    """Our own terminal passes every byte on for the time being; nothing when there is none."""
    try:
        before = termios.tcgetattr(0)
    except termios.error:
        yield
        return
    try:
        tty.setraw(0)
        raw = termios.tcgetattr(0)
        raw[1] |= termios.OPOST  # see `ConsolePair.master`
        termios.tcsetattr(0, termios.TCSANOW, raw)
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
