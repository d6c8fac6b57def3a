"""Frames over the files of a log directory, forwards and backwards, around damage and rotation."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import NamedTuple

from orlop.runtime.logwriter import file_name, log_files
from orlop.wire import logframe
from orlop.wire.logframe import Frame

__all__ = ["FrameSource", "Position", "end_position", "start_position", "walk_back"]

_CHUNK_BYTES = 256 << 10


class Position(NamedTuple):
    """A place in a log: a file's number and an offset in it."""

    number: int
    offset: int


def start_position(directory: str) -> Position:
    """Before the first frame."""
    return Position((_files(directory) or [0])[0], 0)


def end_position(directory: str) -> Position:
    """After the last byte."""
    numbers = _files(directory)
    if not numbers:
        return Position(0, 0)
    with contextlib.suppress(FileNotFoundError):
        return Position(numbers[-1], os.stat(f"{directory}/{file_name(numbers[-1])}").st_size)
    return Position(numbers[-1], 0)


class FrameSource:
    """Frames from a position on; None at the present end, and more later if the log grows."""

    def __init__(self, directory: str, position: Position) -> None:
        self._directory = directory
        self._number, self._offset = position
        self._fd = -1
        self._buffer = b""
        self._start = 0  # of the unread part of the buffer

    def close(self) -> None:
        """Close the file; may be repeated."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def read(self) -> Frame | None:
        """The next whole frame."""
        while True:
            if self._fd < 0 and not self._open():
                return None
            frame = logframe.decode(self._buffer, self._start) if self._start < len(self._buffer) else 1
            if isinstance(frame, Frame):
                self._start += frame.size_bytes
                return frame
            if frame == 0:  # damage: on to the next magic
                self._start = logframe.find_frame(self._buffer, self._start + 1)
            elif not self._fill() and not self._next_file() and not self._skip_false_length():
                return None

    def _open(self) -> bool:
        """Open the file we stand in, or the next one that still exists."""
        for number in _files(self._directory):
            if number >= self._number:
                if number != self._number:
                    self._number, self._offset = number, 0
                with contextlib.suppress(FileNotFoundError):
                    self._fd = os.open(
                        f"{self._directory}/{file_name(number)}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
                    )
                    self._buffer, self._start = b"", 0
                    return True
        return False

    def _fill(self) -> bool:
        """Read on in this file; False at its present end."""
        data = os.pread(self._fd, _CHUNK_BYTES, self._offset)
        self._offset += len(data)
        self._buffer = self._buffer[self._start :] + data
        self._start = 0
        return bool(data)

    def _next_file(self) -> bool:
        """Go to the next file if there is one; a half frame at the end of this one is damage."""
        if not any(number > self._number for number in _files(self._directory)):
            return False
        if self._fill():  # written between our last look and the rotation
            return True
        self._start = logframe.find_frame(self._buffer, self._start + 1)
        if self._start >= len(self._buffer):
            self.close()
            self._number, self._offset = self._number + 1, 0
            self._buffer, self._start = b"", 0
        return True

    def _skip_false_length(self) -> bool:
        """A frame that seems unfinished though a good one lies within it is damage: its length is false."""
        offset = logframe.find_frame(self._buffer, self._start + 1)
        while offset < len(self._buffer):
            if isinstance(logframe.decode(self._buffer, offset), Frame):
                self._start = offset
                return True
            offset = logframe.find_frame(self._buffer, offset + 1)
        return False


def walk_back(directory: str) -> Iterator[tuple[Frame, Position]]:
    """Frames from the last to the first, with where each begins."""
    for number in reversed(_files(directory)):
        try:
            fd = os.open(f"{directory}/{file_name(number)}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            continue
        try:
            yield from _walk_file_back(fd, number)
        finally:
            os.close(fd)


def _walk_file_back(fd: int, number: int) -> Iterator[tuple[Frame, Position]]:
    end = os.fstat(fd).st_size
    while end > 0:
        frame = _frame_before(fd, end)
        if frame is None:  # damage: find this stretch's frames from the front instead
            yield from reversed(_scan(fd, number, end))
            return
        end -= frame.size_bytes
        yield frame, Position(number, end)


def _frame_before(fd: int, end: int) -> Frame | None:
    if end < logframe.OVERHEAD_BYTES:
        return None
    size = logframe.size_from_trailer(os.pread(fd, logframe.TRAILER_BYTES, end - logframe.TRAILER_BYTES))
    if not size or size > end:
        return None
    frame = logframe.decode(os.pread(fd, size, end - size))
    return frame if isinstance(frame, Frame) else None


def _scan(fd: int, number: int, end: int) -> list[tuple[Frame, Position]]:
    data = os.pread(fd, end, 0)
    found: list[tuple[Frame, Position]] = []
    offset = 0
    while offset < len(data):
        frame = logframe.decode(data, offset)
        if isinstance(frame, Frame):
            found.append((frame, Position(number, offset)))
            offset += frame.size_bytes
        else:
            offset = logframe.find_frame(data, offset + 1)
    return found


def _files(directory: str) -> list[int]:
    try:
        return log_files(directory)
    except FileNotFoundError:
        return []
