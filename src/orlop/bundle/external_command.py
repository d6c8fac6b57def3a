"""Calling another OCI runtime: its command line, its log, the terminal that it hands over.

The runtime is called from a short-lived child of the supervisor and dies with it. What it says
about a failure is read from the log that it was told to write, never from its standard streams:
those are the container's.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import select
import signal
import socket
from collections.abc import Sequence
from typing import Any

from orlop.kernel import process
from orlop.kernel.clone import clone3
from orlop.procs.forker import close_others
from orlop.runtime.lookpath import describe_errno
from orlop.runtime.spec import RuntimeSpec

__all__ = ["Call", "Console", "RuntimeFailed", "exit_code_of"]

_LOG_LIMIT_BYTES = 1 << 20
_TEXT_LIMIT = 2000
_CALL_LIMIT_S = 60
_TERMINAL_LIMIT_S = 10.0
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
}
_NOT_FOUND = ("executable file not found", "no such file or directory", "system cannot find the file")
_NOT_EXECUTABLE = ("permission denied", "is a directory", "not a directory", "exec format error")


class RuntimeFailed(Exception):
    """A runtime's command failed; `message` is what it says."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = _errno_words(message)


def _errno_words(message: str) -> str:
    """With errors of the system written as Go does it: the docker CLI looks for them by their letters."""
    for words in (*_NOT_FOUND, *_NOT_EXECUTABLE):
        message = message.replace(words.capitalize(), words)
    return message


def exit_code_of(message: str) -> int:
    """126, 127 or 128, as dockerd reads it out of a runtime's text."""
    text = message.lower()
    if any(words in text for words in _NOT_FOUND):
        return 127
    return 126 if any(words in text for words in _NOT_EXECUTABLE) else 128


class Call:
    """Commands of one runtime about one container; its state lies in a directory of ours."""

    def __init__(self, runtime: RuntimeSpec, state_dir: str, log_path: str) -> None:
        self._runtime = runtime
        self._log_path = log_path
        self._head = [
            runtime.path,
            *runtime.args,
            *("--root", state_dir, "--log", log_path, "--log-format", "json"),
        ]

    def run(self, arguments: Sequence[str], fds: Sequence[int] = (-1, 2, 2)) -> None:
        """Run one command to its end, with `fds` (-1: /dev/null) as its standard streams.

        Raises:
            RuntimeFailed: it could not be executed, or ended with an error.
        """
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._log_path)
        pid, pidfd = clone3()
        if pid == 0:
            _become([*self._head, *arguments], fds)
        try:
            is_over = bool(select.select([pidfd], [], [], _CALL_LIMIT_S)[0])
            if not is_over:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        finally:
            os.close(pidfd)
        assert result is not None
        if result.si_code == os.CLD_EXITED and result.si_status == 0:
            return
        if not is_over:
            raise RuntimeFailed(
                f"{self._runtime.name} {arguments[0]} did not end within {_CALL_LIMIT_S} seconds"
            )
        raise RuntimeFailed(self._said() or self._how(result))

    def _how(self, result: os.waitid_result) -> str:
        name, status = self._runtime.name, result.si_status
        if result.si_code != os.CLD_EXITED:
            return f"{name} was ended by signal {status}"
        if status == _EXIT_NOT_EXECUTED:
            return f"{self._runtime.path} cannot be executed"
        return f"{name} ended with exit code {status}"

    def _said(self) -> str:
        """The last error in its log; "" for none."""
        try:
            with open(self._log_path, "rb") as file:
                lines = file.read(_LOG_LIMIT_BYTES).splitlines()
        except OSError:
            return ""
        for line in reversed(lines):
            with contextlib.suppress(ValueError):
                entry: Any = json.loads(line)
                if isinstance(entry, dict) and entry.get("level") in ("error", "fatal"):
                    return str(entry.get("msg", ""))[:_TEXT_LIMIT]
        return ""


_EXIT_NOT_EXECUTED = 70


def _become(arguments: Sequence[str], fds: Sequence[int]) -> None:
    """The child: the runtime, which ends when its caller does."""
    try:
        process.set_parent_death_signal(signal.SIGKILL)
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        # Copied above the standard three first: one of these may be the source of another.
        sources = [os.dup(fd if fd >= 0 else null) for fd in fds]
        for target, fd in enumerate(sources):
            os.dup2(fd, target, inheritable=True)
        close_others([])
        os.execve(arguments[0], list(arguments), _ENVIRONMENT)  # noqa: S606 - what this child is for
    except OSError as error:
        # To the supervisor's log, or the container's standard error: there is nobody else to tell.
        text = f"{arguments[0]}: {describe_errno(error.errno or 0)}\n"
        with contextlib.suppress(OSError):
            os.write(2, text.encode())
    finally:
        os._exit(_EXIT_NOT_EXECUTED)


class Console:
    """Where a runtime hands over the master of a terminal: a socket in the present directory."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(name)
        self._listener.listen(1)
        self._listener.settimeout(_TERMINAL_LIMIT_S)

    def receive(self) -> int:
        """The master; the caller closes it.

        Raises:
            RuntimeFailed: none came.
        """
        fds = array.array("i")
        try:
            connection, _ = self._listener.accept()
            with connection:
                connection.settimeout(_TERMINAL_LIMIT_S)
                _, control, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(4 * fds.itemsize))
        except TimeoutError:
            raise RuntimeFailed("the runtime handed over no terminal") from None
        for level, kind, data in control:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
        if len(fds) != 1:
            for fd in fds:
                os.close(fd)
            raise RuntimeFailed("the runtime handed over no terminal")
        os.set_inheritable(fds[0], False)
        return fds[0]

    def close(self) -> None:
        """Take the socket away."""
        self._listener.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.name)
