"""A program at a real terminal: what a person types and sees."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time


def _take_terminal():
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Terminal:
    """Run a command with a pseudo terminal as its controlling terminal; a context manager."""

    def __init__(self, command: list[str], env: dict[str, str], *, rows: int = 24, columns: int = 80):
        self._main, secondary = pty.openpty()
        self.resize(rows, columns)
        self._process = subprocess.Popen(
            command, env=env, stdin=secondary, stdout=secondary, stderr=secondary,
            start_new_session=True, preexec_fn=_take_terminal,  # noqa: PLW1509 - the tests have one thread
        )  # fmt: skip
        os.close(secondary)
        self.seen = ""
        self._mark = 0

    def __enter__(self):
        return self

    def __exit__(self, *error):
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()
        os.close(self._main)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._main, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self._main, text.encode())

    def expect(self, text: str, timeout_s: float = 15) -> str:
        """Wait until `text` is shown after what was expected before; everything up to its end."""
        deadline = time.monotonic() + timeout_s
        while (at := self.seen.find(text, self._mark)) < 0:
            assert self._read(deadline), f"{text!r} is not shown: {self.seen[self._mark :]!r}"
        start, self._mark = self._mark, at + len(text)
        return self.seen[start : self._mark]

    def wait(self, timeout_s: float = 20) -> int:
        """Everything up to the end of the program; its exit code."""
        deadline = time.monotonic() + timeout_s
        while self._read(deadline):
            pass
        return self._process.wait(max(0.1, deadline - time.monotonic()))

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._main], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return False
        try:
            data = os.read(self._main, 65536)
        except OSError:  # EIO: nobody holds the other side any more
            return False
        self.seen += data.decode("utf-8", "replace")
        return bool(data)
