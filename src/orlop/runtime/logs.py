"""Read a container's log: lines or chunks, from a time or the last so many, and follow it.

Entries are what Docker's are: a line with the time at which its end was read. The log holds
reads of the container's pipes; lines are put together here, over frames and over files. A
damaged stretch is skipped up to the next frame that is whole.
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple, Self

from orlop.kernel import inotify
from orlop.runtime.logfiles import FrameSource, Position, end_position, start_position
from orlop.runtime.logseek import position_before, walk_back
from orlop.wire.logframe import Frame
from orlop.wire.stdstream import STDERR, STDOUT

__all__ = ["LogEntry", "LogQuery", "LogReader"]

MAX_LINE_BYTES = 1 << 20
_NOTE = 3
_LOOK_BACK_FRAMES = 64  # for the beginning of a line: what is older has most likely ended


class LogEntry(NamedTuple):
    """A line with its end, or a piece of one that is longer than 1 MiB or not ended; or a chunk."""

    stream: int
    time_ns: int
    data: bytes


@dataclass(frozen=True, slots=True)
class LogQuery:
    """What to read.

    `tail` counts lines over all selected streams, before `since_ns` and `until_ns` are applied,
    as Docker does. `as_chunks` gives whole reads as they are: cheaper when nobody needs lines;
    not together with `tail` and `contains`. `contains` leaves out lines without it, of those that
    `tail` counts.
    """

    has_stdout: bool = True
    has_stderr: bool = True
    since_ns: int = 0
    until_ns: int = 0  # 0 = no end
    tail: int | None = None
    as_chunks: bool = False
    contains: bytes = b""


class LogReader:
    """Reads one log directory; a writer may be at work at the same time.

    With `follow`, `fileno()` becomes readable when there may be more (call `read`, which also
    clears it); the directory must exist then. Use as a context manager or `close` it.
    """

    def __init__(self, directory: str, query: LogQuery | None = None, *, follow: bool = False) -> None:
        self._query = query or LogQuery()
        self._streams = {
            STDOUT: self._query.has_stdout,
            STDERR: self._query.has_stderr,
            _NOTE: self._query.has_stderr,
        }
        self._notify_fd = -1
        if follow:  # before the first read: nothing can be missed in between
            self._notify_fd = _watch(directory)
        self._lines = _Lines()
        self._pending: deque[LogEntry] = deque()
        self.is_at_end = False
        self.is_past_end = False
        self._source = FrameSource(directory, Position(0, 0))  # nothing is open yet
        try:
            self._source = FrameSource(directory, self._first_position(directory))
            if self._query.tail is not None:
                self._take_tail(self._query.tail)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close files and watches; may be repeated."""
        self._source.close()
        if self._notify_fd >= 0:
            os.close(self._notify_fd)
            self._notify_fd = -1

    @property
    def is_following(self) -> bool:
        """True when there is a descriptor to wait on."""
        return self._notify_fd >= 0

    def fileno(self) -> int:
        """The descriptor to wait on when following."""
        assert self._notify_fd >= 0, "not a following reader"
        return self._notify_fd

    def read(self, limit_bytes: int = 1 << 20) -> list[LogEntry]:
        """The next entries, from about `limit_bytes` of the log; perhaps none, though more may follow.

        `is_at_end` is true when there is no more for now. `is_past_end` becomes true when `until_ns` is
        reached: nothing will ever follow.
        """
        if self._notify_fd >= 0:
            inotify.read_events(self._notify_fd)
        entries: list[LogEntry] = []
        size = 0
        self.is_at_end = False
        while size < limit_bytes and not self.is_past_end:
            if self._pending:
                entry = self._pending.popleft()
                size += len(entry.data)
                entries.append(entry)
                continue
            frame = self._source.read()
            if frame is None:
                self.is_at_end = True
                break
            size += self._accept(frame, entries)
        return entries

    def batches(self, limit_bytes: int = 1 << 20) -> Iterator[list[LogEntry]]:
        """Read up to the present end; a batch may be empty."""
        self.is_at_end = False
        while not self.is_at_end and not self.is_past_end:
            yield self.read(limit_bytes)

    def finish(self) -> list[LogEntry]:
        """What is left once the writer has ended: lines without an end."""
        return [] if self.is_past_end else [entry for entry in self._lines.rest() if self._is_wanted(entry)]

    def __iter__(self) -> Iterator[LogEntry]:
        """Everything up to the present end."""
        for entries in self.batches():
            yield from entries
        yield from self.finish()

    def _accept(self, frame: Frame, entries: list[LogEntry]) -> int:
        """Add the entries that `frame` completes; returns its size."""
        if not self._streams.get(frame.stream):
            return 0
        if self._query.until_ns and frame.time_ns > self._query.until_ns:
            self.is_past_end = True
            return 0
        if frame.stream == _NOTE:  # a line of its own, whatever stands before it
            found = [LogEntry(STDERR, frame.time_ns, frame.data)]
        elif self._query.as_chunks:
            found = [LogEntry(frame.stream, frame.time_ns, frame.data)]
        else:
            found = self._lines.split(frame.stream, frame.time_ns, frame.data)
        if self._query.since_ns and frame.time_ns < self._query.since_ns:
            return 0
        if self._query.contains:
            found = [entry for entry in found if self._query.contains in entry.data]
        entries += found
        return len(frame.data)

    def _is_wanted(self, entry: LogEntry) -> bool:
        query = self._query
        return (
            entry.time_ns >= query.since_ns
            and (not query.until_ns or entry.time_ns <= query.until_ns)
            and query.contains in entry.data
        )

    def _first_position(self, directory: str) -> Position:
        tail = self._query.tail
        if tail is None:
            return self._position_of_time(directory) if self._query.since_ns else start_position(directory)
        if tail <= 0:
            return end_position(directory)
        return self._position_of_tail(directory, tail)

    def _position_of_time(self, directory: str) -> Position:
        """Far enough back that the first line of the time is whole from there."""
        position = position_before(directory, self._query.since_ns)
        return self._begin_lines(walk_back(directory, position), position)

    def _position_of_tail(self, directory: str, tail: int) -> Position:
        """Far enough back that the last `tail` lines are whole from there."""
        count = 0
        walk = walk_back(directory)
        for frame, position in walk:
            if self._streams.get(frame.stream):
                count += frame.data.count(b"\n")
                if count >= tail:
                    return self._begin_lines(walk, position)
        return start_position(directory)

    def _begin_lines(self, walk: Iterator[tuple[Frame, Position]], position: Position) -> Position:
        """On back along `walk` to where the lines begin that are in their middle at `position`.

        A stream that has ended no line for long is taken to be at the start of one.
        """
        unknown = {stream for stream in (STDOUT, STDERR) if self._streams[stream]}
        passed_bytes = 0
        for frame, where in itertools.islice(walk, _LOOK_BACK_FRAMES):
            passed_bytes += frame.size_bytes
            position = where
            if b"\n" in frame.data:
                unknown.discard(frame.stream)
            if not unknown or passed_bytes > MAX_LINE_BYTES:
                break
        return position

    def _take_tail(self, tail: int) -> None:
        last: deque[LogEntry] = deque(maxlen=max(tail, 0))
        query, self._query = self._query, LogQuery(self._query.has_stdout, self._query.has_stderr)
        while (frame := self._source.read()) is not None:
            found: list[LogEntry] = []
            self._accept(frame, found)
            last.extend(found)
        self._query = query
        if self._notify_fd < 0:  # nothing will complete them
            last.extend(self._lines.rest())
        self._pending.extend(entry for entry in last if self._is_wanted(entry))


def _watch(directory: str) -> int:
    fd = inotify.open_inotify()
    try:
        inotify.add_watch(fd, directory, inotify.IN_MODIFY | inotify.IN_CREATE)
    except OSError:
        os.close(fd)
        raise
    return fd


class _Lines:
    """Puts lines together, per stream."""

    def __init__(self) -> None:
        self._partial: dict[int, list[bytes]] = {}
        self._sizes: dict[int, int] = {}
        self._times: dict[int, int] = {}

    def split(self, stream: int, time_ns: int, data: bytes) -> list[LogEntry]:
        *whole, rest = data.split(b"\n")
        entries = [LogEntry(stream, time_ns, line + b"\n") for line in whole]
        if entries and stream in self._partial:
            before = b"".join(self._partial.pop(stream))
            entries[0] = LogEntry(stream, time_ns, before + entries[0].data)
            self._sizes[stream] = 0
        if rest:
            self._partial.setdefault(stream, []).append(rest)
            self._times[stream] = time_ns
            self._sizes[stream] = self._sizes.get(stream, 0) + len(rest)
            if self._sizes[stream] >= MAX_LINE_BYTES:
                entries.append(LogEntry(stream, time_ns, b"".join(self._partial.pop(stream))))
                self._sizes[stream] = 0
        return entries

    def rest(self) -> list[LogEntry]:
        entries = [
            LogEntry(stream, self._times[stream], b"".join(parts)) for stream, parts in self._partial.items()
        ]
        self._partial.clear()
        self._sizes.clear()
        return sorted(entries, key=lambda entry: entry.time_ns)
