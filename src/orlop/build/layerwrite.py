"""Write a layer draft as a tar: headers made here, data copied by the kernel where it is large."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

from orlop.base.errors import InvalidInput
from orlop.build.layerdraft import Entry, LayerDraft
from orlop.build.trees import Node, Piece
from orlop.wire.tar import EntryKind, TarEntry
from orlop.wire.tarwrite import END, encode_header, padding

__all__ = ["write_layer"]

_BUFFER_BYTES = 1 << 20
_KERNEL_COPY_BYTES = 256 << 10  # below, a read and one of many in a write is cheaper
_ZEROS = bytes(_BUFFER_BYTES)


def write_layer(draft: LayerDraft, fd: int, offset: int) -> int:
    """Write the draft's tar at `offset` of a descriptor, which stays the caller's.

    Returns:
        The number of entries.

    Raises:
        OSError: ENOSPC and the like.
        InvalidInput: a source became shorter while it was read.
    """
    return _Writer(fd, offset).write(draft)


class _Writer:
    def __init__(self, fd: int, offset: int) -> None:
        self._fd = fd
        self._at = offset
        self._pending: list[bytes] = []
        self._pending_size = 0
        self._names: dict[object, bytes] = {}  # identity of a file -> the name it was written under

    def write(self, draft: LayerDraft) -> int:
        count = 0
        for path, entry in draft.entries():
            self._entry(path, entry)
            count += 1
        self._add(END)
        self._flush()
        return count

    def _entry(self, path: bytes, entry: Entry) -> None:
        node = entry.node
        kind, link, size = node.kind, node.link, node.size
        key = (id(entry.tree), node.identity) if node.identity is not None else None
        if key is not None and key in self._names:
            kind, link, size = EntryKind.HARDLINK, self._names[key], 0
        elif key is not None:
            self._names[key] = path
        xattrs = dict(entry.tree.xattrs(entry.origin, node)) if entry.tree and not _is_link(kind) else {}
        header = TarEntry(
            path=path,
            kind=kind,
            mode=node.mode,
            uid=node.uid,
            gid=node.gid,
            size=size if kind is EntryKind.FILE else 0,
            mtime_ns=node.mtime_ns // 1_000_000_000 * 1_000_000_000,
            link=link if _is_link(kind) else b"",
            xattrs=xattrs,
            major=node.major,
            minor=node.minor,
        )
        self._add(encode_header(header))
        if kind is EntryKind.FILE and size:
            self._data(entry, node)
            self._add(padding(size))

    def _data(self, entry: Entry, node: Node) -> None:
        if entry.data is not None:
            self._add(entry.data)
            return
        assert entry.tree is not None
        for piece in entry.tree.pieces(entry.origin, node):
            if piece.fd < 0:
                for zeros in _zeros(piece.size):
                    self._add(zeros)
            elif piece.size < _KERNEL_COPY_BYTES:
                self._add(_read_exactly(piece, entry.origin))
            else:
                self._flush()
                self._kernel_copy(piece, entry.origin)

    def _kernel_copy(self, piece: Piece, path: bytes) -> None:
        left, source = piece.size, piece.offset
        while left:
            try:
                count = os.copy_file_range(piece.fd, self._fd, left, source, self._at)
            except OSError as error:
                if error.errno not in (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                    raise
                chunk = os.pread(piece.fd, min(left, _BUFFER_BYTES), source)
                count = os.pwrite(self._fd, chunk, self._at) if chunk else 0
            if not count:
                raise _shorter(path)
            left -= count
            source += count
            self._at += count

    def _add(self, data: bytes) -> None:
        self._pending.append(data)
        self._pending_size += len(data)
        if self._pending_size >= _BUFFER_BYTES:
            self._flush()

    def _flush(self) -> None:
        view = memoryview(b"".join(self._pending))
        while view.nbytes:
            count = os.pwrite(self._fd, view, self._at)
            self._at += count
            view = view[count:]
        self._pending.clear()
        self._pending_size = 0


def _is_link(kind: EntryKind) -> bool:
    return kind in (EntryKind.SYMLINK, EntryKind.HARDLINK)


def _zeros(size: int) -> Iterator[bytes]:
    while size:
        piece = _ZEROS[:size] if size < len(_ZEROS) else _ZEROS
        yield piece
        size -= len(piece)


def _read_exactly(piece: Piece, path: bytes) -> bytes:
    data = os.pread(piece.fd, piece.size, piece.offset)
    if len(data) != piece.size:
        raise _shorter(path)
    return data


def _shorter(path: bytes) -> InvalidInput:
    return InvalidInput(f"{path[:200].decode('utf-8', 'replace')!r} became shorter while it was read")
