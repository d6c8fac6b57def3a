"""Blobs: bytes become content only when complete, verified and durable.

Vocabulary: an *ingest* is a write in progress, named by the caller's ref; a *blob* is
immutable and named by its digest. Layout under the data root:

    blobs/<algorithm>/<hex>             a blob (0600)
    ingest/<sha256 of ref>/data         an ingest's bytes so far
    ingest/<sha256 of ref>/state.json   its ref and when it began

Commit order: flush, check size and digest, fsync data, rename, fsync directory, row. A
crash before the rename leaves an ingest that the next caller resumes at its `offset` or
that is swept when it is old; a crash after it leaves bytes without a row, which a later
commit of the same digest replaces and a sweep removes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

from orlop.aio import offload
from orlop.base import failpoints, ids
from orlop.base.clock import Clock, SystemClock
from orlop.base.errors import Kind, NotFound, OrlopError
from orlop.base.ids import LeaseId
from orlop.oci.descriptor import Descriptor
from orlop.oci.digest import Digest, algorithm, digest_of, encoded, new_hasher
from orlop.store.db import Database, Tx
from orlop.store.files import (
    ensure_directory,
    full_or,
    publish_file,
    unlink_sized,
    write_all,
)
from orlop.store.inflight import InFlight
from orlop.store.ingest import (
    CHUNK_BYTES,
    BlobInfo,
    DigestMismatch,
    Ingest,
    IngestBusy,
    SizeMismatch,
    digest_file,
)
from orlop.store.leases import tx_hold

__all__ = [
    "KIND_BLOB",
    "BlobCorrupt",
    "BlobInfo",
    "BlobNotFound",
    "BlobStore",
    "DigestMismatch",
    "Ingest",
    "IngestBusy",
    "SizeMismatch",
    "TooLarge",
]

KIND_BLOB = "blob"
INGEST_TTL_S = 7 * 86_400.0
_ALGORITHMS = ("sha256", "sha512")


class BlobNotFound(NotFound):
    """No blob has this digest."""

    code = "blob-not-found"


class BlobCorrupt(OrlopError):
    """Stored bytes are not what their digest says."""

    kind = Kind.CORRUPT
    code = "blob-corrupt"
    remedy = "remove the image and pull or build it again; orlop fsck tells what else is damaged"


class TooLarge(OrlopError):
    """A document is larger than the caller is willing to read."""

    kind = Kind.INVALID
    code = "too-large"


class BlobStore:
    """The blobs of one data root."""

    def __init__(self, data_root: str, db: Database, clock: Clock | None = None) -> None:
        self._blobs = os.path.join(data_root, "blobs")
        self._ingests = os.path.join(data_root, "ingest")
        self._db = db
        self._clock = clock or SystemClock()
        self._busy: set[str] = set()
        self._in_flight = InFlight()
        for folder in (
            self._blobs,
            self._ingests,
            *(os.path.join(self._blobs, name) for name in _ALGORITHMS),
        ):
            ensure_directory(folder)
        for name in os.listdir(self._ingests):
            if name.startswith("put-"):  # an engine before this one was killed; nothing to resume
                unlink_sized(os.path.join(self._ingests, name))

    @asynccontextmanager
    async def ingest(
        self, ref: str, lease: LeaseId, expected: Descriptor | None = None
    ) -> AsyncIterator[Ingest]:
        """Begin or resume writing a blob.

        Bytes of an earlier attempt under the same `ref` are hashed again from disk and
        counted in `offset`. Leaving the block without `commit` keeps them.

        Raises:
            IngestBusy: the ref is being written already.
        """
        name = _ingest_name(ref)
        if name in self._busy:
            raise IngestBusy(f"{ref!r} is being received already", hint="wait for the other transfer")
        self._busy.add(name)
        try:
            ingest = Ingest(self._publish, os.path.join(self._ingests, name), lease, expected)
            try:
                await offload.thread(ingest.open, ref, self._clock.now_ns())
            except OSError as error:
                raise full_or(error, "the blob store") from error
            try:
                yield ingest
            finally:
                await ingest.close()
        finally:
            self._busy.discard(name)

    def has_ingest(self, ref: str) -> bool:
        """True when a writer of `ref` has begun and neither committed nor discarded it."""
        return os.path.isdir(os.path.join(self._ingests, _ingest_name(ref)))

    async def discard_ingest(self, ref: str) -> None:
        """Forget what an interrupted writer of `ref` has left; nothing is done while somebody writes it."""
        name = _ingest_name(ref)
        if name in self._busy:
            return
        self._busy.add(name)
        try:
            await offload.thread(shutil.rmtree, os.path.join(self._ingests, name), ignore_errors=True)
        finally:
            self._busy.discard(name)

    async def put(self, data: bytes, lease: LeaseId) -> Digest:
        """Store a small document; durable and held by `lease` on return."""
        digest = digest_of(data)
        if await self._known(digest, lease) is not None:
            return digest
        path = os.path.join(self._ingests, f"put-{ids.new_token()}")
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            await offload.thread(write_all, fd, data)
            await self._publish(fd, path, digest, len(data), lease)
        except OSError as error:
            raise full_or(error, "the blob store") from error
        finally:
            os.close(fd)
            unlink_sized(path)
        return digest

    def path(self, digest: Digest) -> str:
        """Where the blob's bytes are or would be."""
        return os.path.join(self._blobs, algorithm(digest), encoded(digest))

    def open(self, digest: Digest) -> int:
        """A read-only fd of the blob; the caller closes it. Raises BlobNotFound."""
        try:
            return os.open(self.path(digest), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError as error:
            raise BlobNotFound(f"blob {digest} is not stored", digest=digest) from error

    async def find(self, digest: Digest) -> BlobInfo | None:
        """The blob, if it is stored."""
        row = await self._db.read(
            lambda tx: tx.execute(
                "SELECT size_bytes, created_ns FROM blob WHERE digest = ?", (digest,)
            ).fetchone()
        )
        return None if row is None else BlobInfo(digest, row[0], row[1])

    async def info(self, digest: Digest) -> BlobInfo:
        """The blob. Raises BlobNotFound."""
        info = await self.find(digest)
        if info is None:
            raise BlobNotFound(f"blob {digest} is not stored", digest=digest)
        return info

    async def hold(self, digest: Digest, lease: LeaseId) -> BlobInfo | None:
        """Find a blob and hold it in one transaction, so that it cannot be collected in between."""

        def work(tx: Tx) -> BlobInfo | None:
            row = tx.execute("SELECT size_bytes, created_ns FROM blob WHERE digest = ?", (digest,)).fetchone()
            if row is None:
                return None
            tx_hold(tx, lease, KIND_BLOB, digest)
            return BlobInfo(digest, row[0], row[1])

        return await self._db.write(work)

    async def read(self, digest: Digest, limit: int) -> bytes:
        """The bytes of a document of at most `limit` bytes, checked against the digest.

        Raises:
            BlobNotFound, TooLarge, BlobCorrupt: as named.
        """
        return await offload.thread(self.read_now, digest, limit)

    def read_now(self, digest: Digest, limit: int) -> bytes:
        """`read` for threads: blocks."""
        fd = self.open(digest)
        try:
            data = bytearray()
            while len(data) <= limit and (chunk := os.read(fd, min(CHUNK_BYTES, limit + 1 - len(data)))):
                data += chunk
        finally:
            os.close(fd)
        if len(data) > limit:
            raise TooLarge(f"blob {digest} has more than {limit} bytes")
        hasher = new_hasher(algorithm(digest))
        hasher.update(data)
        if hasher.hexdigest() != encoded(digest):
            raise BlobCorrupt(f"blob {digest} is damaged", hint="pull the image again", digest=digest)
        return bytes(data)

    async def verify(self, digest: Digest) -> None:
        """Hash the stored bytes. Raises BlobNotFound, BlobCorrupt."""
        fd = self.open(digest)
        os.close(fd)
        found = await offload.thread(digest_file, self.path(digest), algorithm(digest))
        if found != digest:
            raise BlobCorrupt(f"blob {digest} is damaged: its bytes hash to {found}", digest=digest)

    async def restore(self, digest: Digest, data: bytes) -> None:
        """Write the right bytes of a damaged or missing blob that has a row; durable on return."""
        if digest_of(data) != digest:
            raise BlobCorrupt(f"these are not the bytes of blob {digest}", digest=digest)
        path = os.path.join(self._ingests, f"put-{ids.new_token()}")
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            await offload.thread(write_all, fd, data)
            await offload.thread(publish_file, fd, path, self.path(digest), "blobs.commit")
        except OSError as error:
            raise full_or(error, "the blob store") from error
        finally:
            os.close(fd)
            unlink_sized(path)

    async def delete(self, digest: Digest) -> None:
        """Drop a blob whether or not it is held; fine when it is gone."""
        await self._db.write(lambda tx: self.forget(tx, [digest]), frees_space=True)
        await self.sweep([digest])

    # What collection asks of every store: see collect.Resource.

    kind = KIND_BLOB

    def keys(self, tx: Tx) -> Iterable[str]:
        """Every stored digest."""
        return [row[0] for row in tx.execute("SELECT digest FROM blob")]

    def roots(self, tx: Tx) -> Iterable[tuple[str, str]]:  # noqa: ARG002 - the protocol's shape
        """A blob is needed only by those who name it."""
        return ()

    def edges(self, tx: Tx) -> Iterable[tuple[str, tuple[str, str]]]:  # noqa: ARG002
        """A blob needs nothing."""
        return ()

    def forget(self, tx: Tx, keys: Sequence[str]) -> None:
        """Delete rows and what leases hold of them."""
        tx.executemany("DELETE FROM blob WHERE digest = ?", [(key,) for key in keys])
        tx.executemany("DELETE FROM lease_ref WHERE kind = 'blob' AND key = ?", [(key,) for key in keys])

    async def sweep(self, keys: Sequence[str] | None = None) -> int:
        """Unlink the files of digests without a row; returns bytes freed.

        Args:
            keys: which digests; None for all there are, and for ingests that nobody resumed.
        """
        names = await offload.thread(self._stored_digests) if keys is None else keys

        def work(tx: Tx, digest: Digest) -> int:
            if tx.value("SELECT 1 FROM blob WHERE digest = ?", (digest,)) is not None:
                return 0
            return self._in_flight.unless_publishing(digest, lambda: unlink_sized(self.path(digest)))

        freed = await self.sweep_ingests() if keys is None else 0
        for name in names:
            digest = Digest(name)
            if await self.find(digest) is None:
                freed += await self._db.write(lambda tx, digest=digest: work(tx, digest), frees_space=True)  # type: ignore[misc]
        return freed

    async def sweep_ingests(self, older_than_s: float = INGEST_TTL_S) -> int:
        """Remove what interrupted writers left and nobody resumed; returns bytes freed."""
        deadline_ns = self._clock.now_ns() - round(older_than_s * 1e9)
        return await offload.thread(self._sweep_ingests, deadline_ns, frozenset(self._busy))

    async def _publish(self, fd: int, path: str, digest: Digest, size_bytes: int, lease: LeaseId) -> BlobInfo:
        info = BlobInfo(digest, size_bytes, self._clock.now_ns())
        with self._in_flight.publish(digest):
            if (known := await self._known(digest, lease)) is not None:
                return known
            try:
                await offload.thread(publish_file, fd, path, self.path(digest), "blobs.commit")
            except OSError as error:
                raise full_or(error, "the blob store") from error
            failpoints.hit("blobs.commit.before-row")
            await self._db.write(lambda tx: _insert(tx, info, lease))
        failpoints.hit("blobs.commit.after-row")
        return info

    async def _known(self, digest: Digest, lease: LeaseId) -> BlobInfo | None:
        """The blob, now held, unless its row or its file is missing."""
        info = await self.hold(digest, lease)
        is_there = await offload.thread(os.path.exists, self.path(digest))
        return info if is_there else None

    def _stored_digests(self) -> list[str]:
        return [
            f"{name}:{entry}" for name in _ALGORITHMS for entry in os.listdir(os.path.join(self._blobs, name))
        ]

    def _sweep_ingests(self, deadline_ns: int, busy: frozenset[str]) -> int:
        freed = 0
        for name in os.listdir(self._ingests):
            folder = os.path.join(self._ingests, name)
            if name in busy or name.startswith("put-") or os.lstat(folder).st_mtime_ns > deadline_ns:
                continue
            data = os.path.join(folder, "data")
            if os.path.exists(data) and os.lstat(data).st_mtime_ns > deadline_ns:
                continue
            freed += unlink_sized(data)
            shutil.rmtree(folder, ignore_errors=True)
        return freed


def _ingest_name(ref: str) -> str:
    return hashlib.sha256(ref.encode("utf-8", "surrogatepass")).hexdigest()


def _insert(tx: Tx, info: BlobInfo, lease: LeaseId) -> None:
    tx.execute(
        "INSERT OR REPLACE INTO blob VALUES (?, ?, ?)", (info.digest, info.size_bytes, info.created_ns)
    )
    tx_hold(tx, lease, KIND_BLOB, info.digest)
