"""Unpack tar entries into a container's directory, beneath fds.

Entry names are made relative to the destination (`..` and leading slashes are dropped) and resolved
through the rooted resolver, so links inside the container may lead anywhere inside it and never
out. The last component is never followed: an existing file or link of that name is replaced.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from orlop.base.errors import Kind, OrlopError
from orlop.kernel.openat import RootedDir
from orlop.wire.tarheader import EntryKind, TarEntry, show

__all__ = ["Unpacker"]

_DIR_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class CannotUnpack(OrlopError):
    """An entry cannot be put where it belongs."""

    kind = Kind.INVALID
    code = "cannot-unpack"


class Unpacker:
    """Takes what `TarFeed` gives.

    Args:
        root: the container's root; stays the caller's.
        base: the destination, a directory in it.
        keeps_kinds: refuse to replace a directory by something else and the other way round.
        owner: uid and gid of everything that is made; None keeps the archive's.
    """

    def __init__(
        self, root: RootedDir, base: bytes, *, keeps_kinds: bool = False, owner: tuple[int, int] | None = None
    ) -> None:
        self._root = root
        self._base = base
        self._keeps_kinds = keeps_kinds
        self._given_owner = owner
        self._file = -1
        self._entry: TarEntry | None = None
        self._left: list[tuple[int, int]] = []
        self._times: list[tuple[bytes, int]] = []

    def take(self, event: TarEntry | bytes) -> None:
        """The next entry, or data of the last one."""
        if isinstance(event, bytes):
            self._write(event)
            return
        self._close_file()
        try:
            self._make(event)
        except OSError as error:
            text = (error.strerror or "").lower()
            kind = Kind.EXHAUSTED if error.errno in (errno.ENOSPC, errno.EDQUOT) else Kind.INVALID
            failure = CannotUnpack(f"cannot write {show(event.path)}: {text}")
            if error.errno == errno.EROFS:
                failure = CannotUnpack("the destination is mounted read-only", http_status=403)
            elif kind is Kind.EXHAUSTED:
                failure = CannotUnpack(f"cannot write {show(event.path)}: {text}", http_status=507)
            raise failure from error

    def finish(self) -> None:
        """After the last event: times of directories, which later entries have changed."""
        self._close_file()
        for path, mtime_ns in reversed(self._times):
            with contextlib.suppress(OSError):
                fd = self._root.open(path, _DIR_FLAGS & ~os.O_NOFOLLOW)
                try:
                    os.utime(fd, ns=(mtime_ns, mtime_ns))
                finally:
                    os.close(fd)

    def _make(self, entry: TarEntry) -> None:
        names = [part for part in entry.path.split(b"/") if part not in (b"", b".", b"..")]
        path = b"/".join([self._base.rstrip(b"/"), *names])
        if not names:
            if entry.kind is EntryKind.DIRECTORY:
                return
            raise CannotUnpack(f"an entry without a name: {show(entry.path)}")
        parent = self._root.mkdirs(b"/".join([self._base.rstrip(b"/"), *names[:-1]]) or b"/")
        try:
            self._place(parent, names[-1], path, entry)
        finally:
            os.close(parent)

    def _place(self, parent: int, name: bytes, path: bytes, entry: TarEntry) -> None:
        is_directory = entry.kind is EntryKind.DIRECTORY
        existing = self._existing(parent, name, entry, is_directory=is_directory)
        match entry.kind:
            case EntryKind.DIRECTORY:
                if not existing:
                    os.mkdir(name, 0o700, dir_fd=parent)
                self._directory(parent, name, path, entry)
            case EntryKind.FILE:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                self._file = os.open(name, flags, 0o600, dir_fd=parent)
                self._entry = entry
                self._left = list(entry.sparse or ((0, entry.size),))
            case EntryKind.HARDLINK:
                self._hard_link(parent, name, entry)
            case EntryKind.SYMLINK:
                os.symlink(entry.link, name, dir_fd=parent)
                self._own(parent, name, entry)
            case EntryKind.CHAR | EntryKind.BLOCK | EntryKind.FIFO:
                self._node(parent, name, entry)

    def _existing(self, parent: int, name: bytes, entry: TarEntry, *, is_directory: bool) -> bool:
        """Make room; True when a directory is there that can stay."""
        try:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return False
        was_directory = stat.S_ISDIR(status.st_mode)
        if was_directory and is_directory:
            return True
        if self._keeps_kinds and was_directory != is_directory:
            words = ("directory", "non-directory") if was_directory else ("non-directory", "directory")
            raise CannotUnpack(f"cannot overwrite {words[0]} {show(name)} with {words[1]} {show(entry.path)}")
        if was_directory:
            os.rmdir(name, dir_fd=parent)  # only an empty one is replaced
        else:
            os.unlink(name, dir_fd=parent)
        return False

    def _directory(self, parent: int, name: bytes, path: bytes, entry: TarEntry) -> None:
        fd = os.open(name, _DIR_FLAGS, dir_fd=parent)
        try:
            os.fchown(fd, *self._owner(entry))
            os.fchmod(fd, entry.mode)
        finally:
            os.close(fd)
        self._times.append((path, entry.mtime_ns))

    def _hard_link(self, parent: int, name: bytes, entry: TarEntry) -> None:
        names = [part for part in entry.link.split(b"/") if part not in (b"", b".", b"..")]
        directory, last = self._root.parent(b"/".join([self._base.rstrip(b"/"), *names]))
        try:
            os.link(last, name, src_dir_fd=directory, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(directory)

    def _node(self, parent: int, name: bytes, entry: TarEntry) -> None:
        kinds = {EntryKind.CHAR: stat.S_IFCHR, EntryKind.BLOCK: stat.S_IFBLK, EntryKind.FIFO: stat.S_IFIFO}
        device = os.makedev(entry.major, entry.minor)
        os.mknod(name, kinds[entry.kind] | (entry.mode & 0o7777), device, dir_fd=parent)
        self._own(parent, name, entry)
        os.chmod(name, entry.mode & 0o7777, dir_fd=parent)

    def _own(self, parent: int, name: bytes, entry: TarEntry) -> None:
        uid, gid = self._owner(entry)
        os.chown(name, uid, gid, dir_fd=parent, follow_symlinks=False)
        times = (entry.mtime_ns, entry.mtime_ns)
        os.utime(name, ns=times, dir_fd=parent, follow_symlinks=False)

    def _owner(self, entry: TarEntry) -> tuple[int, int]:
        return self._given_owner or (entry.uid, entry.gid)

    def _write(self, data: bytes) -> None:
        """Data of the open file, put where a sparse map says."""
        view = memoryview(data)
        while view and self._left and self._file >= 0:
            offset, length = self._left[0]
            part = view[:length]
            done = os.pwrite(self._file, part, offset)
            view = view[done:]
            if done == length:
                self._left.pop(0)
            else:
                self._left[0] = (offset + done, length - done)

    def _close_file(self) -> None:
        fd, entry = self._file, self._entry
        self._file, self._entry, self._left = -1, None, []
        if fd < 0 or entry is None:
            return
        try:
            os.ftruncate(fd, entry.size)
            os.fchown(fd, *self._owner(entry))
            os.fchmod(fd, entry.mode & 0o7777)
            for name, value in entry.xattrs.items():
                with contextlib.suppress(OSError):
                    os.setxattr(fd, name, value)
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(fd)
