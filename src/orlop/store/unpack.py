"""Turn a layer's index into real files under a directory fd, without following anything.

Every directory is opened by walking component by component with O_NOFOLLOW from the fd given;
every name is made relative to its directory's fd. Metadata goes on last: owner, mode, attributes,
time; directories after their children.
"""

from __future__ import annotations

import errno
import os

from orlop.wire.erofsread import ErofsInode, ErofsReader
from orlop.wire.tarheader import EntryKind

__all__ = ["unpack_tree"]

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_TYPE = {EntryKind.CHAR: 0o020000, EntryKind.BLOCK: 0o060000, EntryKind.FIFO: 0o010000}


def unpack_tree(reader: ErofsReader, source: int, root: int) -> int:
    """Make everything below `root`; file data comes from `source`. Returns the number of names made.

    Raises:
        OSError: what the file system refuses; the tree is then incomplete.
        ErofsError: the index is damaged.
    """
    links: dict[int, tuple[bytes, bytes]] = {}  # inode -> directory and name of its first link
    directories: list[tuple[bytes, ErofsInode]] = []
    current, current_fd = b"", os.dup(root)
    count = 0
    try:
        for path, inode in reader.walk():
            if not path:
                directories.append((path, inode))
                continue
            parent, _, name = path.rpartition(b"/")
            if parent != current:
                os.close(current_fd)
                current_fd = -1
                current, current_fd = parent, _open_directory(root, parent)
            _make(reader, source, root, current_fd, name, inode, links, parent)
            if inode.kind is EntryKind.DIRECTORY:
                directories.append((path, inode))
            count += 1
    finally:
        if current_fd >= 0:
            os.close(current_fd)
    for path, inode in reversed(directories):
        fd = _open_directory(root, path)
        try:
            _set_metadata(fd, inode)
        finally:
            os.close(fd)
    return count


def _open_directory(root: int, path: bytes) -> int:
    fd = os.dup(root)
    for name in filter(None, path.split(b"/")):
        try:
            child = os.open(name, _DIRECTORY, dir_fd=fd)
        finally:
            os.close(fd)
        fd = child
    return fd


def _make(
    reader: ErofsReader,
    source: int,
    root: int,
    directory: int,
    name: bytes,
    inode: ErofsInode,
    links: dict[int, tuple[bytes, bytes]],
    parent: bytes,
) -> None:
    if inode.kind is EntryKind.DIRECTORY:
        os.mkdir(name, 0o700, dir_fd=directory)
        return
    if inode.nid in links:
        first_parent, first_name = links[inode.nid]
        first = _open_directory(root, first_parent)
        try:
            os.link(first_name, name, src_dir_fd=first, dst_dir_fd=directory, follow_symlinks=False)
        finally:
            os.close(first)
        return
    if inode.nlink > 1:
        links[inode.nid] = (parent, name)
    if inode.kind is EntryKind.FILE:
        fd = os.open(name, _CREATE, 0o600, dir_fd=directory)
        try:
            _copy_data(source, fd, inode)
            _set_metadata(fd, inode)
        finally:
            os.close(fd)
        return
    if inode.kind is EntryKind.SYMLINK:
        os.symlink(reader.read(inode), name, dir_fd=directory)
    else:
        os.mknod(name, _TYPE[inode.kind] | 0o600, os.makedev(*inode.device), dir_fd=directory)
    _set_special_metadata(directory, name, inode)


def _copy_data(source: int, target: int, inode: ErofsInode) -> None:
    offset, left = inode.data_offset, inode.size
    while left:
        count = os.copy_file_range(source, target, min(left, 1 << 30), offset)
        if not count:
            raise OSError(errno.EIO, "layer file ends inside a file")
        offset, left = offset + count, left - count


def _set_metadata(fd: int, inode: ErofsInode) -> None:
    """Owner first: changing it clears set-id bits and file capabilities."""
    os.fchown(fd, inode.uid, inode.gid)
    os.fchmod(fd, inode.mode)
    for name, value in inode.xattrs.items():
        os.setxattr(fd, name, value)
    os.utime(fd, ns=(inode.mtime_ns, inode.mtime_ns))


def _set_special_metadata(directory: int, name: bytes, inode: ErofsInode) -> None:
    """Links, devices and pipes cannot be opened safely: by name, relative to the fd, not followed."""
    os.chown(name, inode.uid, inode.gid, dir_fd=directory, follow_symlinks=False)
    if inode.kind is not EntryKind.SYMLINK:
        os.chmod(name, inode.mode, dir_fd=directory)
    if inode.xattrs:
        place = b"/proc/self/fd/%d/" % directory + name
        for key, value in inode.xattrs.items():
            os.setxattr(place, key, value, follow_symlinks=False)
    os.utime(name, ns=(inode.mtime_ns, inode.mtime_ns), dir_fd=directory, follow_symlinks=False)
