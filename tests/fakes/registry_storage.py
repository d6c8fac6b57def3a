"""What every storage of the registry server must do: a suite over `opened`, an async context of a Storage."""

from __future__ import annotations

import asyncio
import json
import os

import pytest

from orlop.oci.digest import Digest
from orlop.registryd.documents import digest_as, parse_manifest_document
from orlop.registryd.paging import Page
from orlop.registryd.problems import Problem, Word
from orlop.registryd.storage.contract import Missing
from support.registryd import OCI_CONFIG, OCI_MANIFEST, manifest_of

ALL = Page(1000, "")


def document(data: bytes, algorithm: str = "sha256"):
    return parse_manifest_document(data, "", digest_as(algorithm, data))


async def push(storage, name: str, data: bytes, algorithm: str = "sha256") -> Digest:
    digest = digest_as(algorithm, data)
    async with storage.upload(name, await storage.begin_upload(name)) as upload:
        await upload.write(data)
        await upload.commit(digest)
    return digest


def bytes_of(storage, digest: Digest) -> bytes:
    with open(storage.open_blob(digest), "rb") as file:
        return file.read()


class StorageContract:
    """Subclass it and give `opened()`."""

    def opened(self):
        raise NotImplementedError

    def run(self, work):
        async def main():
            async with self.opened() as storage:
                await work(storage)

        asyncio.run(main())

    @pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
    def test_a_blob_is_seen_where_it_was_pushed(self, algorithm):
        async def work(storage):
            digest = await push(storage, "a", b"data", algorithm)

            assert await storage.blob_size("a", digest) == 4
            assert await storage.blob_size("b", digest) is None
            assert bytes_of(storage, digest) == b"data"
            assert await storage.homes_of(digest) == ["a"]
            assert await storage.has_repository("a")
            assert not await storage.has_repository("b")

        self.run(work)

    def test_pushing_twice_and_unlinking(self):
        async def work(storage):
            digest = await push(storage, "a", b"data")
            await push(storage, "a", b"data")

            assert await storage.unlink_blob("a", digest)
            assert not await storage.unlink_blob("a", digest)
            assert await storage.blob_size("a", digest) is None

        self.run(work)

    def test_a_mount_needs_its_source(self):
        async def work(storage):
            digest = await push(storage, "a", b"data")

            assert not await storage.mount_blob("b", "c", digest)
            assert await storage.mount_blob("a", "c", digest)
            await storage.unlink_blob("a", digest)
            assert await storage.blob_size("c", digest) == 4

        self.run(work)

    def test_an_upload_over_many_requests(self):
        async def work(storage):
            parts = [os.urandom(700_000) for _ in range(3)]
            upload_id = await storage.begin_upload("a")
            for part in parts:
                async with storage.upload("a", upload_id) as upload:
                    await upload.write(part)
                    await upload.flush()
            digest = digest_as("sha256", b"".join(parts))
            async with storage.upload("a", upload_id) as upload:
                assert upload.offset == 2_100_000
                reader = upload.open_reader()
                assert os.pread(reader, 10, 700_000) == parts[1][:10]
                os.close(reader)
                assert await upload.commit(digest) == 2_100_000
            assert bytes_of(storage, digest) == b"".join(parts)
            await self.refuses_upload(storage, "a", upload_id)

        self.run(work)

    async def refuses_upload(self, storage, name, upload_id):
        with pytest.raises(Problem) as caught:
            async with storage.upload(name, upload_id):
                pass
        assert caught.value.word is Word.BLOB_UPLOAD_UNKNOWN

    def test_uploads_that_are_unknown_discarded_or_anothers(self):
        async def work(storage):
            upload_id = await storage.begin_upload("a")
            await self.refuses_upload(storage, "a", "0" * 32)
            await self.refuses_upload(storage, "b", upload_id)
            async with storage.upload("a", upload_id) as upload:
                await upload.write(b"x")
                await upload.discard()
            await self.refuses_upload(storage, "a", upload_id)

        self.run(work)

    def test_a_wrong_digest_makes_no_blob(self):
        async def work(storage):
            promised = digest_as("sha256", b"promised")
            async with storage.upload("a", await storage.begin_upload("a")) as upload:
                await upload.write(b"other")
                with pytest.raises(Problem) as caught:
                    await upload.commit(promised)
            assert caught.value.word is Word.DIGEST_INVALID
            assert await storage.blob_size("a", promised) is None

        self.run(work)

    def test_two_requests_for_one_upload_take_turns(self):
        async def work(storage):
            upload_id = await storage.begin_upload("a")

            async def append(part):
                async with storage.upload("a", upload_id) as upload:
                    before = upload.offset
                    await upload.write(part)
                    await upload.flush()
                    assert upload.offset == before + len(part)

            await asyncio.gather(*(append(b"x" * 1000) for _ in range(5)))
            async with storage.upload("a", upload_id) as upload:
                assert upload.offset == 5000

        self.run(work)

    @pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
    def test_a_manifest_with_tags(self, algorithm):
        async def work(storage):
            await push(storage, "a", b"{}")
            made = document(manifest_of(b"{}"), algorithm)
            await storage.put_manifest("a", made, ["x", "y"])

            for reference in (made.digest, "x", "y"):
                row = await storage.find_manifest("a", reference)
                assert (row.digest, row.media_type, row.size_bytes) == (
                    made.digest,
                    OCI_MANIFEST,
                    len(made.data),
                )
            assert await storage.read_manifest(made.digest) == made.data
            assert await storage.find_manifest("b", "x") is None
            assert await storage.size_of_reference("a", digest_as("sha256", b"{}")) == 2
            assert await storage.delete_tag("a", "x")
            assert not await storage.delete_tag("a", "x")
            assert await storage.tags("a", ALL) == ["y"]
            assert await storage.delete_manifest("a", made.digest)
            assert not await storage.delete_manifest("a", made.digest)
            assert await storage.tags("a", ALL) == []

        self.run(work)

    def test_a_manifest_is_stored_whole_or_not_at_all(self):
        async def work(storage):
            await push(storage, "a", b"{}")
            incomplete = document(manifest_of(b"{}", b"missing layer"))
            with pytest.raises(Problem) as caught:
                await storage.put_manifest("a", incomplete, ["x"])

            assert caught.value.word is Word.MANIFEST_BLOB_UNKNOWN
            assert await storage.find_manifest("a", incomplete.digest) is None
            assert await storage.tags("a", ALL) == []
            await storage.put_manifest("a", incomplete, ["x"], Missing.ANY)
            assert await storage.tags("a", ALL) == ["x"]

        self.run(work)

    def test_an_index_needs_its_manifests_in_the_same_repository(self):
        async def work(storage):
            for name in ("a", "b"):
                await push(storage, name, b"{}")
            child = document(manifest_of(b"{}"))
            await storage.put_manifest("a", child, [])
            entry = {"mediaType": OCI_MANIFEST, "digest": child.digest, "size": len(child.data)}
            kind = "application/vnd.oci.image.index.v1+json"
            index = document(
                json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": [entry]}).encode()
            )

            await storage.put_manifest("a", index, ["all"])
            with pytest.raises(Problem):
                await storage.put_manifest("b", index, ["all"])

        self.run(work)

    def test_lists_are_ordered_and_paged(self):
        async def work(storage):
            await push(storage, "b/c", b"{}")
            await push(storage, "a", b"{}")
            await storage.put_manifest("a", document(manifest_of(b"{}")), ["t2", "t10", "T1"])

            assert await storage.repositories(ALL) == ["a", "b/c"]
            assert await storage.repositories(Page(1, "")) == ["a"]
            assert await storage.repositories(Page(5, "a")) == ["b/c"]
            assert await storage.tags("a", ALL) == ["T1", "t10", "t2"]
            assert await storage.tags("a", Page(1, "T1")) == ["t10"]
            assert await storage.tags("none", ALL) == []

        self.run(work)

    def test_referrers(self):
        async def work(storage):
            await push(storage, "a", b"{}")
            subject = {"mediaType": OCI_MANIFEST, "digest": digest_as("sha256", b"not here"), "size": 8}
            about = document(manifest_of(b"{}", subject=subject, annotations={"k": "ü"}))
            typed = document(manifest_of(b"{}", subject=subject, artifactType="a/b"))
            for made in (about, typed):
                await storage.put_manifest("a", made, [])

            found = await storage.referrers("a", subject["digest"], "", ALL)
            assert [entry.digest for entry in found] == sorted([about.digest, typed.digest])
            by_digest = {entry.digest: entry for entry in found}
            assert by_digest[about.digest].artifact_type == OCI_CONFIG
            assert by_digest[about.digest].annotations == {"k": "ü"}
            some = await storage.referrers("a", subject["digest"], "a/b", ALL)
            assert [entry.digest for entry in some] == [typed.digest]
            assert await storage.referrers("b", subject["digest"], "", ALL) == []
            await storage.delete_manifest("a", typed.digest)
            assert await storage.referrers("a", subject["digest"], "a/b", ALL) == []

        self.run(work)

    def test_collection_leaves_what_is_needed(self):
        async def work(storage):
            layer = await push(storage, "a", b"layer")
            await push(storage, "a", b"{}")
            made = document(manifest_of(b"{}", b"layer"))
            await storage.put_manifest("a", made, [])

            await storage.collect()

            assert bytes_of(storage, layer) == b"layer"
            assert await storage.read_manifest(made.digest) == made.data

        self.run(work)
