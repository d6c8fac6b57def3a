"""One rooted resolver: paths that a container, image or context can influence, as fds.

Theory of operation. Every path is given to the kernel together with an fd of the root and
RESOLVE_IN_ROOT: absolute links, `..` and races with whoever renames things inside end inside
the root. RESOLVE_NO_MAGICLINKS closes the links of /proc. What comes back is an fd, and later
work is done on that fd; nothing here joins a path with the path of a root.

`mkdirs` cannot be one call of the kernel's: it walks, holding an fd of every directory from
the root to where it stands, so that `..` goes back to an fd we came through and never up.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat as stat_module
from ctypes import byref, c_uint64, sizeof
from types import TracebackType
from typing import Self

from orlop.kernel.syscall import INT, PTR, SIZE, STR, Path, SystemCall, c_path, os_error

__all__ = ["RootedDir", "openat2"]

# include/uapi/linux/openat2.h
RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

IN_ROOT = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS

_MAX_LINKS = 40  # the kernel's own limit, include/linux/namei.h
_MAX_DEPTH = 512  # directories held open by one mkdirs
_RACE_RETRIES = 128  # the kernel answers EAGAIN when a rename meets a `..`

_openat2 = SystemCall("openat2", INT, STR, PTR, SIZE)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", c_uint64), ("mode", c_uint64), ("resolve", c_uint64))


def openat2(dir_fd: int, path: Path, flags: int, *, mode: int = 0, resolve: int = IN_ROOT) -> int:
    """Open a path under the given RESOLVE_* rules, close-on-exec; the caller closes the fd.

    `mode` is only for calls that create. A lookup that raced with a rename is repeated.
    """
    raw = c_path(path) or b"."
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    for _ in range(_RACE_RETRIES):
        try:
            return _openat2(dir_fd, raw, byref(how), sizeof(how), path=path)
        except BlockingIOError:  # EAGAIN
            continue
    raise os_error("openat2", errno.EAGAIN, path)


class RootedDir:
    """A directory that is the whole world for the paths resolved through it.

    Owns its fd: closing the object closes it. Paths may be absolute or relative, both start
    at the root. Results are fds that the caller closes. Safe to use from one thread at a time
    only as far as `close` is concerned.
    """

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        """Takes ownership of `fd`, a directory (O_PATH is enough)."""
        self.fd = fd

    @classmethod
    def at(cls, path: Path) -> Self:
        """The directory at a path of our own, never one that a container can influence."""
        return cls(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the fd; may be repeated."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    # --- looking ---

    def open(self, path: Path, flags: int = os.O_RDONLY, mode: int = 0o666) -> int:
        """Open or create a file; symlinks are followed inside the root, unless O_NOFOLLOW.

        Reading a device or fifo can block or have effects: add O_NONBLOCK, or open with O_PATH
        and look first, when the tree is hostile (`open_regular` does).
        """
        creates = flags & (os.O_CREAT | os.O_TMPFILE & ~os.O_DIRECTORY)
        if not flags & os.O_PATH:  # openat2 refuses flags that mean nothing
            flags |= os.O_NOCTTY
        return openat2(self.fd, path, flags, mode=mode if creates else 0)

    def open_regular(self, path: Path) -> int:
        """Open a regular file for reading; anything else is refused (EINVAL) without touching it."""
        fd = self.open(path, os.O_RDONLY | os.O_NONBLOCK)
        if stat_module.S_ISREG(os.fstat(fd).st_mode):
            return fd
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", path)

    def open_dir(self, path: Path) -> int:
        """A readable directory fd."""
        return self.open(path, os.O_RDONLY | os.O_DIRECTORY)

    def path_fd(self, path: Path, *, follow: bool = True) -> int:
        """An O_PATH fd of whatever is there, a symlink itself when `follow` is false."""
        return self.open(path, os.O_PATH | (0 if follow else os.O_NOFOLLOW))

    def stat(self, path: Path, *, follow: bool = True) -> os.stat_result:
        """What os.stat says, inside the root."""
        fd = self.path_fd(path, follow=follow)
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)

    def readlink(self, path: Path) -> bytes:
        """The text of a symlink; EINVAL for anything else."""
        fd = self.path_fd(path, follow=False)
        try:
            return _read_link_of(fd, path)
        finally:
            os.close(fd)

    def names(self, path: Path = b".") -> list[bytes]:
        """The entries of a directory, unsorted, without `.` and `..`."""
        fd = self.open_dir(path)
        try:
            return [os.fsencode(name) for name in os.listdir(fd)]
        finally:
            os.close(fd)

    def parent(self, path: Path) -> tuple[int, bytes]:
        """An fd of the directory that holds the last component, and that component.

        For mkdir, mknod, symlink, rename and unlink with `dir_fd`, which never follow the last
        component. EINVAL when there is none (`/`, `..`).
        """
        raw = c_path(path).rstrip(b"/")
        head, _, name = raw.rpartition(b"/")
        if name in (b"", b".", b".."):
            raise OSError(errno.EINVAL, "path has no last component", path)
        return self.open(head or b".", os.O_PATH | os.O_DIRECTORY), name

    # --- making ---

    def mkdirs(self, path: Path, mode: int = 0o755, *, owner: tuple[int, int] | None = None) -> int:
        """Make a directory with all its parents if missing; returns an O_PATH fd of it.

        Links on the way, dangling ones too, lead to places inside the root and are made there, as
        Docker does for WORKDIR and mount targets. New directories get `mode` exactly and `owner`
        (uid, gid) if given; existing ones are left alone. May be repeated.

        Raises:
            OSError: ENOTDIR if a component is something else, ELOOP, ENAMETOOLONG for absurd depth.
        """
        walk = _Walk(self.fd, mode, owner)
        try:
            walk.through(c_path(path))
            return walk.take()
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from error
        finally:
            walk.close()


class _Walk:
    """Where a `mkdirs` stands: the fds of the directories from below the root to here."""

    def __init__(self, root_fd: int, mode: int, owner: tuple[int, int] | None) -> None:
        self._root_fd = root_fd
        self._mode = mode
        self._owner = owner
        self._held: list[int] = []

    @property
    def _here(self) -> int:
        return self._held[-1] if self._held else self._root_fd

    def through(self, path: bytes) -> None:
        pending = path.split(b"/")[::-1]
        links = 0
        while pending:
            name = pending.pop()
            if name in (b"", b"."):
                continue
            if name == b"..":
                if self._held:
                    os.close(self._held.pop())
                continue
            target = self._step(name)
            if target is None:
                continue
            links += 1
            if links > _MAX_LINKS:
                raise os_error("mkdirs", errno.ELOOP)
            if target.startswith(b"/"):
                self.close()
            pending += target.split(b"/")[::-1]

    def _step(self, name: bytes) -> bytes | None:
        """Enter `name`, made if missing; or the text of the link that it is."""
        fd = self._open_or_make(name)
        mode = os.fstat(fd).st_mode
        if stat_module.S_ISDIR(mode) and len(self._held) < _MAX_DEPTH:
            self._held.append(fd)
            return None
        try:
            if stat_module.S_ISLNK(mode):
                return _read_link_of(fd, name)
            raise os_error("mkdirs", errno.ENAMETOOLONG if stat_module.S_ISDIR(mode) else errno.ENOTDIR)
        finally:
            os.close(fd)

    def _open_or_make(self, name: bytes) -> int:
        flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
        for _ in range(_RACE_RETRIES):
            try:
                return os.open(name, flags, dir_fd=self._here)
            except FileNotFoundError:
                pass
            try:
                os.mkdir(name, 0o700, dir_fd=self._here)
            except FileExistsError:
                continue
            return self._adopt(name)
        raise os_error("mkdirs", errno.EAGAIN)

    def _adopt(self, name: bytes) -> int:
        """Open the directory just made and give it its owner and mode, by fd: it may be swapped any time."""
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._here)
        status = os.fstat(fd)
        if status.st_uid == os.geteuid() and not status.st_mode & 0o077:  # as it was made
            if self._owner is not None:
                os.fchown(fd, *self._owner)
            os.fchmod(fd, self._mode)
        return fd

    def take(self) -> int:
        """An O_PATH fd of where we stand, for the caller to close."""
        return os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._here)

    def close(self) -> None:
        while self._held:
            os.close(self._held.pop())


def _read_link_of(fd: int, path: Path) -> bytes:
    try:
        return os.readlink(b"", dir_fd=fd)
    except FileNotFoundError:  # readlinkat("") of a file that is no link
        raise os_error("readlink", errno.EINVAL, path) from None
