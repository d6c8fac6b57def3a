"""A root file system as a tree, read by descriptors only. For workers: it walks.

Every lookup starts at the root's descriptor and cannot leave it (`kernel.openat`). What is
read is remembered: the file system does not change while a build step reads it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping

from orlop.build.contexttree import kept_xattrs
from orlop.build.trees import Node, Piece, join
from orlop.kernel.openat import RootedDir
from orlop.wire.tar import EntryKind

__all__ = ["RootTree"]

_KINDS = {
    stat.S_IFREG: EntryKind.FILE,
    stat.S_IFDIR: EntryKind.DIRECTORY,
    stat.S_IFLNK: EntryKind.SYMLINK,
    stat.S_IFCHR: EntryKind.CHAR,
    stat.S_IFBLK: EntryKind.BLOCK,
    stat.S_IFIFO: EntryKind.FIFO,
}
_WHITEOUT = 0


class RootTree:
    """A tree below a directory descriptor, which stays the caller's."""

    has_root_header = True

    def __init__(self, fd: int) -> None:
        self._root = RootedDir(fd)
        self._nodes: dict[bytes, Node | None] = {}
        self._names: dict[bytes, list[bytes]] = {}

    def find(self, path: bytes) -> Node | None:
        """See `Tree.find`."""
        if path not in self._nodes:
            self._nodes[path] = self._read(path)
        return self._nodes[path]

    def names(self, path: bytes) -> list[bytes]:
        """See `Tree.names`; every child is looked at on the way."""
        if path not in self._names:
            fd = self._root.open_dir(path or b".")
            try:
                found = sorted(os.fsencode(name) for name in os.listdir(fd))
                for name in found:
                    child = join(path, name)
                    if child not in self._nodes:
                        self._nodes[child] = _node_at(name, fd)
            finally:
                os.close(fd)
            self._names[path] = [name for name in found if self._nodes[join(path, name)] is not None]
        return self._names[path]

    def pieces(self, path: bytes, node: Node) -> Iterator[Piece]:
        """See `Tree.pieces`; the file is open until the next step of the iteration."""
        fd = self._root.open_regular(path)
        try:
            yield Piece(fd, 0, node.size)
        finally:
            os.close(fd)

    def xattrs(self, path: bytes, node: Node) -> Mapping[bytes, bytes]:
        """See `Tree.xattrs`. Links, devices and the like have none that a layer carries."""
        if node.kind is EntryKind.DIRECTORY:
            fd = self._root.open_dir(path or b".")
        elif node.kind is EntryKind.FILE:
            fd = self._root.open_regular(path)
        else:
            return {}
        try:
            names = [os.fsencode(name) for name in os.listxattr(fd)]
            return kept_xattrs({name: os.getxattr(fd, name) for name in names})
        except OSError:  # a file system without attributes
            return {}
        finally:
            os.close(fd)

    def _read(self, path: bytes) -> Node | None:
        try:
            found = self._root.stat(path or b".", follow=False)
        except (FileNotFoundError, NotADirectoryError):
            return None
        link = self._root.readlink(path) if stat.S_ISLNK(found.st_mode) else b""
        return _node(found, link)


def _node_at(name: bytes, fd: int) -> Node | None:
    found = os.stat(name, dir_fd=fd, follow_symlinks=False)
    link = os.readlink(name, dir_fd=fd) if stat.S_ISLNK(found.st_mode) else b""
    return _node(found, link)


def _node(found: os.stat_result, link: bytes) -> Node | None:
    kind = _KINDS.get(stat.S_IFMT(found.st_mode))
    if kind is None:  # a socket: nothing that a layer can carry
        return None
    is_device = kind in (EntryKind.CHAR, EntryKind.BLOCK)
    if kind is EntryKind.CHAR and found.st_rdev == _WHITEOUT:
        return None
    shared = found.st_nlink > 1 and kind is not EntryKind.DIRECTORY
    return Node(
        kind,
        stat.S_IMODE(found.st_mode),
        found.st_uid,
        found.st_gid,
        found.st_size if kind is EntryKind.FILE else 0,
        found.st_mtime_ns,
        link,
        os.major(found.st_rdev) if is_device else 0,
        os.minor(found.st_rdev) if is_device else 0,
        identity=(found.st_dev, found.st_ino) if shared else None,
    )
