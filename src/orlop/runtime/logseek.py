"""Find places in a log without reading it from the front: backwards by frames, and by time."""

from __future__ import annotations

import os
from collections.abc import Iterator

from orlop.runtime.logarchive import open_file
from orlop.runtime.logfiles import Position, existing_files, start_position
from orlop.wire import logframe
from orlop.wire.logframe import Frame

__all__ = ["position_before", "walk_back"]

_WINDOW_BYTES = 64 << 10
_MAX_TRIES = 64  # magics that turn out to be none, per search: each may cost the reading of a MiB
_NEAR_BYTES = 256 << 10


def walk_back(directory: str, end: Position | None = None) -> Iterator[tuple[Frame, Position]]:
    """Frames from the last, or the last before `end`, to the first, with where each begins."""
    for number in reversed(existing_files(directory)):
        if end is not None and number > end.number:
            continue
        fd = open_file(directory, number)
        if fd is None:
            continue
        try:
            size = os.fstat(fd).st_size
            yield from _walk_file_back(
                fd, number, min(size, end.offset) if end is not None and end.number == number else size
            )
        finally:
            os.close(fd)


def position_before(directory: str, time_ns: int) -> Position:
    """A frame that is older than `time_ns`, shortly before the first that is not; or the start.

    Searched by halves: where the clock was set back while the log was written, later frames count.
    """
    numbers = existing_files(directory)
    low, high = 0, len(numbers)  # files[:low] begin before the time, files[high:] do not
    while low < high:
        middle = (low + high) // 2
        if _begins_before(directory, numbers[middle], time_ns):
            low = middle + 1
        else:
            high = middle
    if low == 0:
        return start_position(directory)
    number = numbers[low - 1]
    fd = open_file(directory, number)
    if fd is None:
        return Position(number, 0)
    try:
        return Position(number, _offset_before(fd, time_ns))
    finally:
        os.close(fd)


def _begins_before(directory: str, number: int, time_ns: int) -> bool:
    fd = open_file(directory, number)
    if fd is None:
        return True
    try:
        found = _first_from(fd, 0, os.fstat(fd).st_size)
    finally:
        os.close(fd)
    return found is None or found[0].time_ns < time_ns


def _offset_before(fd: int, time_ns: int) -> int:
    low, high = 0, os.fstat(fd).st_size
    while high - low > _NEAR_BYTES:
        middle = (low + high) // 2
        found = _first_from(fd, middle, high)
        if found is not None and found[0].time_ns < time_ns:
            low = found[1]
        else:
            high = middle
    return low


def _first_from(fd: int, offset: int, end: int) -> tuple[Frame, int] | None:
    """The first whole frame at or behind `offset`; None before `end`."""
    tries = 0
    while offset < end:
        data = os.pread(fd, _WINDOW_BYTES, offset)
        place = data.find(logframe.MAGIC)
        while place >= 0 and tries < _MAX_TRIES:
            frame = _frame_at(fd, offset + place)
            if frame is not None:
                return frame, offset + place
            tries += 1
            place = data.find(logframe.MAGIC, place + 1)
        if len(data) < _WINDOW_BYTES or tries >= _MAX_TRIES:
            return None
        offset += len(data) - len(logframe.MAGIC) + 1
    return None


def _walk_file_back(fd: int, number: int, end: int) -> Iterator[tuple[Frame, Position]]:
    while end > 0:
        frame = _frame_before(fd, end)
        if frame is None:  # damage: the last frame that is whole before it
            found = _last_before(fd, end)
            if found is None:
                return
            frame, end = found
        else:
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


def _last_before(fd: int, end: int) -> tuple[Frame, int] | None:
    """The last whole frame that ends at or before `end`, with where it begins."""
    tries, high = 0, end
    while high > 0:
        low = max(0, high - _WINDOW_BYTES)
        data = os.pread(fd, high - low, low)
        place = data.rfind(logframe.MAGIC)
        while place >= 0 and tries < _MAX_TRIES:
            frame = _frame_at(fd, low + place)
            if frame is not None and low + place + frame.size_bytes <= end:
                return frame, low + place
            tries += 1
            place = data.rfind(logframe.MAGIC, 0, place)
        if tries >= _MAX_TRIES or low == 0:
            return None
        high = low + len(logframe.MAGIC) - 1
    return None


def _frame_at(fd: int, offset: int) -> Frame | None:
    needed = logframe.decode(os.pread(fd, logframe.HEADER_BYTES, offset))
    if isinstance(needed, Frame) or needed <= logframe.HEADER_BYTES:
        return None
    frame = logframe.decode(os.pread(fd, needed, offset))
    return frame if isinstance(frame, Frame) else None
