"""Walk a directory that a container wrote, by descriptors: no link is followed, any depth, few fds.

Each directory is opened afresh from the root fd by the kernel's own rule (beneath, no links), in pieces
short enough for one path. What vanishes or changes type under a running container is skipped.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator

from orlop.kernel.openat import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2

__all__ = ["DIRECTORY", "Entry", "Keep", "find_directory", "join", "list_directory", "open_directory", "walk"]

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_PIECE = 3800  # bytes of path in one call; the kernel takes 4095
_BENEATH = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)

Entry = tuple[bytes, os.stat_result]
Keep = Callable[[int, bytes, list[Entry]], list[Entry]]


def join(path: bytes, name: bytes) -> bytes:
    """`path/name`, or `name` in the root."""
    return path + b"/" + name if path else name


def open_directory(root: int, path: bytes) -> int:
    """Open a directory below `root`; the caller closes the fd.

    Raises:
        OSError: ENOENT, ENOTDIR or ELOOP when it is not (any more) a directory reached without links.
    """
    fd = os.dup(root)
    while path:
        piece, path = _split(path)
        try:
            child = openat2(fd, piece, os.O_RDONLY | os.O_DIRECTORY, resolve=_BENEATH)
        finally:
            os.close(fd)
        fd = child
    return fd


def find_directory(root: int, path: bytes) -> int | None:
    """`open_directory`, or None when there is no such directory."""
    try:
        return open_directory(root, path)
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise


def list_directory(fd: int) -> list[Entry]:
    """(name, status) of what a directory holds, sorted by name."""
    entries: list[Entry] = []
    with os.scandir(fd) as scan:
        for item in scan:
            try:
                entries.append((os.fsencode(item.name), item.stat(follow_symlinks=False)))
            except FileNotFoundError:
                continue
    entries.sort(key=_name_of)
    return entries


def walk(root: int, keep: Keep | None = None) -> Iterator[tuple[bytes, int, list[Entry]]]:
    """Every directory from `root` down: (path, fd valid until the next step, sorted entries).

    Args:
        root: fd of the tree.
        keep: what of a directory (fd, path, entries) is to be seen and entered; everything without it.
    """
    pending = [b""]
    while pending:
        path = pending.pop()
        fd = find_directory(root, path)
        if fd is None:
            continue
        try:
            entries = list_directory(fd)
            if keep is not None:
                entries = keep(fd, path, entries)
            yield path, fd, entries
        finally:
            os.close(fd)
        pending += [join(path, name) for name, status in reversed(entries) if stat.S_ISDIR(status.st_mode)]


def _split(path: bytes) -> tuple[bytes, bytes]:
    if len(path) <= _MAX_PIECE:
        return path, b""
    cut = path.rindex(b"/", 0, _MAX_PIECE)
    return path[:cut], path[cut + 1 :]


def _name_of(entry: Entry) -> bytes:
    return entry[0]
