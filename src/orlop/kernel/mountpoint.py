"""Is something mounted right there, and away with it: for directories of our own."""

from __future__ import annotations

import errno
import os

from orlop.kernel import mount

__all__ = ["is_mounted", "unmount"]

_MAX_STACKED = 16


def is_mounted(path: str) -> bool:
    """Whether something is mounted right there; a bind of the same file system, too."""
    try:
        return _mount_id(path) != _mount_id(os.path.dirname(path))
    except FileNotFoundError:
        return False


def _mount_id(path: str) -> str:
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:
            return next(line for line in file if line.startswith("mnt_id:"))
    finally:
        os.close(fd)


def unmount(path: str) -> None:
    """Take away whatever is mounted there; containers that use it keep it.

    Raises:
        OSError: something is still mounted: nothing below may be deleted.
    """
    for _ in range(_MAX_STACKED):
        if not is_mounted(path):
            return
        mount.umount2(path, mount.MNT_DETACH)
    raise OSError(errno.EBUSY, "too many mounts", path)
