"""Read a container's log: lines or chunks, from a time or the last so many, and follow it.

Entries are what Docker's are: a line with the time at which its end was read. The log holds
reads of the container's pipes; lines are put together here, over frames and over files. A
damaged stretch is skipped up to the next frame that is whole.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple, Self

from orlop.kernel import inotify
from orlop.runtime.logfiles import FrameSource, Position, end_position, start_position, walk_back
from orlop.wire.logframe import Frame
from orlop.wire.stdstream import STDERR, STDOUT

__all__ = ["LogEntry", "LogQuery", "LogReader"]

MAX_LINE_BYTES = 1 << 20
_NOTE = 3


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
    not together with `tail`.
    """

    has_stdout: bool = True
    has_stderr: bool = True
    since_ns: int = 0
    until_ns: int = 0  # 0 = no end
    tail: int | None = None
    as_chunks: bool = False


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
        self.is_past_end = False
        self._source = FrameSource(directory, self._first_position(directory))
        if self._query.tail is not None:
            self._take_tail(self._query.tail)

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
        """The next entries, about `limit_bytes` of them; none when there are no more for now.

        `is_past_end` becomes true when `until_ns` is reached: nothing will ever follow.
        """
        if self._notify_fd >= 0:
            inotify.read_events(self._notify_fd)
        entries: list[LogEntry] = []
        size = 0
        while size < limit_bytes and not self.is_past_end:
            if self._pending:
                entry = self._pending.popleft()
                size += len(entry.data)
                entries.append(entry)
                continue
            frame = self._source.read()
            if frame is None:
                break
            size += self._accept(frame, entries)
        return entries

    def finish(self) -> list[LogEntry]:
        """What is left once the writer has ended: lines without an end."""
        return [] if self.is_past_end else [entry for entry in self._lines.rest() if self._is_wanted(entry)]

    def __iter__(self) -> Iterator[LogEntry]:
        """Everything up to the present end."""
        while entries := self.read():
            yield from entries
        yield from self.finish()

    def _accept(self, frame: Frame, entries: list[LogEntry]) -> int:
        """Add the entries that `frame` completes; returns its size."""
        if not self._streams.get(frame.stream):
            return 0
        if self._query.until_ns and frame.time_ns > self._query.until_ns:
            self.is_past_end = True
            return 0
        stream = STDERR if frame.stream == _NOTE else frame.stream
        if self._query.as_chunks:
            found = [LogEntry(stream, frame.time_ns, frame.data)]
        else:
            found = self._lines.split(stream, frame.time_ns, frame.data)
        if self._query.since_ns and frame.time_ns < self._query.since_ns:
            return 0
        entries += found
        return len(frame.data)

    def _is_wanted(self, entry: LogEntry) -> bool:
        query = self._query
        return entry.time_ns >= query.since_ns and (not query.until_ns or entry.time_ns <= query.until_ns)

    def _first_position(self, directory: str) -> Position:
        tail = self._query.tail
        if tail is None:
            return start_position(directory)
        if tail <= 0:
            return end_position(directory)
        return self._position_of_tail(directory, tail)

    def _position_of_tail(self, directory: str, tail: int) -> Position:
        """Far enough back that the last `tail` lines are whole from there."""
        # One more per stream: the first line of each may be cut.
        wanted = tail + len(self._streams)
        count = 0
        position = end_position(directory)
        for frame, where in walk_back(directory):
            position = where
            if self._streams.get(frame.stream):
                count += frame.data.count(b"\n")
                if count >= wanted:
                    self._lines.drop_first()
                    return position
        return start_position(directory) if count < wanted else position

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
        self._cut: set[int] = set()

    def drop_first(self) -> None:
        """The first line of each stream is not whole: leave it out."""
        self._cut = {STDOUT, STDERR}

    def split(self, stream: int, time_ns: int, data: bytes) -> list[LogEntry]:
        if stream in self._cut:
            _, newline, data = data.partition(b"\n")
            if not newline:
                return []
            self._cut.discard(stream)
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
