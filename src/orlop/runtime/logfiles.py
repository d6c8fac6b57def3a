"""Frames over the files of a log directory, forwards, around damage and rotation."""

from __future__ import annotations

import os
from typing import NamedTuple

from orlop.runtime.logarchive import open_file
from orlop.runtime.logwriter import log_files
from orlop.wire import logframe
from orlop.wire.logframe import Frame

__all__ = ["FrameSource", "Position", "end_position", "existing_files", "start_position"]

_CHUNK_BYTES = 256 << 10


class Position(NamedTuple):
    """A place in a log: a file's number and an offset in it."""

    number: int
    offset: int


def start_position(directory: str) -> Position:
    """Before the first frame."""
    return Position((existing_files(directory) or [0])[0], 0)


def end_position(directory: str) -> Position:
    """After the last byte."""
    numbers = existing_files(directory)
    if not numbers:
        return Position(0, 0)
    fd = open_file(directory, numbers[-1])
    if fd is None:
        return Position(numbers[-1], 0)
    try:
        return Position(numbers[-1], os.fstat(fd).st_size)
    finally:
        os.close(fd)


def existing_files(directory: str) -> list[int]:
    """The numbers of the files, oldest first; none when there is no log."""
    try:
        return log_files(directory)
    except FileNotFoundError:
        return []


class FrameSource:
    """Frames from a position on; None at the present end, and more later if the log grows.

    What was damaged, and what was removed before it was read, is told by a note of our own in its place.
    """

    def __init__(self, directory: str, position: Position) -> None:
        self._directory = directory
        self._number, self._offset = position
        self._fd = -1
        self._buffer = b""
        self._start = 0  # of the unread part of the buffer
        self._skipped_bytes = 0
        self._has_gap = False
        self._last = Frame(logframe.NOTE, 0, 0, b"")

    def close(self) -> None:
        """Close the file; may be repeated."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def read(self) -> Frame | None:
        """The next whole frame, or a note."""
        while True:
            if self._fd < 0 and not self._open():
                return None
            frame = logframe.decode(self._buffer, self._start) if self._start < len(self._buffer) else 1
            if isinstance(frame, Frame):
                if self._skipped_bytes or self._has_gap:
                    return self._note(frame.time_ns)
                self._start += frame.size_bytes
                self._last = frame
                return frame
            if frame == 0:  # damage: on to the next magic
                self._skip_to(logframe.find_frame(self._buffer, self._start + 1))
            elif not self._fill() and not self._next_file() and not self._skip_false_length():
                return None

    def _note(self, time_ns: int) -> Frame:
        text = "older output was removed before it was read here"
        if self._skipped_bytes:
            text = f"{self._skipped_bytes} bytes of this log are damaged and were left out"
        self._skipped_bytes, self._has_gap = 0, False
        return Frame(logframe.NOTE, self._last.time_ns or time_ns, 0, f"orlop: {text}\n".encode())

    def _skip_to(self, start: int) -> None:
        self._skipped_bytes += start - self._start
        self._start = start

    def _open(self) -> bool:
        """Open the file we stand in, or the next one that still exists."""
        for number in existing_files(self._directory):
            if number >= self._number:
                fd = open_file(self._directory, number)
                if fd is None:
                    continue
                if number != self._number:
                    self._has_gap = self._number > 0
                    self._number, self._offset = number, 0
                self._fd, self._buffer, self._start = fd, b"", 0
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
        if not any(number > self._number for number in existing_files(self._directory)):
            return False
        if self._fill():  # written between our last look and the rotation
            return True
        if self._start < len(self._buffer):
            self._skip_to(logframe.find_frame(self._buffer, self._start + 1))
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
                self._skip_to(offset)
                return True
            offset = logframe.find_frame(self._buffer, offset + 1)
        return False
