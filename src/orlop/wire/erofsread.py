"""Walk the EROFS metadata of a layer file without mounting it: for fsck, `cp` and tests.

Reads what `erofswrite` writes and nothing more; every offset is checked, so torn or flipped
metadata ends in `ErofsError`, not in a wrong answer or a loop.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from struct import error as struct_error

from orlop.wire.erofs import (
    BLOCK_BITS,
    BLOCK_SIZE,
    DIRENT,
    FILE_TYPES,
    FORMAT_INLINE,
    FORMAT_PLAIN,
    INODE,
    INODE_SIZE,
    MAGIC,
    SLOT,
    SUPERBLOCK,
    SUPERBLOCK_OFFSET,
    ErofsError,
    decode_device,
    decode_xattrs,
    xattr_size,
)
from orlop.wire.tar import Buffer
from orlop.wire.tarheader import EntryKind

__all__ = ["ErofsInode", "ErofsReader"]

MAX_DIRECTORY_BYTES = 1 << 30
_KINDS = {bits: kind for kind, (_, bits) in FILE_TYPES.items()}
_TYPES = {number: kind for kind, (number, _) in FILE_TYPES.items()}


@dataclass(frozen=True, slots=True)
class ErofsInode:
    """One inode; `data_offset` is where its content stands in the layer file (files, links, directories)."""

    nid: int
    kind: EntryKind
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    nlink: int
    device: tuple[int, int]
    data_offset: int
    xattrs: dict[bytes, bytes]


class ErofsReader:
    """A layer file in memory (an mmap of all of it).

    Raises:
        ErofsError: no superblock of ours.
    """

    def __init__(self, buffer: Buffer) -> None:
        self._buffer = buffer
        head = buffer[SUPERBLOCK_OFFSET : SUPERBLOCK_OFFSET + SUPERBLOCK.size]
        if len(head) < SUPERBLOCK.size:
            raise ErofsError("corrupt layer: shorter than its superblock")
        fields = SUPERBLOCK.unpack(head)
        if fields[0] != MAGIC or fields[3] != BLOCK_BITS or fields[14]:
            raise ErofsError("corrupt layer: bad superblock")
        self.root_nid: int = fields[5]
        self.inode_count: int = fields[6]
        self.uuid: bytes = fields[12]
        self._meta = fields[10] << BLOCK_BITS
        self._end = len(buffer)

    def inode(self, nid: int) -> ErofsInode:
        """Read one inode.

        Raises:
            ErofsError: there is none, or it points outside the file.
        """
        at = self._meta + nid * SLOT
        raw = self._bytes(at, INODE_SIZE)
        form, count, mode, _, size, where, _, uid, gid, seconds, nanos, nlink = INODE.unpack(raw)
        kind = _KINDS.get(mode & 0o170000)
        if form not in (FORMAT_PLAIN, FORMAT_INLINE) or kind is None:
            raise ErofsError(f"corrupt layer: bad inode {nid}")
        area = xattr_size(count)
        offset = at + INODE_SIZE + area if form == FORMAT_INLINE else where << BLOCK_BITS
        has_data = kind in (EntryKind.FILE, EntryKind.DIRECTORY, EntryKind.SYMLINK)
        if has_data and size and offset + size > self._end:
            raise ErofsError(f"corrupt layer: the data of inode {nid} is outside the file")
        return ErofsInode(
            nid,
            kind,
            mode & 0o7777,
            uid,
            gid,
            size,
            (seconds - (1 << 64) if seconds >> 63 else seconds) * 1_000_000_000 + nanos,
            nlink,
            decode_device(where) if kind in (EntryKind.CHAR, EntryKind.BLOCK) else (0, 0),
            offset if has_data else 0,
            decode_xattrs(self._bytes(at + INODE_SIZE, area)) if area else {},
        )

    def read(self, inode: ErofsInode) -> bytes:
        """The content of a file, or the target of a symbolic link."""
        return self._bytes(inode.data_offset, inode.size)

    def list(self, directory: ErofsInode) -> Iterator[tuple[bytes, int, EntryKind]]:
        """(name, nid, kind) of a directory's entries in order, without `.` and `..`.

        Raises:
            ErofsError: the directory is not well formed.
        """
        if directory.kind is not EntryKind.DIRECTORY or directory.size > MAX_DIRECTORY_BYTES:
            raise ErofsError(f"corrupt layer: inode {directory.nid} is no directory")
        last = b""
        for at in range(0, directory.size, BLOCK_SIZE):
            block = self._bytes(directory.data_offset + at, min(BLOCK_SIZE, directory.size - at))
            for name, nid, kind in self._dirents(block, directory.nid):
                if name <= last:
                    raise ErofsError(f"corrupt layer: directory {directory.nid} is out of order")
                last = name
                if name not in (b".", b".."):
                    yield name, nid, kind

    def walk(self) -> Iterator[tuple[bytes, ErofsInode]]:
        """Every name below the root with its inode, `b""` first; parents before children."""
        stack = [(b"", self.inode(self.root_nid))]
        seen: set[int] = set()
        while stack:
            path, inode = stack.pop()
            yield path, inode
            if inode.kind is not EntryKind.DIRECTORY:
                continue
            if inode.nid in seen:
                raise ErofsError(f"corrupt layer: directory {inode.nid} has two names")
            seen.add(inode.nid)
            prefix = path + b"/" if path else b""
            found = [(prefix + name, self._child(nid, kind)) for name, nid, kind in self.list(inode)]
            stack += reversed(found)

    def _child(self, nid: int, kind: EntryKind) -> ErofsInode:
        inode = self.inode(nid)
        if inode.kind is not kind:
            raise ErofsError(f"corrupt layer: inode {nid} is not what its directory says")
        return inode

    @staticmethod
    def _dirents(block: bytes, nid: int) -> Iterator[tuple[bytes, int, EntryKind]]:
        try:
            names_at = DIRENT.unpack_from(block, 0)[1]
            entries = [DIRENT.unpack_from(block, at) for at in range(0, names_at, DIRENT.size)]
        except struct_error as error:
            raise ErofsError(f"corrupt layer: directory {nid} is torn") from error
        ends = [start for _, start, _ in entries[1:]] + [len(block)]
        for (child, start, number), end in zip(entries, ends, strict=True):
            name = block[start:end].rstrip(b"\0")
            kind = _TYPES.get(number)
            if kind is None or not name or start < names_at:
                raise ErofsError(f"corrupt layer: directory {nid} has a bad entry")
            yield name, child, kind

    def _bytes(self, at: int, size: int) -> bytes:
        data = self._buffer[at : at + size]
        if at < 0 or len(data) != size:
            raise ErofsError(f"corrupt layer: {size} bytes at {at} are outside the file")
        return data
