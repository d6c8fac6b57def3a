"""What an upper directory changes against the merged tree below it, in the words of `docker diff`.

A directory that overlay copied up unchanged is no change, unless a name directly inside came or went:
then it counts as modified, as Docker shows it.
"""

from __future__ import annotations

import os
import stat

from orlop.store.treewalk import Entry, Keep, find_directory, join, walk
from orlop.store.whiteout import is_opaque, is_whiteout

__all__ = ["ADDED", "DELETED", "MODIFIED", "find_changes"]

MODIFIED, ADDED, DELETED = 0, 1, 2


def find_changes(upper: int, lower: int, keep: Keep | None = None) -> list[tuple[str, int]]:
    """(path, kind) sorted by path; paths begin with a slash.

    Args:
        upper: what was written.
        lower: the merged tree below.
        keep: what of it counts; see `treewalk.walk`.
    """
    found: dict[bytes, int] = {}
    for path, fd, entries in walk(upper, keep):
        beneath = find_directory(lower, path)
        try:
            here = _compare(path, entries, beneath)
            if beneath is not None and path and is_opaque(fd):
                names = {name for name, _ in entries}
                gone = (os.fsencode(name) for name in os.listdir(beneath))
                here |= {join(path, name): DELETED for name in gone if name not in names}
        finally:
            if beneath is not None:
                os.close(beneath)
        if path and any(kind != MODIFIED for kind in here.values()):
            found.setdefault(path, MODIFIED)
        found |= here
    return [("/" + os.fsdecode(path), found[path]) for path in sorted(found)]


def _compare(path: bytes, entries: list[Entry], beneath: int | None) -> dict[bytes, int]:
    found: dict[bytes, int] = {}
    for name, status in entries:
        old = _status(beneath, name)
        if is_whiteout(status):
            if old is not None:
                found[join(path, name)] = DELETED
        elif old is None:
            found[join(path, name)] = ADDED
        elif not _is_same_directory(old, status):
            found[join(path, name)] = MODIFIED
    return found


def _status(directory: int | None, name: bytes) -> os.stat_result | None:
    if directory is None:
        return None
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _is_same_directory(old: os.stat_result, new: os.stat_result) -> bool:
    fields = (old.st_mode, old.st_uid, old.st_gid, old.st_mtime_ns)
    return stat.S_ISDIR(old.st_mode) and fields == (new.st_mode, new.st_uid, new.st_gid, new.st_mtime_ns)
