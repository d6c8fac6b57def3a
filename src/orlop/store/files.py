"""Small durable-file steps shared by the stores: modes, fsync, rename.

All functions block; call them in a thread. Spec of the order: bytes durable, then the
name durable, then the row.
"""

from __future__ import annotations

import errno
import os

from orlop.base import failpoints
from orlop.base.errors import OrlopError
from orlop.store.db import StoreFull

__all__ = [
    "ensure_directory",
    "fsync_directory",
    "full_or",
    "publish_file",
    "unlink_sized",
    "write_all",
]


def ensure_directory(path: str) -> None:
    """Make `path` (mode 0700) durable; fine when it exists."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        return
    fsync_directory(os.path.dirname(path))


def fsync_directory(path: str) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def publish_file(fd: int, source: str, target: str, failpoint: str) -> None:
    """Flush the open file, rename it into place, make the rename durable."""
    failpoints.hit(f"{failpoint}.before-fsync")
    os.fsync(fd)
    failpoints.hit(f"{failpoint}.before-rename")
    os.rename(source, target)
    failpoints.hit(f"{failpoint}.after-rename")
    fsync_directory(os.path.dirname(target))


def write_all(fd: int, data: bytes | bytearray | memoryview) -> None:
    """Write every byte at the file's position."""
    view = memoryview(data)
    while view.nbytes:
        view = view[os.write(fd, view) :]


def unlink_sized(path: str) -> int:
    """Unlink a file if it is there; returns the bytes its removal frees."""
    try:
        size_bytes = os.lstat(path).st_blocks * 512
        os.unlink(path)
    except FileNotFoundError:
        return 0
    return size_bytes


def full_or(error: OSError, what: str) -> Exception:
    """`StoreFull` for ENOSPC and EDQUOT, otherwise the error itself."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        full: OrlopError = StoreFull(
            f"cannot write {what}: no space left on device", hint="free some space and try again"
        )
        return full
    return error
