"""ADD of a local archive: its entries become entries of the layer, nothing touches a disk tree.

Links that the archive or the image brings are followed inside the destination, as if it were
the root. A compressed archive is inflated into a scratch file first, so that its data has
offsets; the amount is limited.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace

from orlop.base.errors import OrlopError
from orlop.build.contexttree import kept_xattrs, pieces_at
from orlop.build.fileops import make_directories
from orlop.build.layerdraft import Entry, LayerDraft, SubTree
from orlop.build.trees import Node, Piece, Tree, join, resolve, split
from orlop.store.compress import decompressor, sniff
from orlop.wire.tar import EntryKind, TarEntry, TarError, TarFeed

__all__ = ["ArchiveUnpacker"]

MAX_UNPACKED_BYTES = 64 << 30
_CHUNK = 1 << 20
_HEAD_BYTES = 64 << 10
_NANO = 1_000_000_000


class ArchiveUnpacker:
    """Unpacks archives into drafts; `scratch_fd` takes inflated bytes and stays the caller's."""

    def __init__(self, scratch_fd: int) -> None:
        self._scratch_fd = scratch_fd
        self._used = 0

    def __call__(
        self,
        draft: LayerDraft,
        target: bytes,
        tree: Tree,
        path: bytes,
        node: Node,
        owner: tuple[int, int] | None,
    ) -> bool:
        """See `fileops.Unpacker`.

        Raises:
            TarError, BadCompression, ExpansionLimit: it began as an archive and is not one.
        """
        if not _is_archive(_raw(tree, path, node)):
            return False
        make_directories(draft, target, 0o755, owner or (0, 0), mtime_ns=node.mtime_ns)
        start = self._used
        feed = TarFeed()
        inside = SubTree(draft, target)
        for chunk in _inflated(_raw(tree, path, node)):
            view = memoryview(chunk)
            while view.nbytes:
                count = os.pwrite(self._scratch_fd, view, self._used)
                self._used += count
                view = view[count:]
            for event in feed.feed(chunk):
                if isinstance(event, TarEntry):
                    self._add(draft, inside, event, start, owner)
        feed.close()
        return True

    def _add(
        self, draft: LayerDraft, inside: SubTree, entry: TarEntry, start: int, owner: tuple[int, int] | None
    ) -> None:
        parts = split(entry.path)
        if b".." in parts:
            raise TarError(f"archive entry {entry.path[:200]!r} has `..` in its path")
        if not parts:
            return  # the destination stays as it is
        uid, gid = owner or (entry.uid, entry.gid)
        parent = inside.full(resolve(inside, b"/".join(parts[:-1])))
        make_directories(draft, parent, 0o755, owner or (0, 0), mtime_ns=entry.mtime_ns)
        path = join(parent, parts[-1])
        existing = draft.find(path)
        if existing is not None and not (existing.is_directory and entry.kind is EntryKind.DIRECTORY):
            draft.remove(path)
        if entry.kind is EntryKind.HARDLINK:
            self._link(draft, inside, entry, path)
            return
        node = Node(
            entry.kind,
            entry.mode & 0o7777,
            uid,
            gid,
            entry.size,
            entry.mtime_ns // _NANO * _NANO,
            entry.link,
            entry.major,
            entry.minor,
            kept_xattrs(entry.xattrs),
            place=(start + entry.data_offset, entry.sparse),
        )
        draft.put(path, Entry(node, _Inflated(self._scratch_fd), path))

    def _link(self, draft: LayerDraft, inside: SubTree, entry: TarEntry, path: bytes) -> None:
        """Another name of a file: one of the archive, or one of the image, which then joins the layer."""
        target = inside.full(resolve(inside, entry.link, follows_last=False))
        found = draft.find(target)
        if found is None or found.is_directory:
            raise TarError(
                f"archive: hard link {entry.path[:200]!r} points to {entry.link[:200]!r}, not a file"
            )
        old = draft.entry(target)
        shared = replace(old, node=replace(found, identity=found.identity or object()))
        draft.put(target, shared)
        draft.put(path, shared)


class _Inflated:
    """The scratch file as the tree that entries get their data from."""

    has_root_header = True

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def find(self, path: bytes) -> Node | None:  # noqa: ARG002 - the protocol's shape
        return None

    def names(self, path: bytes) -> list[bytes]:  # noqa: ARG002
        return []

    def pieces(self, path: bytes, node: Node) -> Iterator[Piece]:  # noqa: ARG002
        return pieces_at(self._fd, node)

    def xattrs(self, path: bytes, node: Node) -> Mapping[bytes, bytes]:  # noqa: ARG002
        return node.xattrs


def _raw(tree: Tree, path: bytes, node: Node) -> Iterator[bytes]:
    for piece in tree.pieces(path, node):
        at, end = piece.offset, piece.offset + piece.size
        while at < end:
            size = min(end - at, _CHUNK)
            chunk = os.pread(piece.fd, size, at) if piece.fd >= 0 else bytes(size)
            if not chunk:
                return
            yield chunk
            at += len(chunk)


def _inflated(chunks: Iterator[bytes]) -> Iterator[bytes]:
    inflater = None
    for chunk in chunks:
        if inflater is None:
            inflater = decompressor(sniff(chunk), MAX_UNPACKED_BYTES)
        yield from inflater.feed(chunk)
    if inflater is not None:
        inflater.finish()


def _is_archive(chunks: Iterator[bytes]) -> bool:
    """True when the first header, behind whatever compression, is one of a tar archive."""
    feed = TarFeed()
    seen = 0
    try:
        for piece in _inflated(chunks):
            events = feed.feed(piece[: _HEAD_BYTES - seen])
            if any(isinstance(event, TarEntry) for event in events):
                return True
            seen += len(piece)
            if seen >= _HEAD_BYTES:
                return False
    except OrlopError:
        return False
    return False
