"""The supervisor's end of a container's log: append a frame per read, rotate, never block or raise.

Layout, rotation and crash table: docs/internals/logs.md. Frames: wire/logframe.py.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from orlop.base.clock import SystemClock
from orlop.wire import logframe

__all__ = ["COMPRESSED", "PARTIAL", "LogWriter", "file_name", "log_files", "remove_log"]

COMPRESSED = ".gz"
PARTIAL = ".gz.part"
_SUFFIX = ".log"
_DIGITS = 10
NOTE_STREAM = 3
_CLOCK = SystemClock()


def file_name(number: int) -> str:
    """`0000000001.log`: files sort as they were written."""
    return f"{number:0{_DIGITS}d}{_SUFFIX}"


def log_files(directory: str | int) -> list[int]:
    """The numbers of the files in a log directory, oldest first."""
    numbers = set()
    for entry in os.listdir(directory):
        name = entry.removesuffix(COMPRESSED)
        stem = name.removesuffix(_SUFFIX)
        if name.endswith(_SUFFIX) and len(stem) >= _DIGITS and stem.isascii() and stem.isdecimal():
            numbers.add(int(stem))
    return sorted(numbers)


def remove_log(directory: str) -> None:
    """Remove all files of a log that nobody writes; may be repeated."""
    with contextlib.suppress(FileNotFoundError):
        for number in log_files(directory):
            for suffix in ("", COMPRESSED, PARTIAL):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"{directory}/{file_name(number)}{suffix}")


def _open_directory(directory: str) -> int:
    """It is there in most starts, which then leave the pages of `makedirs` alone."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    try:
        return os.open(directory, flags)
    except FileNotFoundError:
        os.makedirs(directory, 0o700, exist_ok=True)
        return os.open(directory, flags)


class LogWriter:
    """Appends to a log directory; one writer at a time, over restarts of the container too.

    Output that cannot be written (disk full) is counted, and a note takes its place as soon as
    writing works again. Nothing is fsynced: a power cut may cost the last seconds.
    """

    def __init__(
        self,
        directory: str,
        *,
        max_size_bytes: int,
        max_files: int,
        on_full: Callable[[], None] = lambda: None,
        now_ns: Callable[[], int] = _CLOCK.now_ns,
    ) -> None:
        """`on_full` is called when a file will not change any more."""
        self._directory = _open_directory(directory)
        self._max_size = max(max_size_bytes, 1 << 16)
        self._max_files = max(max_files, 1)
        self._on_full = on_full
        self._now_ns = now_ns
        self._lost_bytes = 0
        self._fd = -1
        self._number = 0
        self._size = 0
        self._sequence = 0
        self._resume()

    def write(self, stream: int, data: memoryview) -> None:
        """Append one frame (in pieces of at most 1 MiB)."""
        if self._lost_bytes:
            self._write_note()
        for start in range(0, len(data), logframe.MAX_DATA_BYTES):
            piece = data[start : start + logframe.MAX_DATA_BYTES]
            if not self._append(stream, piece):
                self._lost_bytes += len(piece)

    def clear(self) -> None:
        """Begin a new file and remove all others.

        Raises:
            OSError: the new file cannot be made; nothing was removed.
        """
        self._rotate()
        self._remove(log_files(self._directory)[:-1])

    def close(self) -> None:
        """Close the files; may be repeated."""
        if self._lost_bytes:
            self._write_note()
        for fd in (self._fd, self._directory):
            if fd >= 0:
                os.close(fd)
        self._fd = self._directory = -1

    def _append(self, stream: int, data: memoryview | bytes) -> bool:
        size = len(data) + logframe.OVERHEAD_BYTES
        try:
            if self._fd < 0 or (self._size and self._size + size > self._max_size):
                self._rotate()
            head, tail = logframe.encode_around(stream, self._now_ns(), self._sequence, data)
            written = os.writev(self._fd, [head, data, tail])
        except OSError:
            return False
        if written != size:  # the disk is full: take the torn frame back
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._size)
            return False
        self._size += size
        self._sequence += 1
        return True

    def _write_note(self) -> None:
        lost, self._lost_bytes = self._lost_bytes, 0
        if not self._append(
            NOTE_STREAM, f"{lost} bytes of output were lost: the log could not be written\n".encode()
        ):
            self._lost_bytes = lost

    def _resume(self) -> None:
        numbers = log_files(self._directory)
        if not numbers:
            return
        self._number = numbers[-1]
        flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._fd = os.open(file_name(self._number), flags, dir_fd=self._directory)
        except FileNotFoundError:  # compressed already: the first write begins a new one
            return
        self._size = os.fstat(self._fd).st_size
        self._sequence = self._next_sequence()

    def _next_sequence(self) -> int:
        """One more than the last frame's; after a torn end, the file's size is surely beyond it."""
        if self._size < logframe.OVERHEAD_BYTES:
            return 0
        trailer = os.pread(self._fd, logframe.TRAILER_BYTES, self._size - logframe.TRAILER_BYTES)
        size = logframe.size_from_trailer(trailer)
        if size and size <= self._size:
            frame = logframe.decode(os.pread(self._fd, size, self._size - size))
            if isinstance(frame, logframe.Frame):
                return frame.sequence + 1
        return self._size

    def _rotate(self) -> None:
        number = self._number + 1
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(file_name(number), flags, 0o640, dir_fd=self._directory)
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._number, self._size = fd, number, 0
        self._remove(log_files(self._directory)[: -self._max_files])
        if number > 1:
            self._on_full()

    def _remove(self, numbers: list[int]) -> None:
        for number in numbers:
            for suffix in ("", COMPRESSED, PARTIAL):
                with contextlib.suppress(OSError):
                    os.unlink(file_name(number) + suffix, dir_fd=self._directory)
