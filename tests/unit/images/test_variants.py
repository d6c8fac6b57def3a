"""One name for several platforms."""

import asyncio
import json

import pytest
from image_world import World, add_layer, layer_tar

from orlop.oci.imageconfig import HistoryEntry, RunConfig, derive_config
from orlop.oci.index import parse_index
from orlop.oci.mediatype import OCI_INDEX
from orlop.oci.platform import Platform, host_platform
from orlop.oci.reference import parse_reference

NAME = parse_reference("multi:1")
HOST = host_platform()
OTHER = Platform("linux", "s390x")
THIRD = Platform("linux", "riscv64")


@pytest.fixture
def world(tmp_path):
    opened = World(tmp_path)
    yield opened
    opened.db.close()


def index_bytes(text="one"):
    return json.dumps(
        {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [], "annotations": {"v": text}}
    ).encode()


async def put(world, platform, index="one", name=NAME):
    async with world.leases.hold("test") as lease:
        layer = await add_layer(world.layers, layer_tar({"f": f"{platform}{index}".encode()}), lease)
        config = derive_config(
            None, run=RunConfig(), history=HistoryEntry(1), layer=layer.diff_id, platform=platform
        )
        document = parse_index(index_bytes(index))
        await world.blobs.put(document.raw, lease)
        return await world.images.put(config, lease=lease, index=document.descriptor, names=[name])


def run(body):
    return asyncio.run(body)


def test_the_name_means_the_image_for_this_machine_in_whatever_order_they_come(world):
    async def body():
        for platforms in ((HOST, OTHER, THIRD), (OTHER, HOST, THIRD)):
            name = parse_reference(f"multi:{platforms[0].architecture}")
            made = {platform: await put(world, platform, name=name) for platform in platforms}
            assert (await world.images.resolve(str(name))).id == made[HOST].id
            for platform in platforms:
                assert (await world.images.resolve(str(name), platform)).id == made[platform].id

    run(body())


def test_another_index_takes_the_name_away_from_all(world):
    async def body():
        await put(world, HOST)
        old = await put(world, OTHER)
        new = await put(world, OTHER, "two")

        assert (await world.images.resolve("multi:1")).id == new.id
        assert await world.images.variants(NAME) == []
        assert not (await world.images.get(old.id)).is_named

    run(body())


def test_when_the_first_goes_another_one_takes_its_names(world):
    async def body():
        first, second = await put(world, HOST), await put(world, OTHER)

        await world.images.remove(first.id, (), delete=True)

        found = await world.images.resolve("multi:1")
        assert found.id == second.id
        assert found.tags == (NAME,)
        assert found.variant_names == ()

    run(body())


def test_a_tag_moved_by_hand_leaves_the_variants_behind(world):
    async def body():
        await put(world, HOST)
        await put(world, OTHER)
        alone = await world.add_image("x", "alone:1")

        await world.images.tag(alone.id, NAME)

        assert await world.images.variants(NAME) == []

    run(body())
