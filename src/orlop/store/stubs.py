"""Places that were made for mounts: in an upper directory, but nothing that the user wrote.

Where an image lacks a target (`/proc`, `/etc/hosts`), the runtime makes an empty file or directory and the
directories above it. A stub is such a thing as long as it is empty and the layers below do not have it; a
directory above stubs is left out, too, when nothing else is in it and it says nothing that the one below
does not say.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable

from orlop.store.treewalk import Entry, find_directory, join, list_directory
from orlop.store.whiteout import is_opaque

__all__ = ["Stubs"]


class Stubs:
    """The stubs of one snapshot; `lower`, the merged tree below, stays the caller's."""

    def __init__(self, paths: Iterable[bytes], lower: int) -> None:
        self._paths = frozenset(paths)
        self._parents = {
            path[:at] for path in self._paths for at, byte in enumerate(path) if byte == ord("/")
        }
        self._lower = lower

    def without(self, directory: int, path: bytes, entries: list[Entry]) -> list[Entry]:
        """The entries of `path`, open as `directory`, that are the user's."""
        return [entry for entry in entries if not self._is_stub(directory, path, entry)]

    def _is_stub(self, directory: int, path: bytes, entry: Entry) -> bool:
        name, status = entry
        full = join(path, name)
        is_target = full in self._paths
        if not is_target and full not in self._parents:
            return False
        below = self._find_below(path, name)
        if stat.S_ISREG(status.st_mode):
            return is_target and below is None and status.st_size == 0 and status.st_nlink == 1
        if not stat.S_ISDIR(status.st_mode) or (below is not None and _words(below) != _words(status)):
            return False
        return self._holds_only_stubs(directory, full, name)

    def _holds_only_stubs(self, directory: int, full: bytes, name: bytes) -> bool:
        fd = find_directory(directory, name)
        if fd is None:
            return True
        try:
            return not is_opaque(fd) and not self.without(fd, full, list_directory(fd))
        finally:
            os.close(fd)

    def _find_below(self, path: bytes, name: bytes) -> os.stat_result | None:
        fd = find_directory(self._lower, path)
        if fd is None:
            return None
        try:
            return os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            return None
        finally:
            os.close(fd)


def _words(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_mode, status.st_uid, status.st_gid
