"""Copy a tree by descriptors: owners, modes, times, attributes, holes, and the names of one file.

Source and target may be changed by strangers meanwhile. Every step is one name beneath an open directory
and follows no link; a second name of a file is made by way of a descriptor of the first, looked up
beneath the target. Blocks are shared where the file system can (FICLONE), else copied without the holes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator

from orlop.base.errors import Kind, OrlopError
from orlop.kernel.openat import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, openat2

__all__ = ["TreeTooDeep", "copy_tree"]

_DIR_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PLAIN = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS
_FICLONE = 0x40049409
_CHUNK = 1 << 20
_MAX_DEPTH = 250  # three frames and two descriptors each, within the usual limits of 1000 and 1024
_MAX_LINKED = 1 << 20  # files with several names that are remembered; beyond that a name is a copy


class TreeTooDeep(OrlopError):
    """Directories are nested deeper than they are copied."""

    kind = Kind.INVALID
    code = "tree-too-deep"


def copy_tree(source: int, target: int) -> int:
    """Copy what is in one open directory into another, and its own owner, mode, times and attributes.

    Returns:
        The number of files and directories made.

    Raises:
        TreeTooDeep: at 250 directories one in another.
        OSError: no space, and whatever else the file systems say.
    """
    copier = _Copier(target)
    copier.directory(source, target, "", 0)
    return copier.count


class _Copier:
    def __init__(self, top: int) -> None:
        self.count = 0
        self._top = top
        self._linked: dict[
            tuple[int, int], tuple[str, int]
        ] = {}  # of the source -> path and inode of the copy

    def directory(self, source: int, target: int, path: str, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise TreeTooDeep(f"directories are nested deeper than {_MAX_DEPTH}: {path[:200]}")
        for name in os.listdir(source):
            with contextlib.suppress(FileNotFoundError):  # it is a live tree
                self._entry(source, target, name, f"{path}{name}", depth)
        _copy_metadata(source, target, os.fstat(source))

    def _entry(self, source: int, target: int, name: str, path: str, depth: int) -> None:
        status = os.stat(name, dir_fd=source, follow_symlinks=False)
        mode = status.st_mode
        if stat.S_ISSOCK(mode):
            return
        self.count += 1
        if stat.S_ISDIR(mode):
            self._directory(source, target, name, f"{path}/", depth)
            return
        if status.st_nlink > 1 and self._link(status, target, name):
            return
        if stat.S_ISREG(mode):
            _copy_file(source, target, name)
        elif stat.S_ISLNK(mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
            _own(target, name, status)
        else:
            os.mknod(name, stat.S_IFMT(mode) | 0o600, status.st_rdev, dir_fd=target)
            _own(target, name, status)
            os.chmod(name, stat.S_IMODE(mode), dir_fd=target)
        if status.st_nlink > 1 and len(self._linked) < _MAX_LINKED:
            made = os.stat(name, dir_fd=target, follow_symlinks=False)
            self._linked[status.st_dev, status.st_ino] = (path, made.st_ino)

    def _directory(self, source: int, target: int, name: str, path: str, depth: int) -> None:
        inner_source = os.open(name, _DIR_FLAGS, dir_fd=source)
        try:
            os.mkdir(name, 0o700, dir_fd=target)
            inner_target = os.open(name, _DIR_FLAGS, dir_fd=target)
            try:
                self.directory(inner_source, inner_target, path, depth + 1)
            finally:
                os.close(inner_target)
        finally:
            os.close(inner_source)

    def _link(self, status: os.stat_result, target: int, name: str) -> bool:
        """One more name for what is there already; not when somebody has put another file in its place."""
        first = self._linked.get((status.st_dev, status.st_ino))
        if first is None:
            return False
        try:
            fd = openat2(self._top, first[0], os.O_PATH | os.O_NOFOLLOW, resolve=_PLAIN)
        except OSError:
            return False
        try:
            if os.fstat(fd).st_ino != first[1]:
                return False
            os.link(f"/proc/self/fd/{fd}", name, dst_dir_fd=target, follow_symlinks=True)
        except OSError as error:
            if error.errno == errno.EMLINK:
                return False
            raise
        finally:
            os.close(fd)
        return True


def _own(target: int, name: str, status: os.stat_result) -> None:
    os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
    times = (status.st_atime_ns, status.st_mtime_ns)
    os.utime(name, ns=times, dir_fd=target, follow_symlinks=False)


def _copy_file(source: int, target: int, name: str) -> None:
    reader = os.open(name, _READ_FLAGS, dir_fd=source)
    try:
        status = os.fstat(reader)
        if not stat.S_ISREG(status.st_mode):
            return  # swapped since we looked
        writer = os.open(name, _WRITE_FLAGS, 0o600, dir_fd=target)
        try:
            _copy_bytes(reader, writer, status.st_size)
            _copy_metadata(reader, writer, status)
        finally:
            os.close(writer)
    finally:
        os.close(reader)


def _copy_bytes(reader: int, writer: int, size: int) -> None:
    if _shares_blocks(reader, writer):
        return
    for start, end in _extents(reader, size):
        os.lseek(writer, start, os.SEEK_SET)
        offset = start
        while offset < end and (count := os.sendfile(writer, reader, offset, min(end - offset, _CHUNK))):
            offset += count
    os.ftruncate(writer, size)


def _shares_blocks(reader: int, writer: int) -> bool:
    try:
        fcntl.ioctl(writer, _FICLONE, reader)
    except OSError:  # EOPNOTSUPP, EXDEV, EINVAL: this pair cannot
        return False
    return True


def _extents(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """What of a file is not a hole."""
    position = 0
    while position < size:
        try:
            start = os.lseek(fd, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                return
            yield position, size  # a file system that does not know
            return
        end = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        yield start, end
        position = max(end, start + 1)


def _copy_metadata(source: int, target: int, status: os.stat_result) -> None:
    os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    for attribute in os.listxattr(source):
        if attribute.startswith("trusted.overlay."):
            continue
        with contextlib.suppress(OSError):  # the target's file system may not have attributes
            os.setxattr(target, attribute, os.getxattr(source, attribute))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
