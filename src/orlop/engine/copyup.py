"""The job that fills a new volume with what its image has at that place; runs in a worker."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from typing import Any

from orlop.engine.rootview import open_root
from orlop.kernel.openat import RootedDir

__all__ = ["copy_up"]

Report = Callable[[dict[str, Any]], None]

_DIR_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 1 << 20


def copy_up(payload: dict[str, Any], fds: list[int], report: Report) -> dict[str, Any]:  # noqa: ARG001
    """Copy the image's directory `source` into the empty volume `target`.

    Nothing happens when the image has no such directory, or the volume is no longer empty.
    """
    lowers = [payload["upper"], *payload["lowers"]] if payload.get("upper") else payload["lowers"]
    target = os.open(str(payload["target"]), _DIR_FLAGS)
    try:
        if os.listdir(target):
            return {"copied": False}
        with open_root({"lowers": lowers}) as root:
            source = _find_directory(root, str(payload["source"]))
            if source is None:
                return {"copied": False}
            try:
                _Copier().directory(source, target)
            finally:
                os.close(source)
    finally:
        os.close(target)
    return {"copied": True}


def _find_directory(root: RootedDir, path: str) -> int | None:
    try:
        return root.open_dir(path)
    except OSError:
        return None


class _Copier:
    """Copies a tree with owners, modes, times, attributes and names of one file."""

    def __init__(self) -> None:
        self._links: dict[tuple[int, int], tuple[int, str]] = {}
        self._held: list[int] = []

    def directory(self, source: int, target: int) -> None:
        for name in os.listdir(source):
            self._entry(source, target, name)
        _copy_metadata(source, target, os.fstat(source))

    def _entry(self, source: int, target: int, name: str) -> None:
        status = os.stat(name, dir_fd=source, follow_symlinks=False)
        mode = status.st_mode
        if stat.S_ISDIR(mode):
            os.mkdir(name, 0o700, dir_fd=target)
            inner_source = os.open(name, _DIR_FLAGS, dir_fd=source)
            inner_target = os.open(name, _DIR_FLAGS, dir_fd=target)
            try:
                self.directory(inner_source, inner_target)
            finally:
                os.close(inner_source)
                os.close(inner_target)
            return
        if status.st_nlink > 1 and self._link(status, target, name):
            return
        if stat.S_ISREG(mode):
            _copy_file(source, target, name, status)
        elif stat.S_ISLNK(mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
            os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
        elif not stat.S_ISSOCK(mode):
            os.mknod(name, mode, status.st_rdev, dir_fd=target)
            os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
            os.chmod(name, stat.S_IMODE(mode), dir_fd=target)

    def _link(self, status: os.stat_result, target: int, name: str) -> bool:
        key = (status.st_dev, status.st_ino)
        first = self._links.get(key)
        if first is None:
            held = os.dup(target)
            self._held.append(held)
            self._links[key] = (held, name)
            return False
        os.link(first[1], name, src_dir_fd=first[0], dst_dir_fd=target, follow_symlinks=False)
        return True


def _copy_file(source: int, target: int, name: str, status: os.stat_result) -> None:
    reader = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        writer = os.open(name, flags, 0o600, dir_fd=target)
        try:
            left = status.st_size
            while left > 0 and (count := os.sendfile(writer, reader, None, min(left, _CHUNK))):
                left -= count
            _copy_metadata(reader, writer, status)
        finally:
            os.close(writer)
    finally:
        os.close(reader)


def _copy_metadata(source: int, target: int, status: os.stat_result) -> None:
    os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    for attribute in os.listxattr(source):
        if attribute.startswith("trusted.overlay."):
            continue
        with contextlib.suppress(OSError):  # the volume's file system may not have attributes
            os.setxattr(target, attribute, os.getxattr(source, attribute))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
