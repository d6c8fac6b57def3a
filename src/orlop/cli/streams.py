"""The two ends of an attached stream: this terminal and the engine's connection.

Without a TTY the engine sends frames of 8 header bytes (stream, 3 zeros, big-endian length) and
data; with one it sends bytes as they are. End of input is passed on as a half-close.

Source: Docker Engine API, ContainerAttach, "Stream format".
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import struct
import sys
import termios
import tty
from collections.abc import Callable, Iterable, Iterator
from typing import Any

__all__ = [
    "DetachKeys",
    "Detached",
    "parse_detach_keys",
    "pump",
    "raw_terminal",
    "show",
    "terminal_size",
    "watch_resize",
]

_READ_BYTES = 64 * 1024
_HEADER = struct.Struct(">BxxxL")
DEFAULT_DETACH = "ctrl-p,ctrl-q"


class Detached(Exception):
    """The detach keys were typed."""


def parse_detach_keys(text: str) -> bytes:
    """`ctrl-p,ctrl-q` or `a,b` as the bytes that a terminal sends.

    Raises:
        InvalidInput: an unknown key name.
    """
    from orlop.base.errors import InvalidInput

    keys = bytearray()
    for word in (text or DEFAULT_DETACH).split(","):
        if len(word) == 1 and word.isascii():
            keys += word.encode()
        elif word.startswith("ctrl-") and len(word) == 6 and (word[5].isalpha() or word[5] in "@[\\]^_"):
            keys.append(ord(word[5].upper()) & 0x1F)
        else:
            raise InvalidInput(f"invalid detach keys ({text}) provided")
    return bytes(keys)


class DetachKeys:
    """Watches what is typed for the key sequence; keys of a broken start are given on."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._matched = 0

    def feed(self, data: bytes) -> bytes:
        """The bytes to send on.

        Raises:
            Detached: the sequence is complete.
        """
        out = bytearray()
        for byte in data:
            if byte == self._keys[self._matched]:
                self._matched += 1
                if self._matched == len(self._keys):
                    raise Detached
                continue
            out += self._keys[: self._matched]
            self._matched = 0
            out.append(byte)
        return bytes(out)


class _Demux:
    """Frames back to (stream, data); headers and data may come in any pieces."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        self._buffer += data
        while len(self._buffer) >= _HEADER.size:
            stream, length = _HEADER.unpack_from(self._buffer)
            end = _HEADER.size + length
            if len(self._buffer) < end:
                return
            yield stream, self._buffer[_HEADER.size : end]
            self._buffer = self._buffer[end:]


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


class _Pump:
    """Never waits for the engine to take input while there is output to show: it may wait for us."""

    def __init__(self, connection: socket.socket, *, is_multiplexed: bool, keys: DetachKeys | None) -> None:
        self._connection = connection
        self._demux = _Demux() if is_multiplexed else None
        self._keys = keys
        self._selector = selectors.DefaultSelector()
        self._pending = memoryview(b"")  # read from standard input and not sent yet
        self._is_file = False  # standard input is always ready, and epoll does not take it

    def show(self, data: bytes) -> None:
        if self._demux is None:
            _write_all(1, data)
            return
        for stream, piece in self._demux.feed(data):
            _write_all(2 if stream == 2 else 1, piece)

    def run(self, leftover: bytes, *, has_stdin: bool) -> None:
        self.show(leftover)
        self._selector.register(self._connection, selectors.EVENT_READ)
        if has_stdin:
            self._watch_stdin()
        while True:
            for key, events in self._selector.select():
                if key.fileobj is not self._connection:
                    self._take_input()
                    continue
                if events & selectors.EVENT_READ:
                    data = self._connection.recv(_READ_BYTES)
                    if not data:
                        return
                    self.show(data)
                if events & selectors.EVENT_WRITE:
                    self._send()

    def _watch_stdin(self) -> None:
        try:
            self._selector.register(0, selectors.EVENT_READ)
        except PermissionError:
            self._is_file = True
            self._take_input()

    def _take_input(self) -> None:
        data = os.read(0, _READ_BYTES)
        is_end = not data
        if data and self._keys is not None:
            data = self._keys.feed(data)
        if is_end:
            self._end_input()
        elif data:
            self._pending = memoryview(data)
            if not self._is_file:
                self._selector.unregister(0)
            self._selector.modify(self._connection, selectors.EVENT_READ | selectors.EVENT_WRITE)
        elif self._is_file:
            self._take_input()

    def _send(self) -> None:
        try:
            sent = self._connection.send(self._pending, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:  # the container's end is closed already
            self._pending = memoryview(b"")
            self._selector.modify(self._connection, selectors.EVENT_READ)
            return
        self._pending = self._pending[sent:]
        if not self._pending:
            self._selector.modify(self._connection, selectors.EVENT_READ)
            self._watch_stdin()

    def _end_input(self) -> None:
        if not self._is_file:
            self._selector.unregister(0)
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)


def show(chunks: Iterable[bytes], *, is_multiplexed: bool) -> None:
    """Write an output stream to standard output and error as it arrives."""
    demux = _Demux()
    for chunk in chunks:
        for stream, piece in demux.feed(chunk) if is_multiplexed else [(1, chunk)]:
            _write_all(2 if stream == 2 else 1, piece)


def pump(
    connection: socket.socket,
    leftover: bytes,
    *,
    is_multiplexed: bool,
    has_stdin: bool,
    detach_keys: bytes | None = None,
) -> None:
    """Copy both ways until the engine closes; the connection is closed on return.

    Raises:
        Detached: the user typed the detach keys.
    """
    keys = DetachKeys(detach_keys) if detach_keys else None
    try:
        _Pump(connection, is_multiplexed=is_multiplexed, keys=keys).run(leftover, has_stdin=has_stdin)
    finally:
        connection.close()


@contextlib.contextmanager
def raw_terminal(*, is_wanted: bool) -> Iterator[None]:
    """Standard input unbuffered and unechoed while inside, when it is a terminal."""
    if not is_wanted or not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(0)
    try:
        tty.setraw(0, termios.TCSANOW)
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def terminal_size() -> tuple[int, int]:
    """Rows and columns; zeros when there is no terminal."""
    for fd in (1, 0, 2):
        with contextlib.suppress(OSError):
            size = os.get_terminal_size(fd)
            return size.lines, size.columns
    return 0, 0


def watch_resize(tell: Callable[[int, int], object]) -> None:
    """Call `tell(rows, columns)` now and at every SIGWINCH; errors of a container that ended are ignored."""
    from orlop.base.errors import OrlopError

    def act(*_: Any) -> None:
        rows, columns = terminal_size()
        if rows and columns:
            with contextlib.suppress(OrlopError, OSError):
                tell(rows, columns)

    act()
    signal.signal(signal.SIGWINCH, act)
