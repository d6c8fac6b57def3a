"""inotify: be told of changes to files and directories. For paths of our own only."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

from orlop.kernel.syscall import INT, STR, UINT, Path, SystemCall, c_path

__all__ = ["Event", "add_watch", "open_inotify", "parse_events", "read_events"]

# include/uapi/linux/inotify.h
IN_MODIFY = 0x2
IN_CLOSE_WRITE = 0x8
IN_MOVED_FROM = 0x40
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_DELETE = 0x200
IN_DELETE_SELF = 0x400
IN_MOVE_SELF = 0x800
IN_Q_OVERFLOW = 0x4000
IN_IGNORED = 0x8000
IN_ONLYDIR = 0x01000000
IN_DONT_FOLLOW = 0x02000000

_IN_NONBLOCK = 0o4000
_IN_CLOEXEC = 0o2000000
_HEADER = struct.Struct("iIII")
_BUFFER_BYTES = 65536

_inotify_init1 = SystemCall("inotify_init1", INT)
_inotify_add_watch = SystemCall("inotify_add_watch", INT, STR, UINT)


class Event(NamedTuple):
    """What happened (IN_* bits) to which watch; `name` is the entry of a watched directory.

    IN_Q_OVERFLOW means that events were lost: look at everything again.
    """

    watch: int
    mask: int
    cookie: int
    name: bytes


def open_inotify() -> int:
    """A non-blocking inotify fd, readable when something happened; the caller closes it."""
    return _inotify_init1(_IN_NONBLOCK | _IN_CLOEXEC)


def add_watch(fd: int, path: Path, mask: int) -> int:
    """Watch a file or directory; returns the number that its events carry."""
    return _inotify_add_watch(fd, c_path(path), mask, path=path)


def read_events(fd: int) -> list[Event]:
    """All events that are there now, perhaps none."""
    try:
        return list(parse_events(os.read(fd, _BUFFER_BYTES)))
    except BlockingIOError:
        return []


def parse_events(data: bytes) -> Iterator[Event]:
    """The events in what the kernel gave (inotify(7))."""
    position = 0
    while position < len(data):
        watch, mask, cookie, size = _HEADER.unpack_from(data, position)
        position += _HEADER.size
        yield Event(watch, mask, cookie, data[position : position + size].rstrip(b"\0"))
        position += size
