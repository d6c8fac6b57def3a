"""Jobs of `docker cp` and `docker export`: stat, archive, extract, export.

They run in workers on a container's root (`rootview`). Every path of a client or an archive goes
through the rooted resolver; extraction makes and replaces names beneath fds and follows no link
at the end of a path.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import stat
from collections.abc import Callable, Iterator
from typing import Any

from orlop.base.errors import Kind, NotFound, OrlopError
from orlop.engine.rootview import kernel_devices, open_root
from orlop.engine.unpacking import Unpacker
from orlop.kernel.openat import RootedDir
from orlop.runtime import identity
from orlop.wire.tar import TarFeed
from orlop.wire.tarheader import EntryKind, TarEntry
from orlop.wire.tarwrite import END, encode_header, padding

__all__ = ["archive", "export", "extract", "list_files", "stat_path"]

Report = Callable[[dict[str, Any]], None]

_DIR_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 1 << 18
_SEND = 1 << 20
_MAX_ACCOUNTS = 1 << 20
_MAX_LISTED = 10_000
_KINDS = {
    stat.S_IFREG: EntryKind.FILE,
    stat.S_IFDIR: EntryKind.DIRECTORY,
    stat.S_IFLNK: EntryKind.SYMLINK,
    stat.S_IFCHR: EntryKind.CHAR,
    stat.S_IFBLK: EntryKind.BLOCK,
    stat.S_IFIFO: EntryKind.FIFO,
}


class NotADirectory(OrlopError):
    """The place to extract to is no directory."""

    kind = Kind.INVALID
    code = "not-a-directory"


class BadPath(OrlopError):
    """A path that no file can have."""

    kind = Kind.INVALID
    code = "bad-path"


class NoSuchPath(NotFound):
    """The container has no such file."""

    code = "no-such-path"


def stat_path(payload: dict[str, Any], fds: list[int], report: Report) -> dict[str, Any]:  # noqa: ARG001
    """Name, size, mode, time and link target of `path`."""
    with open_root(payload["root"]) as root:
        return _stat(root, str(payload["path"]))


def _stat(root: RootedDir, path: str) -> dict[str, Any]:
    status = _status(root, path)
    target = ""
    if stat.S_ISLNK(status.st_mode):
        text = os.fsdecode(root.readlink(path))
        target = posixpath.normpath(posixpath.join("/", posixpath.dirname(path), text))
    return {
        "name": posixpath.basename(path.rstrip("/")) or "/",
        "size": status.st_size,
        "mode": status.st_mode,
        "mtime_ns": status.st_mtime_ns,
        "link_target": target,
    }


def _status(root: RootedDir, path: str) -> os.stat_result:
    """lstat, but `x/` and `x/.` mean what the link points to."""
    follow = path.endswith(("/", "/."))
    try:
        status = root.stat(path if not follow else path.rstrip("/.") or "/", follow=follow)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NoSuchPath(f"no such file: {path[:300]}", path=path) from error
    except OSError as error:
        if error.errno not in (errno.ENAMETOOLONG, errno.ELOOP):
            raise
        raise BadPath(f"{os.strerror(error.errno).lower()}: {path[:300]}", path=path[:300]) from error
    if follow and not stat.S_ISDIR(status.st_mode):
        raise NoSuchPath(f"not a directory: {path[:300]}", path=path)
    return status


def archive(payload: dict[str, Any], fds: list[int], report: Report) -> dict[str, Any]:
    """Write `path` as a tar archive to the given fd, after reporting its stat."""
    path = str(payload["path"])
    with open_root(payload["root"]) as root:
        facts = _stat(root, path)
        report(facts)
        writer = _Writer(fds[0], kernel_devices(payload["root"]))
        base = os.fsencode(str(payload["base"]))
        if stat.S_ISDIR(facts["mode"]):
            fd = root.open_dir(path)
            try:
                writer.directory(fd, base)
            finally:
                os.close(fd)
        else:
            parent, name = root.parent(path)
            try:
                writer.entry(parent, name, base)
            finally:
                os.close(parent)
        writer.end()
    return {}


def export(payload: dict[str, Any], fds: list[int], report: Report) -> dict[str, Any]:
    """Write the whole root, without what is mounted in it, as a tar archive to the given fd."""
    with open_root(payload["root"]) as root:
        report({})
        writer = _Writer(fds[0])
        fd = root.open_dir(".")
        try:
            writer.children(fd, b"")
        finally:
            os.close(fd)
        writer.end()
    return {}


def list_files(payload: dict[str, Any], fds: list[int], report: Report) -> dict[str, Any]:  # noqa: ARG001
    """The entries of the directory `path`, or the file itself, as `entries`."""
    path = str(payload["path"])
    with open_root(payload["root"]) as root:
        facts = _stat(root, path)
        if not stat.S_ISDIR(facts["mode"]):
            return {"entries": [_row(facts)]}
        names = sorted(os.fsdecode(name) for name in root.names(path))
        if len(names) > _MAX_LISTED:
            raise BadPath(f"more than {_MAX_LISTED} files in {path[:300]}: take an archive instead")
        return {"entries": list(_rows(root, path, names))}


def _rows(root: RootedDir, path: str, names: list[str]) -> Iterator[dict[str, Any]]:
    for name in names:
        with contextlib.suppress(NoSuchPath):  # it is a live tree
            yield _row(_stat(root, posixpath.join(path, name)))


def _row(facts: dict[str, Any]) -> dict[str, Any]:
    kind = _KINDS.get(stat.S_IFMT(facts["mode"]))
    return {
        "Name": facts["name"],
        "Kind": kind.name.lower() if kind else "socket",
        "Mode": stat.filemode(facts["mode"]),
        "Size": facts["size"],
        "ModifiedNs": facts["mtime_ns"],
        "LinkTarget": facts["link_target"],
    }


class _Writer:
    """Writes a tree; a file with several names is written once, what lies on `skipped` devices not at all."""

    def __init__(self, out: int, skipped: frozenset[int] = frozenset()) -> None:
        self._out = out
        self._skipped = skipped
        self._links: dict[tuple[int, int], bytes] = {}

    def directory(self, fd: int, name: bytes) -> None:
        status = os.fstat(fd)
        self._header(fd, name, status, EntryKind.DIRECTORY)
        if status.st_dev not in self._skipped:
            self.children(fd, name.rstrip(b"/") + b"/")

    def children(self, fd: int, prefix: bytes) -> None:
        for child in sorted(os.fsencode(item) for item in os.listdir(fd)):
            self.entry(fd, child, prefix + child)

    def entry(self, parent: int, name: bytes, shown: bytes) -> None:
        try:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return  # it is a live tree
        kind = _KINDS.get(stat.S_IFMT(status.st_mode))
        if kind is None or (status.st_dev in self._skipped and kind is not EntryKind.DIRECTORY):
            return  # sockets are not archived
        if kind is EntryKind.DIRECTORY:
            fd = os.open(name, _DIR_FLAGS, dir_fd=parent)
            try:
                self.directory(fd, shown)
            finally:
                os.close(fd)
        elif status.st_nlink > 1 and (status.st_dev, status.st_ino) in self._links:
            first = self._links[status.st_dev, status.st_ino]
            self._send(encode_header(_entry(shown, EntryKind.HARDLINK, status, link=first)))
        elif kind is EntryKind.FILE:
            self._file(parent, name, shown, status)
        else:
            link = os.readlink(name, dir_fd=parent) if kind is EntryKind.SYMLINK else b""
            self._send(encode_header(_entry(shown, kind, status, link=link)))

    def _file(self, parent: int, name: bytes, shown: bytes, status: os.stat_result) -> None:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        fd = os.open(name, flags, dir_fd=parent)
        try:
            status = os.fstat(fd)
            if status.st_nlink > 1:
                self._links[status.st_dev, status.st_ino] = shown
            self._header(fd, shown, status, EntryKind.FILE)
            left = status.st_size
            while left > 0:
                count = os.sendfile(self._out, fd, None, min(left, _SEND))
                if count == 0:  # it was cut while we read: the archive must keep its promise
                    self._send(bytes(min(left, _CHUNK)))
                    count = min(left, _CHUNK)
                left -= count
            self._send(padding(status.st_size))
        finally:
            os.close(fd)

    def _header(self, fd: int, shown: bytes, status: os.stat_result, kind: EntryKind) -> None:
        entry = _entry(shown, kind, status)
        attributes = {}
        for name in os.listxattr(fd):
            if name == "security.capability" or name.startswith("user."):
                attributes[os.fsencode(name)] = os.getxattr(fd, name)
        if attributes:
            entry.xattrs = attributes
        self._send(encode_header(entry))

    def end(self) -> None:
        self._send(END)

    def _send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._out, view) :]


def _entry(shown: bytes, kind: EntryKind, status: os.stat_result, link: bytes = b"") -> TarEntry:
    is_device = kind in (EntryKind.CHAR, EntryKind.BLOCK)
    return TarEntry(
        path=shown,
        kind=kind,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        size=status.st_size if kind is EntryKind.FILE else 0,
        mtime_ns=status.st_mtime_ns,
        link=link,
        major=os.major(status.st_rdev) if is_device else 0,
        minor=os.minor(status.st_rdev) if is_device else 0,
    )


def extract(payload: dict[str, Any], fds: list[int], report: Report) -> dict[str, Any]:
    """Unpack the tar archive that comes from the given fd into the directory `path`."""
    path = str(payload["path"])
    with open_root(payload["root"]) as root:
        status = _status(root, path + "/")
        if not stat.S_ISDIR(status.st_mode):
            raise NotADirectory("extraction point is not a directory")
        report({})
        unpacker = Unpacker(
            root,
            os.fsencode(path),
            keeps_kinds=bool(payload.get("keeps_kinds")),
            owner=_owner(root, payload.get("user")),
        )
        feed = TarFeed()
        for chunk in _chunks(fds[0]):
            for event in feed.feed(chunk):
                unpacker.take(event)
        feed.close()
        unpacker.finish()
    return {}


def _owner(root: RootedDir, user: str | None) -> tuple[int, int] | None:
    """The ids of the container's user, looked up in its own files."""
    if user is None:
        return None
    try:
        found = identity.resolve(
            user, (), _account_file(root, "etc/passwd"), _account_file(root, "etc/group")
        )
    except identity.UserUnknown as error:
        raise NoSuchPath(str(error)) from error
    return found.uid, found.gid


def _account_file(root: RootedDir, path: str) -> bytes:
    try:
        fd = root.open_regular(path)
    except OSError:
        return b""
    try:
        # no size, as files of procfs: reading some has effects (/proc/kmsg)
        return os.read(fd, _MAX_ACCOUNTS) if os.fstat(fd).st_size else b""
    finally:
        os.close(fd)


def _chunks(fd: int) -> Iterator[bytes]:
    while chunk := os.read(fd, _CHUNK):
        yield chunk
