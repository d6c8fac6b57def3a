"""Names and ids to images; rows, sources and what collection may take."""

import asyncio

import pytest

from orlop.base.errors import NotFound
from orlop.images.model import AmbiguousImage, ImageBroken, ImageNotFound, LayerSource
from orlop.oci.digest import digest_of
from orlop.oci.reference import InvalidReference, parse_reference
from orlop.store.collect import Collector


def test_an_image_is_found_by_name_tag_digest_id_and_prefix(world):
    async def main():
        digest = digest_of(b"a manifest")
        image = await world.add_image("a", "app:1", "app:latest", f"app@{digest}")
        hexed = image.id[7:]
        for text in (
            "app",
            "app:1",
            f"app@{digest}",
            f"app:1@{digest}",
            "docker.io/library/app",
            image.id,
            hexed,
            hexed[:5],
            f"sha256:{hexed[:9]}",
        ):
            assert (await world.images.resolve(text)).id == image.id, text
        return image

    image = asyncio.run(main())

    assert [tag.familiar for tag in image.tags] == ["app:1", "app:latest"]
    assert len(image.repo_digests) == 1
    assert image.size_bytes == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("foo", "No such image: foo:latest"),
        ("foo:bar", "No such image: foo:bar"),
        ("abc123", "No such image: abc123:latest"),
        ("0" * 64, "No such image: sha256:" + "0" * 64),
        ("sha256:" + "0" * 64, "No such image: sha256:" + "0" * 64),
        ("host:5000/x/y", "No such image: host:5000/x/y:latest"),
    ],
)
def test_what_is_not_there_is_named_as_docker_names_it(world, text, message):
    with pytest.raises(ImageNotFound) as caught:
        asyncio.run(world.images.resolve(text))

    assert caught.value.message == message


def test_a_user_of_an_image_is_only_written_while_it_is_there(world):
    async def main():
        image = await world.add_image("a", "app:1")
        await world.db.write(lambda tx: world.images.tx_require(tx, image.id, "app"))
        await world.images.remove(image.id, (), delete=True)
        await world.db.write(lambda tx: world.images.tx_require(tx, image.id, "app"))

    with pytest.raises(ImageNotFound, match="No such image: app"):
        asyncio.run(main())


def test_what_is_no_name_is_refused(world):
    for text in ("", "Foo", "a//b", "../x", "a b"):
        with pytest.raises(InvalidReference):
            asyncio.run(world.images.resolve(text))


def test_ids_of_many_names_leave_out_what_means_nothing(world):
    async def main():
        image = await world.add_image("a", "app:1")
        return image, await world.images.find_ids({"app:1", image.id, "app", "Not a name", "0" * 64})

    image, found = asyncio.run(main())

    assert found == {"app:1": image.id, image.id: image.id}


def test_an_ambiguous_prefix_is_an_error_and_a_name_wins_over_a_prefix(world):
    async def main():
        by_first = {}
        number = 0
        while True:
            image = await world.add_image(f"n{number}")
            number += 1
            if (other := by_first.setdefault(image.id[7], image)) is not image:
                break
        with pytest.raises(AmbiguousImage):
            await world.images.resolve(image.id[7])
        await world.images.tag(other.id, parse_reference(image.id[7:12]))
        assert (await world.images.resolve(image.id[7:12])).id == other.id
        assert (await world.images.resolve(image.id[7:20])).id == image.id

    asyncio.run(main())


def test_a_moved_tag_leaves_the_old_image_without_a_name(world):
    async def main():
        old = await world.add_image("old", "app")
        new = await world.add_image("new", "app")
        assert (await world.images.resolve("app")).id == new.id
        return await world.images.get(old.id), new

    old, new = asyncio.run(main())

    assert old.names == ()
    assert new.tagged_ns > 0


def test_put_is_idempotent_and_adds_names(world):
    async def main():
        first = await world.add_image("same", "one")
        world.clock.advance(-1)
        second = await world.add_image("same", "two")
        return first, second, await world.images.list()

    first, second, everything = asyncio.run(main())

    assert first.id == second.id
    assert [tag.familiar for tag in everything[0].tags] == ["one:latest", "two:latest"]


def test_an_image_keeps_its_bytes_and_nothing_else_is_kept(world):
    async def main():
        collector = Collector(world.db, world.leases, [world.blobs, world.images])
        kept = await world.add_image("kept", "app")
        gone = await world.add_image("gone")
        await world.images.remove(gone.id, (), delete=True)
        reclaimed = await collector.run()
        assert reclaimed.keys == {"blob": (gone.id,)}
        assert await world.blobs.read(kept.id, 10_000) == kept.config.raw
        with pytest.raises(ImageNotFound):
            await world.images.get(gone.id)

    asyncio.run(main())


def test_an_image_with_a_missing_layer_or_a_foreign_manifest_is_refused(world):
    async def main():
        image = await world.add_image("a")
        async with world.leases.hold("test") as lease:
            bad = b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:%s","size":3},"layers":[]}'
            with pytest.raises(ImageBroken):
                await world.images.put(image.config.raw, lease=lease, manifest=bad % (b"0" * 64))
            other = image.config.raw.replace(image.diff_ids[0].encode(), b"sha256:" + b"0" * 64)
            with pytest.raises(NotFound, match="is not stored"):
                await world.images.put(other, lease=lease)

    asyncio.run(main())


def test_sources_are_remembered_latest_first(world):
    layer = digest_of(b"layer")
    first = LayerSource(layer, digest_of(b"gz"), "type", 5, "docker.io/library/a")
    second = LayerSource(layer, digest_of(b"zst"), "type", 4)

    async def main():
        await world.images.record_sources([first])
        world.clock.advance(1)
        await world.images.record_sources([second])
        return await world.images.sources(layer)

    assert asyncio.run(main()) == [second, first]


def test_children_are_those_made_from_an_image(world):
    async def main():
        base = await world.add_image("base")
        child = await world.add_image("child", base=base, parent=base.id)
        return base, child, await world.images.children(base.id)

    base, child, children = asyncio.run(main())

    assert children == [child.id]
    assert child.parent == base.id
    assert child.diff_ids[:1] == base.diff_ids
