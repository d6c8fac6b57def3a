"""The way from clients to a process's standard input."""

from __future__ import annotations

import os
from collections.abc import Callable

from orlop.runtime.loop import WRITE, Loop

__all__ = ["InputPump"]


class InputPump:
    """Bytes on their way to a process's standard input; holds at most one chunk."""

    def __init__(self, loop: Loop, fd: int, *, is_shared: bool) -> None:
        """`is_shared`: the fd is a terminal's master, read and closed by somebody else."""
        self._loop = loop
        # A terminal's master is read too: a second descriptor keeps the two watches apart.
        self._writer = os.dup(fd) if is_shared else fd
        self.fd = fd
        self._pending = memoryview(b"")
        self._on_room: Callable[[], None] | None = None
        self._is_finishing = False
        self.is_open = True
        os.set_blocking(self._writer, False)

    @property
    def has_room(self) -> bool:
        """True when `write` may be called."""
        return self.is_open and not self._pending

    def write(self, data: bytes, on_room: Callable[[], None]) -> None:
        """Pass `data` on; `on_room` is called when there is room for more (perhaps at once)."""
        self._pending = memoryview(data)
        self._on_room = on_room
        self._flush()

    def finish(self) -> None:
        """Close after what is pending; may be repeated."""
        self._is_finishing = True
        if not self._pending:
            self.close()

    def close(self) -> None:
        """Close now; may be repeated."""
        if self.is_open:
            self.is_open = False
            self._pending = memoryview(b"")
            self._loop.unwatch(self._writer)
            os.close(self._writer)

    def _flush(self) -> None:
        while self._pending:
            try:
                self._pending = self._pending[os.write(self._writer, self._pending) :]
            except BlockingIOError:
                self._loop.watch(self._writer, WRITE, self._flush, self.close)
                return
            except OSError:  # EPIPE, EIO: the process closed its input
                self.close()
        if self.is_open:
            self._loop.unwatch(self._writer)
            if self._is_finishing:
                self.close()
        if self._on_room is not None:
            callback, self._on_room = self._on_room, None
            callback()
