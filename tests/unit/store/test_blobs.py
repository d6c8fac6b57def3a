"""Blobs: resumable ingests, idempotent commits, deletes that race with commits."""

import asyncio
import os

import pytest

from orlop.base import failpoints
from orlop.oci.descriptor import Descriptor
from orlop.oci.digest import Digest, digest_of
from orlop.store.blobs import BlobCorrupt, BlobNotFound, DigestMismatch, IngestBusy, SizeMismatch, TooLarge
from orlop.store.db import StoreFull

DATA = b"x" * 3_000_000 + b"end"


@pytest.fixture(autouse=True)
def no_failpoints():
    yield
    failpoints.configure("")


def described(data, digest=None):
    return Descriptor("application/octet-stream", digest or digest_of(data), len(data))


def blob_files(store):
    return sorted(os.listdir(store.root / "blobs" / "sha256"))


def ingest_dirs(store):
    return os.listdir(store.root / "ingest")


def test_an_ingest_resumes_after_a_restart(store):
    async def first():
        lease = await store.leases.create("test")
        async with store.blobs.ingest("ref", lease, described(DATA)) as ingest:
            await ingest.write(DATA[:2_500_000])

    async def second():
        lease = await store.leases.create("test")
        async with store.blobs.ingest("ref", lease, described(DATA)) as ingest:
            offset = ingest.offset
            await ingest.write(DATA[offset:])
            return offset, await ingest.commit()

    asyncio.run(first())
    store.reopen()
    offset, info = asyncio.run(second())

    assert offset == 2_500_000
    assert info.digest == digest_of(DATA)
    assert ingest_dirs(store) == []
    assert os.stat(store.blobs.path(info.digest)).st_mode & 0o777 == 0o600


def test_committing_twice_gives_the_same_blob(store):
    async def main():
        lease = await store.leases.create("test")
        infos = []
        for ref in ("one", "two"):
            async with store.blobs.ingest(ref, lease) as ingest:
                await ingest.write(b"same")
                infos.append(await ingest.commit(digest_of(b"same")))
            store.clock.advance(5)
        return infos

    first, second = asyncio.run(main())

    assert first == second
    assert len(blob_files(store)) == 1


def test_sha512_is_verified_and_stored_under_its_own_name(store):
    import hashlib

    digest = Digest("sha512:" + hashlib.sha512(b"long").hexdigest())

    async def main():
        lease = await store.leases.create("test")
        async with store.blobs.ingest("ref", lease, described(b"long", digest)) as ingest:
            await ingest.write(b"long")
            return await ingest.commit()

    assert asyncio.run(main()).digest == digest
    assert os.path.exists(store.blobs.path(digest))


@pytest.mark.parametrize(
    ("sent", "error"), [(b"other", DigestMismatch), (b"long!", SizeMismatch), (b"lon", SizeMismatch)]
)
def test_wrong_bytes_are_refused_and_dropped(store, sent, error):
    wanted = described(b"right" if error is DigestMismatch else b"long")

    async def main():
        lease = await store.leases.create("test")
        async with store.blobs.ingest("ref", lease, wanted) as ingest:
            with pytest.raises(error):  # noqa: PT012 - either step may notice
                await ingest.write(sent)
                await ingest.commit()
        async with store.blobs.ingest("ref", lease, wanted) as ingest:
            return ingest.offset

    assert asyncio.run(main()) == 0
    assert blob_files(store) == []


def test_one_ref_has_one_writer(store):
    async def main():
        lease = await store.leases.create("test")
        async with store.blobs.ingest("ref", lease):
            with pytest.raises(IngestBusy):
                async with store.blobs.ingest("ref", lease):
                    pass

    asyncio.run(main())


def test_a_full_disk_keeps_the_ingest_for_later(store):
    async def main():
        lease = await store.leases.create("test")
        failpoints.configure("blobs.ingest.write=enospc@2")
        async with store.blobs.ingest("ref", lease) as ingest:
            with pytest.raises(StoreFull):
                await ingest.write(DATA)
        async with store.blobs.ingest("ref", lease) as ingest:
            offset = ingest.offset
            await ingest.write(DATA[offset:])
            return offset, (await ingest.commit()).digest

    assert asyncio.run(main()) == (1 << 20, digest_of(DATA))


@pytest.mark.parametrize("point", ["before-fsync", "before-rename", "after-rename", "before-row"])
def test_a_failure_at_any_boundary_of_a_commit_can_be_repeated(store, point):
    async def main():
        lease = await store.leases.create("test")
        failpoints.configure(f"blobs.commit.{point}=error@1")
        for _ in range(2):
            try:
                async with store.blobs.ingest("ref", lease) as ingest:
                    await ingest.write(b"data"[ingest.offset :])
                    await ingest.commit(digest_of(b"data"))
            except OSError:
                continue
        return await store.blobs.read(digest_of(b"data"), 100)

    assert asyncio.run(main()) == b"data"


def test_documents_are_bounded_and_checked_when_read(store):
    async def main():
        lease = await store.leases.create("test")
        digest = await store.blobs.put(b"document", lease)
        assert await store.blobs.put(b"document", lease) == digest
        with pytest.raises(TooLarge):
            await store.blobs.read(digest, 7)
        with open(store.blobs.path(digest), "r+b") as file:
            file.write(b"D")
        with pytest.raises(BlobCorrupt):
            await store.blobs.read(digest, 8)
        with pytest.raises(BlobCorrupt):
            await store.blobs.verify(digest)
        with pytest.raises(BlobNotFound):
            await store.blobs.read(digest_of(b"none"), 8)

    asyncio.run(main())


def test_sweeping_takes_files_without_a_row_and_spares_those_being_published(store):
    digest = digest_of(b"orphan")

    async def main():
        with open(store.blobs.path(digest), "wb") as file:
            file.write(b"orphan")
        with store.blobs._in_flight.publish(digest):
            assert await store.blobs.sweep() == 0
        lease = await store.leases.create("test")
        kept = await store.blobs.put(b"kept", lease)
        assert await store.blobs.sweep() > 0
        return kept

    kept = asyncio.run(main())

    assert blob_files(store) == [kept.partition(":")[2]]


def test_old_ingests_are_swept_and_young_or_busy_ones_stay(store):
    async def main():
        lease = await store.leases.create("test")
        async with store.blobs.ingest("old", lease) as ingest:
            await ingest.write(b"data")
        async with store.blobs.ingest("busy", lease):
            await store.blobs.sweep_ingests(older_than_s=-10 * 365 * 86_400)

    asyncio.run(main())

    assert len(ingest_dirs(store)) == 1


def test_a_cancelled_writer_leaves_a_resumable_ingest(store):
    async def main():
        lease = await store.leases.create("test")
        failpoints.configure("blobs.ingest.write=delay:50")

        async def send():
            async with store.blobs.ingest("ref", lease) as ingest:
                await ingest.write(DATA)

        task = asyncio.ensure_future(send())
        await asyncio.sleep(0.06)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        failpoints.configure("")
        async with store.blobs.ingest("ref", lease) as ingest:
            offset = ingest.offset
            await ingest.write(DATA[offset:])
            return offset, (await ingest.commit()).digest

    offset, digest = asyncio.run(main())

    assert 0 < offset < len(DATA)
    assert digest == digest_of(DATA)
