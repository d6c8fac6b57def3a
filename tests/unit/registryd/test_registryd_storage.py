"""The directory keeps the contract of storages; grace and what collection takes."""

import asyncio
import contextlib

import pytest

from fakes.registry_storage import StorageContract, document, push
from orlop.base.clock import ManualClock
from orlop.base.errors import OrlopError
from orlop.oci.digest import digest_of
from orlop.registryd.storage.directory import open_directory
from support.registryd import manifest_of


@contextlib.asynccontextmanager
async def directory(path, **options):
    storage = await open_directory(str(path), **options)
    try:
        yield storage
    finally:
        await storage.close()


class TestDirectory(StorageContract):
    @pytest.fixture(autouse=True)
    def _place(self, tmp_path):
        self.path = tmp_path / "registry"

    def opened(self):
        return directory(self.path, grace_s=0)


def test_an_unused_blob_goes_when_its_grace_is_over(tmp_path):
    clock = ManualClock()

    async def work():
        async with directory(tmp_path / "r", clock=clock, grace_s=100) as storage:
            digest = await push(storage, "a", b"unused")
            clock.advance(99)
            await storage.collect()
            assert await storage.blob_size("a", digest) == 6  # who asks may rely on it for another grace
            clock.advance(99)
            await storage.collect()
            assert (await storage.homes_of(digest)) == ["a"]
            clock.advance(2)
            count, freed = await storage.collect()
            assert await storage.homes_of(digest) == []
            assert (count, freed > 0) == (2, True)
            with pytest.raises(OrlopError):
                storage.open_blob(digest)

    asyncio.run(work())


def test_grace_counts_over_a_start(tmp_path):
    clock = ManualClock()

    async def work():
        async with directory(tmp_path / "r", clock=clock, grace_s=100) as storage:
            asked = await push(storage, "a", b"asked for")
            unused = await push(storage, "a", b"unused")
            clock.advance(90)
            assert await storage.blob_size("a", asked) == 9
        clock.advance(90)
        async with directory(tmp_path / "r", clock=clock, grace_s=100) as storage:
            await storage.collect()
            assert await storage.homes_of(asked) == ["a"]
            assert await storage.homes_of(unused) == []

    asyncio.run(work())


def test_what_a_deleted_manifest_named_can_be_named_again_for_a_while(tmp_path):
    clock = ManualClock()

    async def work():
        async with directory(tmp_path / "r", clock=clock, grace_s=100) as storage:
            await push(storage, "a", b"{}")
            made = document(manifest_of(b"{}"))
            await storage.put_manifest("a", made, [])
            clock.advance(1000)
            await storage.delete_manifest("a", made.digest)
            clock.advance(99)
            await storage.collect()
            await storage.put_manifest("a", made, ["x"])
            clock.advance(1000)
            await storage.collect()
            assert await storage.blob_size("a", made.blobs[0].digest) == 2

    asyncio.run(work())


def test_bytes_stay_while_any_repository_sees_them(tmp_path):
    clock = ManualClock()

    async def work():
        async with directory(tmp_path / "r", clock=clock, grace_s=10) as storage:
            for name in ("a", "b"):
                await push(storage, name, b"{}")
            made = document(manifest_of(b"{}"))
            await storage.put_manifest("a", made, ["x"])
            clock.advance(100)
            await storage.collect()
            assert await storage.homes_of(made.blobs[0].digest) == ["a"]
            await storage.delete_manifest("a", made.digest)
            clock.advance(100)
            await storage.collect()
            assert await storage.homes_of(made.blobs[0].digest) == []
            assert not list((tmp_path / "r" / "blobs" / "sha256").iterdir())

    asyncio.run(work())


def test_an_idle_upload_is_let_go_and_goes_on(tmp_path):
    clock = ManualClock()

    async def work():
        async with directory(tmp_path / "r", clock=clock) as storage:
            upload_id = await storage.begin_upload("a")
            async with storage.upload("a", upload_id) as upload:
                await upload.write(b"first ")
            clock.advance(61)
            await storage.close_idle_uploads()
            assert not storage._uploads._sessions
            async with storage.upload("a", upload_id) as upload:
                assert upload.offset == 6
                await upload.write(b"second")
                assert await upload.commit(digest_of(b"first second")) == 12

    asyncio.run(work())


def test_a_commit_goes_to_its_end_when_the_client_leaves(tmp_path):
    async def work():
        for turns in range(12):  # cancelled at every step of the commit, one after the other
            async with directory(tmp_path / f"r{turns}") as storage:
                digest = digest_of(b"data")
                upload_id = await storage.begin_upload("a")

                pushed = asyncio.Event()

                async def push(storage=storage, upload_id=upload_id, digest=digest, pushed=pushed):
                    async with storage.upload("a", upload_id) as upload:
                        await upload.write(b"data")
                        pushed.set()
                        await upload.commit(digest)

                task = asyncio.create_task(push())
                await pushed.wait()
                for _ in range(turns):
                    await asyncio.sleep(0.0005)
                task.cancel()
                await asyncio.wait([task])

                is_there = await storage.blob_size("a", digest) == 4
                if not is_there:
                    async with storage.upload("a", upload_id) as upload:
                        assert upload.offset == 4
                        await upload.commit(digest)
                assert await storage.blob_size("a", digest) == 4

    asyncio.run(work())
