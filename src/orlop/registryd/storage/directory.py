"""A registry in one directory: the store's database and blobs, with rows for repositories.

    state.db                    repositories, links, manifests, tags, and the store's own rows
    blobs/<algorithm>/<hex>     every blob and manifest, once
    ingest/                     uploads under way

Write order of a blob: bytes synced, renamed, directory synced, row of the blob, row of the link. Of a
manifest: the same for its bytes, then row, references and tags in one transaction. A crash leaves
uploads that can go on, and bytes without a row or rows without a link, which collection takes away.
The engine's own data root has the same layout: there, layers that the engine keeps compressed and the
registry's blobs are the same files. Crash table: docs/internals/registry-server.md.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from orlop.aio.scope import Background
from orlop.base import failpoints
from orlop.base.clock import Clock, SystemClock
from orlop.base.errors import InvalidInput, OrlopError, describe_os_error
from orlop.base.ids import LeaseId
from orlop.oci.descriptor import Descriptor
from orlop.oci.digest import Digest, algorithm
from orlop.registryd.documents import MAX_MANIFEST_BYTES, Document
from orlop.registryd.paging import Page
from orlop.registryd.problems import Problem, Word
from orlop.registryd.storage import rows
from orlop.registryd.storage.collecting import RegistryCollector
from orlop.registryd.storage.contract import ManifestRow, Missing, Referrer, Upload
from orlop.registryd.storage.uploads import OpenUploads
from orlop.store.blobs import KIND_BLOB, BlobStore, DigestMismatch, Ingest
from orlop.store.db import DATABASE_NAME, Database, Tx
from orlop.store.files import ensure_directory
from orlop.store.leases import Leases, tx_unhold

__all__ = ["DirectoryStorage", "open_directory"]

_PURPOSE = "registry server"
_LEASE_TTL_S = 10 * 365 * 86_400.0  # of the process; the next one ends it
UPLOAD_TTL_S = 7 * 86_400.0


class DirectoryStorage:
    """See `contract.Storage`; made by `open_directory`, closed by its owner."""

    def __init__(
        self,
        db: Database,
        blobs: BlobStore,
        lease: LeaseId,
        collector: RegistryCollector,
        clock: Clock,
    ) -> None:
        self._db = db
        self._blobs = blobs
        self._lease = lease
        self._clock = clock
        self._collector = collector
        self._uploads = OpenUploads(blobs, lease, clock)
        self._commits = Background("registry-commit")

    async def has_repository(self, name: str) -> bool:
        return await self._db.read(lambda tx: rows.find_repository(tx, name)) is not None

    async def repositories(self, page: Page) -> list[str]:
        return await self._db.read(lambda tx: rows.list_repositories(tx, page))

    # blobs

    async def blob_size(self, name: str, digest: Digest) -> int | None:
        link = await self._db.read(lambda tx: rows.find_link(tx, name, digest))
        if link is None:
            return None
        if not link.is_named and self._collector.is_stale(link.linked_ns):
            # a client that asks before it pushes may rely on the answer
            now_ns = self._clock.now_ns()
            if not await self._db.write(lambda tx: rows.renew_link(tx, name, digest, now_ns)):
                return None
        return link.size_bytes

    def open_blob(self, digest: Digest) -> int:
        return self._blobs.open(digest)

    async def homes_of(self, digest: Digest) -> list[str]:
        return await self._db.read(lambda tx: rows.homes_of(tx, digest))

    async def mount_blob(self, source: str, target: str, digest: Digest) -> bool:
        now_ns = self._clock.now_ns()
        return await self._db.write(lambda tx: rows.mount(tx, source, target, digest, now_ns))

    async def unlink_blob(self, name: str, digest: Digest) -> bool:
        return await self._db.write(lambda tx: rows.unlink(tx, name, digest), frees_space=True)

    # uploads

    async def begin_upload(self, name: str) -> str:
        return await self._uploads.begin(name)

    @asynccontextmanager
    async def upload(self, name: str, upload_id: str) -> AsyncIterator[Upload]:
        async with self._uploads.use(name, upload_id) as ingest:
            yield _BlobUpload(self, name, upload_id, ingest)

    async def commit_upload(self, name: str, upload_id: str, ingest: Ingest, digest: Digest) -> int:
        """Publish an ingest and link it; goes to its end also when the client leaves.

        Half-way an ingest has given its file away and is not a blob yet: nobody could go on from there.
        """
        task = self._commits.spawn(self._commit(name, upload_id, ingest, digest), name=digest)
        try:
            done = await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait([task])
            raise
        if isinstance(done, Exception):
            raise done
        return done

    async def _commit(
        self, name: str, upload_id: str, ingest: Ingest, digest: Digest
    ) -> int | OrlopError | OSError:
        try:
            info = await ingest.commit(digest)
            failpoints.hit("registry.blob.before-link")
            await self._link(name, digest)
        except DigestMismatch as error:
            return Problem(Word.DIGEST_INVALID, error.message, detail={"digest": digest})
        except (OrlopError, OSError) as error:
            return error  # the request's to tell
        failpoints.hit("registry.blob.after-link")
        await self._uploads.forget(name, upload_id)
        return info.size_bytes

    async def discard_upload(self, name: str, upload_id: str, ingest: Ingest) -> None:
        """Drop an ingest."""
        await ingest.discard()
        await self._uploads.forget(name, upload_id)

    # manifests and tags

    async def put_manifest(
        self, name: str, document: Document, tags: Sequence[str], missing: Missing = Missing.NOTHING
    ) -> None:
        await self._store_bytes(document)
        failpoints.hit("registry.manifest.before-row")
        now_ns = self._clock.now_ns()

        def work(tx: Tx) -> None:
            if tx.value("SELECT 1 FROM blob WHERE digest = ?", (document.digest,)) is None:
                raise Problem(Word.UNAVAILABLE, "the manifest was collected while it came in: try again")
            rows.insert_manifest(tx, name, document, tags, now_ns, missing)
            tx_unhold(tx, self._lease, KIND_BLOB, document.digest)

        await self._db.write(work)
        failpoints.hit("registry.manifest.after-row")

    async def size_of_reference(self, name: str, digest: Digest) -> int | None:
        return await self._db.read(lambda tx: rows.size_of_reference(tx, name, digest))

    async def find_manifest(self, name: str, reference: str) -> ManifestRow | None:
        return await self._db.read(lambda tx: rows.find_manifest(tx, name, reference))

    async def read_manifest(self, digest: Digest) -> bytes:
        return await self._blobs.read(digest, MAX_MANIFEST_BYTES)

    async def delete_manifest(self, name: str, digest: Digest) -> bool:
        now_ns = self._clock.now_ns()
        return await self._db.write(
            lambda tx: rows.delete_manifest(tx, name, digest, now_ns), frees_space=True
        )

    async def delete_tag(self, name: str, tag: str) -> bool:
        return await self._db.write(lambda tx: rows.delete_tag(tx, name, tag), frees_space=True)

    async def tags(self, name: str, page: Page) -> list[str]:
        return await self._db.read(lambda tx: rows.list_tags(tx, name, page))

    async def referrers(self, name: str, subject: Digest, artifact_type: str, page: Page) -> list[Referrer]:
        return await self._db.read(lambda tx: rows.list_referrers(tx, name, subject, artifact_type, page))

    # upkeep

    async def close_idle_uploads(self) -> None:
        """Let go of uploads that nobody writes to."""
        await self._uploads.close_idle()

    async def collect(self) -> tuple[int, int]:
        count, freed = await self._collector.run()
        return count, freed + await self._blobs.sweep_ingests(UPLOAD_TTL_S)

    async def close(self) -> None:
        await self._commits.close()
        await self._uploads.close()
        self._db.close()

    async def _store_bytes(self, document: Document) -> None:
        descriptor = Descriptor(document.media_type, document.digest, len(document.data))
        if algorithm(document.digest) == "sha256":
            await self._blobs.put(document.data, self._lease)
            return
        async with self._blobs.ingest(
            f"registry manifest {document.digest}", self._lease, descriptor
        ) as ingest:
            await ingest.restart()
            await ingest.write(document.data)
            await ingest.commit()

    async def _link(self, name: str, digest: Digest) -> None:
        now_ns = self._clock.now_ns()

        def work(tx: Tx) -> bool:
            is_linked = rows.insert_link(tx, name, digest, now_ns)
            tx_unhold(tx, self._lease, KIND_BLOB, digest)
            return is_linked

        if not await self._db.write(work):
            raise Problem(Word.UNAVAILABLE, "the blob was collected while it came in: try again")


class _BlobUpload:
    """One request's view of an upload."""

    def __init__(self, storage: DirectoryStorage, name: str, upload_id: str, ingest: Ingest) -> None:
        self._storage = storage
        self._name = name
        self._id = upload_id
        self._ingest = ingest
        self.write = ingest.write
        self.flush = ingest.flush

    @property
    def offset(self) -> int:
        return self._ingest.offset

    async def commit(self, digest: Digest) -> int:
        return await self._storage.commit_upload(self._name, self._id, self._ingest, digest)

    async def discard(self) -> None:
        await self._storage.discard_upload(self._name, self._id, self._ingest)

    def open_reader(self) -> int:
        return os.open(self._ingest.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)


async def open_directory(
    root: str, *, clock: Clock | None = None, grace_s: float = 86_400.0, removes_untagged: bool = False
) -> DirectoryStorage:
    """Open or make a registry's directory; sweeps what a crash has left.

    The caller holds the lock of the directory: one process at a time.

    Args:
        root: an existing parent, the directory itself is made.
        clock: for tests.
        grace_s: how long blobs without a manifest are kept.
        removes_untagged: collection takes manifests that no tag reaches, too.
    """
    clock = clock or SystemClock()
    _make_root(root)
    db = Database.open(os.path.join(root, DATABASE_NAME))
    blobs = BlobStore(root, db, clock)
    leases = Leases(db, clock)
    for old in await leases.list():
        if old.purpose == _PURPOSE:
            await leases.release(old.id)
    lease = await leases.create(_PURPOSE, _LEASE_TTL_S)
    collector = RegistryCollector(db, blobs, clock, grace_s, removes_untagged=removes_untagged)
    await blobs.sweep()
    return DirectoryStorage(db, blobs, lease, collector, clock)


def _make_root(root: str) -> None:
    try:
        ensure_directory(os.path.abspath(root))
    except OSError as error:
        raise InvalidInput(f'cannot make "{root}": {describe_os_error(error)}') from error
