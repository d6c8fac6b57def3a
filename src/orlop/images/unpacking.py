"""Reading an image archive in one pass: documents are kept, layers go straight to the store.

Archives come in any order and any compression. What looks like JSON is kept in memory,
within a budget; what looks like a layer is hashed, inflated and handed to the layer store
under a lease, so that nothing of a refused archive outlives it. No path of the archive ever
becomes a path of ours: paths are keys.
"""

from __future__ import annotations

import posixpath
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Protocol

from orlop.aio import offload
from orlop.base.errors import InvalidInput, Kind, NotFound, OrlopError
from orlop.base.ids import LeaseId
from orlop.images.model import Layers
from orlop.oci.digest import Digest, InvalidDigest, algorithm, encoded, new_hasher, parse_digest
from orlop.oci.strictjson import HARD_LIMIT_BYTES, decode_value
from orlop.store.compress import Decompressor, auto_decompressor, decompressor, sniff
from orlop.wire.tar import EntryKind, TarEntry, TarFeed

__all__ = ["OMITTED", "Archive", "BadArchive", "Report", "StoredLayer", "read_archive"]

OMITTED = "omitted.json"  # digests of layers that the archive leaves out
MAX_ARCHIVE_BYTES = 1 << 40
_MAX_ENTRIES = 100_000
_MAX_DOCUMENTS_BYTES = 64 << 20
_HEAD_BYTES = 512
_MAX_LINKS = 8
_TAR_MAGIC = slice(257, 262)

Report = Callable[[str, int, int], None]  # layer's name in the archive, bytes so far, bytes in all


class BadArchive(InvalidInput):
    """The archive is not an image archive, or its parts do not fit together."""

    code = "bad-image-archive"


@dataclass(frozen=True, slots=True)
class StoredLayer:
    """A layer of the archive that is in the store now."""

    digest: Digest  # of the bytes in the archive
    size_bytes: int
    diff_id: Digest


@dataclass(slots=True)
class Archive:
    """What one pass found, by path in the archive."""

    documents: dict[str, bytes] = field(default_factory=dict)
    layers: dict[str, StoredLayer | OrlopError] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)

    def has(self, path: str) -> bool:
        """True when the archive has a document or a layer there."""
        path = self._follow(path)
        return path in self.documents or path in self.layers

    def has_document(self, path: str) -> bool:
        """True when `document` would not raise."""
        return self._follow(path) in self.documents

    def document(self, path: str) -> bytes:
        """A JSON document. Raises BadArchive."""
        found = self.documents.get(self._follow(path))
        if found is None:
            raise BadArchive(f"the archive has no document {path[:200]!r}")
        return found

    def layer(self, path: str) -> StoredLayer:
        """A stored layer; raises what made it unusable, or BadArchive."""
        found = self.layers.get(self._follow(path))
        if found is None:
            raise BadArchive(f"the archive has no layer {path[:200]!r}")
        if isinstance(found, OrlopError):
            raise found
        return found

    async def adopt_omitted(self, layers: Layers, lease: LeaseId) -> None:
        """Take the layers that the archive leaves out from the store, held by `lease`.

        Raises:
            BadArchive: a digest that is none, or a layer that is not stored here.
        """
        named = decode_value(self.documents.get(OMITTED, b"[]"), OMITTED, HARD_LIMIT_BYTES)
        if not isinstance(named, list) or len(named) > _MAX_ENTRIES:
            raise BadArchive(f"{OMITTED} is no list of digests")
        for text in named:
            digest = parse_digest(str(text))
            facts = await layers.hold(digest, lease)
            if facts is None:
                raise BadArchive(
                    f"layer {digest} is neither in the archive nor here",
                    hint="the archive was made for an engine that had it: push or save the image again",
                )
            path = f"blobs/{algorithm(digest)}/{encoded(digest)}"
            self.layers.setdefault(path, StoredLayer(digest, facts.size_bytes, digest))

    def _follow(self, path: str) -> str:
        path = posixpath.normpath(path)
        for _ in range(_MAX_LINKS):
            if path not in self.links:
                return path
            path = self.links[path]
        raise BadArchive(f"too many links lead to {path[:200]!r}")


async def read_archive(
    stream: AsyncIterator[bytes],
    layers: Layers,
    lease: LeaseId,
    report: Report | None = None,
) -> Archive:
    """Read a whole archive.

    Args:
        stream: the archive, plain or compressed.
        layers: where its layers go.
        lease: holds them, new and known ones; end it to give up everything that was read.
        report: told how far each layer is.

    Raises:
        BadArchive, TarError, BadCompression, ExpansionLimit: the archive is not acceptable.
        StoreFull: no space left.
    """
    reader = _Reader(layers, lease, report)
    inflate = auto_decompressor(MAX_ARCHIVE_BYTES)
    try:
        async for chunk in stream:
            async for piece in _inflated(inflate, chunk):
                await reader.feed(piece)
        inflate.finish()
        await reader.close()
    except BaseException:
        await reader.abandon()
        raise
    return reader.archive


async def _inflated(inflate: Decompressor, chunk: bytes) -> AsyncIterator[bytes]:
    pieces: Iterator[bytes] = inflate.feed(chunk)
    while (piece := await offload.thread(next, pieces, None)) is not None:
        yield piece


class _Sink(Protocol):
    async def write(self, data: bytes) -> None: ...
    async def close(self) -> None: ...
    async def abandon(self) -> None: ...


class _Reader:
    def __init__(self, layers: Layers, lease: LeaseId, report: Report | None) -> None:
        self.archive = Archive()
        self._layers = layers
        self._lease = lease
        self._report = report or (lambda *_: None)
        self._feed = TarFeed()
        self._entries = 0
        self._budget = _MAX_DOCUMENTS_BYTES
        self._path = ""
        self._size = 0
        self._taken = 0
        self._head = bytearray()
        self._sink: _Sink | None = None
        self._is_file = False

    async def feed(self, piece: bytes) -> None:
        for event in self._feed.feed(piece):
            if isinstance(event, TarEntry):
                await self._end_file()
                self._begin(event)
            elif self._is_file:
                await self._data(event)

    async def close(self) -> None:
        self._feed.close()
        await self._end_file()

    async def abandon(self) -> None:
        sink, self._sink = self._sink, None
        if sink is not None:
            await sink.abandon()

    def _begin(self, entry: TarEntry) -> None:
        self._entries += 1
        if self._entries > _MAX_ENTRIES:
            raise BadArchive(f"the archive has more than {_MAX_ENTRIES} entries")
        path = posixpath.normpath(entry.path.decode("utf-8", "surrogateescape"))
        self._is_file = entry.kind is EntryKind.FILE
        if entry.kind is EntryKind.SYMLINK:
            link = entry.link.decode("utf-8", "surrogateescape")
            self.archive.links[path] = posixpath.normpath(posixpath.join(posixpath.dirname(path), link))
        elif entry.kind is EntryKind.HARDLINK:
            self.archive.links[path] = posixpath.normpath(entry.link.decode("utf-8", "surrogateescape"))
        if not self._is_file:
            return
        if path in self.archive.documents or path in self.archive.layers:
            raise BadArchive(f"the archive has two files named {path[:200]!r}")
        self._path, self._size, self._taken = path, entry.stored_size, 0

    async def _data(self, data: bytes) -> None:
        self._taken += len(data)
        if self._sink is None:
            self._head += data
            if len(self._head) < min(_HEAD_BYTES, self._size):
                return
            data = bytes(self._head)
            self._head.clear()
            self._sink = await self._choose(data)
        await self._sink.write(data)
        if isinstance(self._sink, _LayerSink):
            self._report(self._path, self._taken, self._size)

    async def _end_file(self) -> None:
        sink, self._sink = self._sink, None
        self._is_file = False
        if sink is not None:
            await sink.close()

    async def _choose(self, head: bytes) -> _Sink:
        compression = sniff(head)
        is_tar = head[_TAR_MAGIC] == b"ustar"
        if compression == "none" and not is_tar:
            if head.lstrip()[:1] in (b"{", b"["):
                return _DocumentSink(self, self._path, self._size)
            if self._size < _HEAD_BYTES:
                return _NoSink()  # `VERSION` and the like
        known = _digest_of_path(self._path)
        if compression == "none" and known and await self._layers.hold(known, self._lease):
            # a layer that we have, under its diff id: not stored twice
            self.archive.layers[self._path] = StoredLayer(known, self._size, known)
            return _NoSink()
        sink = _LayerSink(self.archive, self._path, compression)
        await sink.open(self._layers, self._lease)
        return sink

    def keep(self, path: str, data: bytes) -> None:
        self.archive.documents[path] = data

    def charge(self, size_bytes: int) -> None:
        """Take the size of a document from the budget."""
        self._budget -= size_bytes
        if size_bytes > HARD_LIMIT_BYTES or self._budget < 0:
            raise BadArchive("the documents of the archive are too large")


class _NoSink:
    async def write(self, data: bytes) -> None:
        """Not wanted."""

    async def close(self) -> None:
        """Nothing to do."""

    async def abandon(self) -> None:
        """Nothing to do."""


class _DocumentSink(_NoSink):
    def __init__(self, reader: _Reader, path: str, size_bytes: int) -> None:
        reader.charge(size_bytes)
        self._reader = reader
        self._path = path
        self._data = bytearray()

    async def write(self, data: bytes) -> None:
        self._data += data

    async def close(self) -> None:
        self._reader.keep(self._path, bytes(self._data))


class _LayerSink:
    """Hashes, inflates and stores one layer. Its own fault is kept, not raised: nobody may want it."""

    def __init__(self, archive: Archive, path: str, compression: str) -> None:
        self._archive = archive
        self._path = path
        self._hasher = new_hasher()
        self._size = 0
        self._inflate = decompressor(compression, MAX_ARCHIVE_BYTES)
        self._stack = AsyncExitStack()
        self._failure: OrlopError | None = None

    async def open(self, layers: Layers, lease: LeaseId) -> None:
        self._writer = await self._stack.enter_async_context(layers.writer(lease))

    async def write(self, data: bytes) -> None:
        if self._failure is not None:
            return
        await offload.thread(self._hasher.update, data)
        self._size += len(data)
        try:
            async for piece in _inflated(self._inflate, data):
                await self._writer.write(piece)
        except OrlopError as error:
            await self._fail(error)

    async def close(self) -> None:
        async with self._stack:
            if self._failure is None:
                await self._commit()

    async def _commit(self) -> None:
        try:
            self._inflate.finish()
            info = await self._writer.commit()
        except OrlopError as error:
            await self._fail(error)
        else:
            digest = Digest(f"sha256:{self._hasher.hexdigest()}")
            self._archive.layers[self._path] = StoredLayer(digest, self._size, info.diff_id)

    async def abandon(self) -> None:
        await self._stack.aclose()

    async def _fail(self, error: OrlopError) -> None:
        if error.kind is not Kind.INVALID and not isinstance(error, NotFound):
            raise error
        self._failure = error
        self._archive.layers[self._path] = error


def _digest_of_path(path: str) -> Digest | None:
    """The digest that a path of an OCI layout promises."""
    folder, _, name = path.rpartition("/")
    try:
        return parse_digest(f"{posixpath.basename(folder)}:{name}") if folder.startswith("blobs/") else None
    except InvalidDigest:
        return None
