"""Write an upper directory as a layer tar, straight into a staged layer file.

Deterministic: directories in the order of their names, each followed by all its entries before any of
its subdirectories is entered. Times are cut to whole seconds, as Docker has them. Whiteouts become
`.wh.` files, opaque directories get a `.wh..wh..opq`, overlay's own attributes stay out, sockets too.
A file that shrinks while it is read is filled up with zeros; one that grows is cut.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Any

from orlop.store.treewalk import Keep, join, walk
from orlop.store.whiteout import is_opaque, is_whiteout, read_xattrs
from orlop.wire.layertree import OPAQUE_NAME, WHITEOUT_PREFIX
from orlop.wire.tarheader import EntryKind, TarEntry, TarError, show
from orlop.wire.tarwrite import END, encode_header, padding

__all__ = ["TreeDiff"]

_SECOND = 1_000_000_000
_SMALL = 64 << 10  # files up to this size go through the buffer with their headers
_BUFFER = 1 << 20
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_KINDS = {
    stat.S_IFREG: EntryKind.FILE,
    stat.S_IFDIR: EntryKind.DIRECTORY,
    stat.S_IFLNK: EntryKind.SYMLINK,
    stat.S_IFCHR: EntryKind.CHAR,
    stat.S_IFBLK: EntryKind.BLOCK,
    stat.S_IFIFO: EntryKind.FIFO,
}


class TreeDiff:
    """One diff; `run` once."""

    def __init__(self, target: int, offset: int, latest_ns: int | None, keep: Keep | None = None) -> None:
        self._target = target
        self._keep = keep
        self._start = self._offset = offset
        self._latest_ns = latest_ns
        self._pending = bytearray()
        self._links: dict[tuple[int, int], bytes] = {}
        self._count = 0

    def run(self, upper: int, root: tuple[int, int, int]) -> dict[str, Any]:
        """Write everything, the end marker too. See `treejobs.diff`."""
        status = os.fstat(upper)
        if (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) != root:
            self._emit(self._entry(b"./", status, read_xattrs(upper)))
        for path, fd, entries in walk(upper, self._keep):
            if path and is_opaque(fd):
                self._emit(TarEntry(join(path, OPAQUE_NAME), EntryKind.FILE, 0))
            for name, status in entries:
                self._add(fd, path, name, status)
        self._pending += END
        self._flush()
        return {"size_bytes": self._offset - self._start, "entry_count": self._count}

    def _add(self, directory: int, path: bytes, name: bytes, status: os.stat_result) -> None:
        full = join(path, name)
        if is_whiteout(status):
            self._emit(TarEntry(join(path, WHITEOUT_PREFIX + name), EntryKind.FILE, 0))
            return
        if name.startswith(WHITEOUT_PREFIX):
            raise TarError(
                f"{show(full)} cannot be part of a layer: names that begin with .wh. mean deletions there",
                hint="rename or remove the file",
            )
        kind = _KINDS.get(stat.S_IFMT(status.st_mode))
        if kind is None:  # sockets are nothing without their process
            return
        try:
            if kind is EntryKind.FILE or kind is EntryKind.DIRECTORY:
                self._add_opened(directory, full, name, kind)
            else:
                self._add_special(directory, full, name, status)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):  # changed under us: gone
                raise

    def _add_opened(self, directory: int, full: bytes, name: bytes, kind: EntryKind) -> None:
        is_directory = kind is EntryKind.DIRECTORY
        fd = os.open(name, _FILE | (os.O_DIRECTORY if is_directory else 0), dir_fd=directory)
        try:
            status = os.fstat(fd)
            if _KINDS.get(stat.S_IFMT(status.st_mode)) is not kind:
                return
            if not is_directory and self._add_link(full, status):
                return
            entry = self._entry(full, status, read_xattrs(fd))
            self._emit(entry)
            if entry.size:
                self._copy(fd, entry.size)
        finally:
            os.close(fd)

    def _add_special(self, directory: int, full: bytes, name: bytes, status: os.stat_result) -> None:
        if self._add_link(full, status):
            return
        xattrs = read_xattrs(f"/proc/self/fd/{directory}/{os.fsdecode(name)}")
        entry = self._entry(full, status, xattrs)
        if entry.kind is EntryKind.SYMLINK:
            entry.link = os.fsencode(os.readlink(name, dir_fd=directory))
        else:
            entry.major, entry.minor = os.major(status.st_rdev), os.minor(status.st_rdev)
        self._emit(entry)

    def _add_link(self, full: bytes, status: os.stat_result) -> bool:
        """True if an earlier name of the inode is in the tar and this one was added as a link to it."""
        if status.st_nlink < 2:
            return False
        first = self._links.setdefault((status.st_dev, status.st_ino), full)
        if first == full:
            return False
        entry = self._entry(full, status, {})
        entry.kind, entry.link, entry.size = EntryKind.HARDLINK, first, 0
        self._emit(entry)
        return True

    def _entry(self, path: bytes, status: os.stat_result, xattrs: dict[bytes, bytes]) -> TarEntry:
        kind = _KINDS[stat.S_IFMT(status.st_mode)]
        mtime_ns = status.st_mtime_ns // _SECOND * _SECOND
        if self._latest_ns is not None:
            mtime_ns = min(mtime_ns, self._latest_ns)
        size = status.st_size if kind is EntryKind.FILE else 0
        mode = stat.S_IMODE(status.st_mode)
        return TarEntry(path, kind, mode, status.st_uid, status.st_gid, size, mtime_ns, xattrs=xattrs)

    def _emit(self, entry: TarEntry) -> None:
        self._pending += encode_header(entry)
        self._count += 1
        if len(self._pending) >= _BUFFER:
            self._flush()

    def _copy(self, source: int, size: int) -> None:
        if size <= _SMALL:
            data = os.pread(source, size, 0)
            self._pending += data.ljust(size, b"\0")
            self._pending += padding(size)
            return
        self._flush()
        done = 0
        while done < size:
            count = os.copy_file_range(
                source, self._target, min(size - done, 1 << 30), done, self._offset + done
            )
            if not count:
                break
            done += count
        self._offset += size
        self._pending += padding(size)

    def _flush(self) -> None:
        view = memoryview(bytes(self._pending))
        self._pending.clear()
        while view.nbytes:
            count = os.pwrite(self._target, view, self._offset)
            view = view[count:]
            self._offset += count
