import asyncio
import gzip
import json
import os

import pytest
import zstandard
from fake_registry import INDEX, FakeRegistry, Reply, sha256, tar_of
from stores import stores

from orlop.base import failpoints
from orlop.base.errors import OrlopError
from orlop.oci.manifest import UnsupportedManifest
from orlop.oci.platform import Platform, host_platform, parse_platform
from orlop.oci.reference import parse_reference
from orlop.oci.strictjson import MalformedDocument
from orlop.registry.errors import BadRegistry, NotOnRegistry
from orlop.store.blobs import DigestMismatch
from orlop.store.compress import BadCompression, CompressionMismatch
from orlop.store.db import StoreFull
from orlop.transfer import layers
from orlop.transfer.progress import to_message
from orlop.transfer.pull import NoMatchingPlatform, PullRequest

ARCH = host_platform().architecture
ONE, TWO = tar_of(one=b"1" * 5000), tar_of(two=b"2" * 5000)
LARGE = tar_of(large=os.urandom(4 << 20))


def request(fake, name="app:1", **more):
    return PullRequest(parse_reference(f"{fake.domain}/{name}"), **more)


def run(tmp_path, body):
    async def main():
        async with FakeRegistry() as fake, stores(tmp_path, fake) as here:
            return await body(fake, here)

    return asyncio.run(main())


def refused(tmp_path, prepare, expected, match=None, **more):
    """A pull that fails and leaves no image, no layer and nothing to resume."""

    async def body(fake, here):
        prepare(fake)
        with pytest.raises(expected, match=match):
            await here.puller.fetch(request(fake, **more))
        return await here.images.list(), here.files("layers"), here.files("staging"), here.partial_bytes()

    assert run(tmp_path, body) == ([], {}, {}, 0)


def blob_gets(fake, digest):
    return fake.calls("GET", f"/blobs/{digest}")


def test_a_pull_tells_what_docker_tells_and_keeps_every_byte(tmp_path):
    async def body(fake, here):
        top = fake.add_image("app", "1", [ONE, TWO], arch=ARCH)
        told = [to_message(p) async for p in here.puller.pull(request(fake))]
        image = await here.images.resolve(f"{fake.domain}/app:1")
        manifest = await here.blobs.read(image.manifest.digest, 1 << 20)
        tars = []
        for diff_id in image.diff_ids:
            fd, start, size = here.layers.open(diff_id)
            tars.append(os.pread(fd, size, start))
            os.close(fd)
        sources = await here.images.sources(image.diff_ids[0])
        return fake, top, told, image, manifest, tars, sources, here.files("blobs"), here.files("ingest")

    fake, top, told, image, manifest, tars, sources, blobs, ingests = run(tmp_path, body)

    assert told[0] == {"status": "Pulling from app", "id": "1"}
    assert told[-2:] == [
        {"status": f"Digest: {top['digest']}"},
        {"status": f"Status: Downloaded newer image for {fake.domain}/app:1"},
    ]
    short = sha256(gzip.compress(ONE, mtime=0))[7:19]
    statuses = [message["status"] for message in told if message.get("id") == short]
    assert statuses == [
        "Pulling fs layer",
        "Downloading",
        "Verifying Checksum",
        "Download complete",
        "Extracting",
        "Pull complete",
    ]
    assert manifest == fake.manifests["app", "1"][1]
    assert image.config.raw == fake.blobs[image.id]
    assert tars == [ONE, TWO]
    assert [str(name) for name in image.repo_digests] == [f"{fake.domain}/app@{top['digest']}"]
    assert sources[0].repository == f"{fake.domain}/app"
    assert len(blobs) == 2  # config and manifest: no compressed layer stays
    assert ingests == {}


def test_the_same_tag_again_costs_one_head(tmp_path):
    async def body(fake, here):
        fake.add_image("app", "1", [ONE], arch=ARCH)
        await here.puller.fetch(request(fake))
        fake.log.clear()
        told = [p.status async for p in here.puller.pull(request(fake))]
        return [call.method for call in fake.log], told[-1]

    methods, last = run(tmp_path, body)

    assert methods == ["HEAD"]
    assert last.startswith("Status: Image is up to date for")


def test_a_moved_tag_brings_the_new_image_and_shares_layers(tmp_path):
    async def body(fake, here):
        fake.add_image("app", "1", [ONE], arch=ARCH)
        old = await here.puller.fetch(request(fake))
        fake.add_image("app", "1", [ONE, TWO], arch=ARCH)
        told = [p.status async for p in here.puller.pull(request(fake))]
        new = await here.images.resolve(f"{fake.domain}/app:1")
        return old.id != new.id, told, len(blob_gets(fake, sha256(gzip.compress(ONE, mtime=0))))

    changed, told, gets = run(tmp_path, body)

    assert changed
    assert "Already exists" in told
    assert gets == 1


def test_a_digest_pulls_without_a_tag(tmp_path):
    async def body(fake, here):
        top = fake.add_image("app", "1", [ONE], arch=ARCH)
        image = await here.puller.fetch(request(fake, f"app@{top['digest']}"))
        return image.tags, image.repo_digests[0].digest == top["digest"]

    assert run(tmp_path, body) == ((), True)


def test_an_index_gives_the_platform_that_was_asked_for(tmp_path):
    async def body(fake, here):
        entries = [
            {
                **fake.add_image("app", f"x{arch}", [ONE], arch=arch),
                "platform": {"architecture": arch, "os": "linux"},
            }
            for arch in ("s390x", "riscv64", ARCH)
        ]
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
        top = fake.add_manifest("app", "1", index, INDEX)
        native = await here.puller.fetch(request(fake))
        other = await here.puller.fetch(request(fake, platform=parse_platform("linux/s390x")))
        kept = await here.blobs.read(top["digest"], 1 << 20)
        with pytest.raises(NoMatchingPlatform) as failure:
            await here.puller.fetch(request(fake, platform=Platform("linux", "mips")))
        return native, other, kept == fake.manifests["app", "1"][1], failure.value

    native, other, is_kept, failure = run(tmp_path, body)

    assert native.config.platform.architecture == ARCH
    assert other.config.platform.architecture == "s390x"
    assert is_kept
    assert failure.message == "no matching manifest for linux/mips in the manifest list entries"
    assert "riscv64" in failure.hint


def test_an_index_of_indexes_ends(tmp_path):
    def prepare(fake):
        below = fake.add_image("app", "0", [ONE], arch=ARCH)
        for depth in range(6):
            index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [below]}
            below = fake.add_manifest("app", "1", index | {"annotations": {"n": str(depth)}}, INDEX)

    refused(tmp_path, prepare, BadRegistry, "without end")


def with_manifest(change):
    """An image whose manifest is edited by `change(document, fake)` and stored under the tag."""

    def prepare(fake):
        fake.add_image("app", "1", [ONE], arch=ARCH)
        media_type, data = fake.manifests["app", "1"]
        document = json.loads(data)
        change(document, fake)
        fake.add_manifest("app", "1", document, media_type)

    return prepare


def test_images_that_are_none_are_refused(tmp_path):
    def foreign(document, fake):
        document["layers"][0]["mediaType"] = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
        document["layers"][0]["urls"] = ["http://169.254.169.254/x"]

    def artifact(document, fake):
        document["config"]["mediaType"] = "application/vnd.example+json"

    def odd_layer(document, fake):
        document["layers"][0]["mediaType"] = "application/x-evil"

    def too_few(document, fake):
        document["layers"] = []

    def big_config(document, fake):
        document["config"]["size"] = 1 << 40

    for change, text in [
        (foreign, "foreign layer"),
        (artifact, "artifact"),
        (odd_layer, "unsupported type"),
        (too_few, "0 layers"),
        (big_config, "config of"),
    ]:
        refused(tmp_path, with_manifest(change), UnsupportedManifest, text)


def test_documents_that_contradict_themselves_are_refused(tmp_path):
    def both(document, fake):
        document["manifests"] = []

    def other_type(document, fake):
        document["mediaType"] = INDEX

    for change in (both, other_type):
        refused(tmp_path, with_manifest(change), MalformedDocument)
    refused(tmp_path, lambda fake: fake.add_manifest("app", "1", b'{"a":1,"a":2}'), MalformedDocument)


def test_layers_that_are_not_what_was_promised_leave_nothing(tmp_path):
    def other_bytes(fake):
        fake.add_image("app", "1", [ONE], arch=ARCH)
        digest = sha256(gzip.compress(ONE, mtime=0))
        evil = bytearray(fake.blobs[digest])
        evil[20] ^= 1
        fake.blobs[digest] = bytes(evil)

    def other_tar(fake):
        fake.add_image("app", "1", [ONE], arch=ARCH, pack=lambda _: gzip.compress(TWO, mtime=0))

    def truncated(fake):
        fake.add_image("app", "1", [ONE], arch=ARCH, pack=lambda tar: gzip.compress(tar)[:-10])

    def trailing(fake):
        fake.add_image("app", "1", [ONE], arch=ARCH, pack=lambda tar: gzip.compress(tar) + b"evil evil")

    def mislabelled(fake):
        fake.add_image("app", "1", [ONE], arch=ARCH, pack=zstandard.compress)

    def no_tar(fake):
        fake.add_image("app", "1", [b"no tar at all, but long enough" * 100], arch=ARCH)

    for prepare, expected in [
        (other_bytes, DigestMismatch),
        (other_tar, DigestMismatch),
        (truncated, BadCompression),
        (trailing, BadCompression),
        (mislabelled, CompressionMismatch),
        (no_tar, OrlopError),
    ]:
        refused(tmp_path, prepare, expected)


def test_a_config_with_other_bytes_is_refused(tmp_path):
    def prepare(fake):
        fake.add_image("app", "1", [ONE], arch=ARCH)
        digest = json.loads(fake.manifests["app", "1"][1])["config"]["digest"]
        fake.blobs[digest] = fake.blobs[digest].replace(b"linux", b"xunil")

    refused(tmp_path, prepare, BadRegistry)


def test_a_bomb_stops_at_the_free_space(tmp_path, monkeypatch):
    monkeypatch.setattr(layers, "_free_bytes", lambda _: 1 << 20)

    refused(
        tmp_path,
        lambda fake: fake.add_image("app", "1", [tar_of(a=bytes(50 << 20))], arch=ARCH),
        StoreFull,
    )


def test_zstd_and_plain_layers_are_taken(tmp_path):
    async def body(fake, here):
        oci = "application/vnd.oci.image.layer.v1.tar"
        fake.add_image("app", "1", [ONE], arch=ARCH, pack=zstandard.compress, layer_type=oci + "+zstd")
        fake.add_image("app", "2", [TWO], arch=ARCH, pack=bytes, layer_type=oci)
        await here.puller.fetch(request(fake))
        await here.puller.fetch(request(fake, "app:2"))
        return sorted(info.size_bytes for info in await here.layers.list())

    assert run(tmp_path, body) == [len(ONE), len(TWO)]


def cutting(fake, digest, after, times):
    """Cut the first answers for a blob after so many bytes."""
    left = [times]

    async def hook(incoming):
        if digest not in incoming.target or not left[0]:
            return None
        left[0] -= 1
        reply = fake.behave(incoming)
        return Reply(reply.status, reply.body, reply.headers, cut_after=after)

    fake.hooks.append(hook)


def test_a_pull_goes_on_where_another_engine_ended(tmp_path):
    async def main():
        async with FakeRegistry() as fake:
            fake.add_image("app", "1", [LARGE], arch=ARCH)
            fake.add_image("again", "1", [LARGE], arch=ARCH)
            digest = sha256(gzip.compress(LARGE, mtime=0))
            cutting(fake, digest, 1 << 20, 1)
            cutting(fake, digest, 0, 2)
            async with stores(tmp_path, fake) as here:
                with pytest.raises(OrlopError, match="closed the connection"):
                    await here.puller.fetch(request(fake))
                kept = here.partial_bytes()
            fake.log.clear()
            async with stores(tmp_path, fake) as here:
                await here.puller.fetch(request(fake, "again:1"))
                left = here.partial_bytes()
            return kept, left, [call.headers.get("range") for call in blob_gets(fake, digest)]

    kept, left, ranges = asyncio.run(main())

    assert (kept, left) == (1 << 20, 0)
    assert ranges == [f"bytes={1 << 20}-"]


def test_a_damaged_partial_layer_is_dropped_and_fetched_again(tmp_path):
    async def body(fake, here):
        fake.add_image("app", "1", [LARGE], arch=ARCH)
        digest = sha256(gzip.compress(LARGE, mtime=0))
        async with here.leases.hold("test") as lease, here.blobs.ingest(f"layer {digest}", lease) as ingest:
            await ingest.write(b"x" * 5000)
        await here.puller.fetch(request(fake))
        return [call.headers.get("range") for call in blob_gets(fake, digest)]

    assert run(tmp_path, body) == ["bytes=5000-", None]


def test_concurrent_pulls_share_a_transfer(tmp_path):
    async def body(fake, here):
        fake.add_image("app", "1", [LARGE], arch=ARCH)
        fake.add_image("app", "2", [LARGE, ONE], arch=ARCH)
        told = await asyncio.gather(*(statuses(here, request(fake, f"app:{n}")) for n in (1, 2, 1)))
        return (
            told,
            len(blob_gets(fake, sha256(gzip.compress(LARGE, mtime=0)))),
            len(await here.images.list()),
        )

    async def statuses(here, one):
        return [p.status async for p in here.puller.pull(one)]

    told, gets, images = run(tmp_path, body)

    assert (gets, images) == (1, 2)
    assert all("Pull complete" in one for one in told)


def test_a_pull_that_is_closed_early_keeps_what_it_has(tmp_path):
    async def body(fake, here):
        fake.add_image("app", "1", [LARGE], arch=ARCH)
        slow = asyncio.Event()

        async def stop_in_the_middle(incoming):
            if (
                "/blobs/" not in incoming.target
                or sha256(gzip.compress(LARGE, mtime=0)) not in incoming.target
            ):
                return
            incoming.writer.write(fake.behave(incoming).encode("GET")[: 2 << 20])
            await slow.wait()

        fake.hooks.append(stop_in_the_middle)
        pulling = here.puller.pull(request(fake))
        async for progress in pulling:
            if progress.status == "Downloading" and progress.current:
                break
        await pulling.aclose()
        slow.set()
        return here.partial_bytes() > 0, here.files("staging"), await here.images.list()

    assert run(tmp_path, body) == (True, {}, [])


def test_a_layer_named_twice_is_fetched_once(tmp_path):
    async def body(fake, here):
        fake.add_image("app", "1", [ONE, TWO, ONE], arch=ARCH)
        image = await here.puller.fetch(request(fake))
        return len(image.diff_ids), len(blob_gets(fake, sha256(gzip.compress(ONE, mtime=0))))

    assert run(tmp_path, body) == (3, 1)


def test_every_tag_can_be_pulled(tmp_path):
    async def body(fake, here):
        for tag in ("1", "2"):
            fake.add_image("app", tag, [ONE], arch=ARCH, author=tag)
        bare = PullRequest(parse_reference(f"{fake.domain}/app"))
        _ = [p async for p in here.puller.pull_all_tags(bare)]
        return sorted(tag.tag for image in await here.images.list() for tag in image.tags)

    assert run(tmp_path, body) == ["1", "2"]


async def collect(values, told):
    async for progress in values:
        told.append(progress)


def test_nothing_is_told_before_the_manifest_is_there(tmp_path):
    async def body(fake, here):
        told = []
        with pytest.raises(NotOnRegistry, match=r"manifest for .*/app:1 not found: manifest unknown"):
            await collect(here.puller.pull(request(fake)), told)
        return told

    assert run(tmp_path, body) == []


@pytest.mark.parametrize("name", ["pull.blob.fetched", "pull.layer.committed", "pull.before-image-row"])
def test_a_failure_at_any_step_is_repaired_by_the_next_pull(tmp_path, name):
    async def body(fake, here):
        fake.add_image("app", "1", [ONE, TWO], arch=ARCH)
        failpoints.configure(f"{name}=error")
        try:
            with pytest.raises(OSError, match=name):
                await here.puller.fetch(request(fake))
        finally:
            failpoints.configure("")
        before = await here.images.list()
        await here.puller.fetch(request(fake))
        return before, len(await here.images.list()), here.files("staging")

    assert run(tmp_path, body) == ([], 1, {})
