"""Save and load: round trips, old and foreign layouts, hostile archives."""

import asyncio
import bz2
import gzip
import hashlib
import io
import json
import lzma
import tarfile

import pytest
import zstandard
from image_world import AMD64, World, chunks, layer_tar

from orlop.base.errors import OrlopError
from orlop.images.importing import import_image
from orlop.images.loading import load
from orlop.images.saving import save, select_images
from orlop.oci.imageconfig import HistoryEntry, RunConfig, derive_config
from orlop.oci.reference import parse_reference

LAYER = layer_tar({"etc/motd": b"hello", "bin/sh": b"x" * 5000})


def sha(data):
    return hashlib.sha256(data).hexdigest()


def config_for(*layers):
    base = None
    raw = b""
    for layer in layers:
        raw = derive_config(
            base,
            run=RunConfig(cmd=("sh",)),
            history=HistoryEntry(1, "step"),
            layer=f"sha256:{sha(layer)}",
            platform=AMD64,
        )
        from orlop.oci.imageconfig import parse_image_config

        base = parse_image_config(raw)
    return raw


def docker_archive(config, layers, tags=("app:1",), **links):
    manifest = [
        {
            "Config": f"{sha(config)}.json",
            "RepoTags": list(tags),
            "Layers": [f"{n}/layer.tar" for n in range(len(layers))],
        }
    ]
    files = {f"{n}/layer.tar": layer for n, layer in enumerate(layers) if layer is not None}
    files |= {f"{n}/VERSION": b"1.0" for n in range(len(layers))}
    files |= {f"{sha(config)}.json": config, "manifest.json": json.dumps(manifest).encode()}
    return layer_tar(files, **links)


def oci_archive(
    config, layers, name="docker.io/library/app:1", media="application/vnd.oci.image.layer.v1.tar+gzip"
):
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": f"sha256:{sha(config)}",
                "size": len(config),
            },
            "layers": [
                {"mediaType": media, "digest": f"sha256:{sha(layer)}", "size": len(layer)} for layer in layers
            ],
        }
    ).encode()
    entry = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": f"sha256:{sha(manifest)}",
        "size": len(manifest),
        "annotations": {"org.opencontainers.image.ref.name": name},
    }
    files = {f"blobs/sha256/{sha(data)}": data for data in (*layers, config, manifest)}
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    files["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
    return layer_tar(files), manifest


async def load_into(world, archive):
    async with world.leases.hold("load") as lease:
        return await load(chunks(archive), world.images, world.layers, lease)


async def saved(world, *names):
    return b"".join([piece async for piece in save(await select_images(world.images, names), world.layers)])


def test_a_saved_archive_loads_elsewhere_with_the_same_ids_and_tags(world, tmp_path_factory):
    async def main():
        base = await world.add_image("base", "base:1")
        top = await world.add_image("top", "app:1", "app:2", base=base)
        archive = await saved(world, "app", base.id)
        assert archive == await saved(world, "app", base.id)
        other = World(tmp_path_factory.mktemp("other"))
        loaded = await load_into(other, archive)
        other.db.close()
        return base, top, loaded

    base, top, loaded = asyncio.run(main())

    assert [(item.image.id, [tag.familiar for tag in item.image.tags]) for item in loaded] == [
        (top.id, ["app:1", "app:2"]),
        (base.id, []),
    ]


def test_a_saved_archive_is_also_an_oci_layout(world, tmp_path_factory):
    async def main():
        image = await world.add_image("top", "app:1")
        source = tarfile.open(fileobj=io.BytesIO(await saved(world, "app:1")))  # noqa: SIM115 - memory
        files = {
            member.name: source.extractfile(member).read()
            for member in source
            if member.isfile() and member.name != "manifest.json"
        }
        other = World(tmp_path_factory.mktemp("other"))
        loaded = await load_into(other, layer_tar(files))
        other.db.close()
        return image, loaded

    image, loaded = asyncio.run(main())

    assert loaded[0].image.id == image.id
    assert [tag.familiar for tag in loaded[0].image.tags] == ["app:1"]


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress, zstandard.compress])
def test_any_compression_of_the_archive_is_read(world, pack):
    config = config_for(LAYER)

    loaded = asyncio.run(load_into(world, pack(docker_archive(config, [LAYER]))))

    assert loaded[0].image.id == f"sha256:{sha(config)}"
    assert loaded[0].image.size_bytes == 5005


def test_old_archives_link_equal_layers_and_compress_others(world):
    config = config_for(LAYER, LAYER)
    archive = docker_archive(config, [gzip.compress(LAYER), None], **{"1__layer.tar": "../0/layer.tar"})

    loaded = asyncio.run(load_into(world, archive))

    assert len(loaded[0].image.diff_ids) == 2


def test_an_oci_archive_keeps_its_manifest_bit_for_bit(world):
    config = config_for(LAYER)
    archive, manifest = oci_archive(config, [gzip.compress(LAYER)])

    async def main():
        loaded = await load_into(world, archive)
        return loaded, await world.blobs.read(loaded[0].image.manifest.digest, 10_000)

    loaded, stored = asyncio.run(main())

    assert [tag.familiar for tag in loaded[0].image.tags] == ["app:1"]
    assert stored == manifest


def test_a_loaded_name_displaces_the_image_that_had_it(world):
    async def main():
        old = await world.add_image("old", "app:1")
        loaded = await load_into(world, docker_archive(config_for(LAYER), [LAYER]))
        return old, loaded

    old, loaded = asyncio.run(main())

    assert loaded[0].displaced == {"app:1": old.id}


def hostile():
    config = config_for(LAYER)
    other = layer_tar({"evil": b"1"})
    good = docker_archive(config, [LAYER])
    lying, _ = oci_archive(config, [gzip.compress(LAYER)])
    yield "not an archive", b"abc"
    yield "nothing", b""
    yield "zeros", bytes(10240)
    yield "no manifest", layer_tar({"file": b"x"})
    yield "layer of another image", docker_archive(config, [other])
    yield "missing layer", docker_archive(config, [None])
    yield "too few layers", docker_archive(config, [])
    yield "layer that is no tar", docker_archive(config, [b"x" * 2000])
    yield (
        "link loop",
        docker_archive(
            config, [None], **{"0__layer.tar": "../1/layer.tar", "1__layer.tar": "../0/layer.tar"}
        ),
    )
    yield "link out", docker_archive(config, [None], **{"0__layer.tar": "/etc/passwd"})
    yield "truncated", good[: len(good) // 2]
    yield "truncated gzip", gzip.compress(good)[:-9]
    yield "garbage behind gzip", gzip.compress(good) + b"garbage"
    yield "two manifests", good[:-10240] + docker_archive(config, [LAYER])
    yield "bad tag", docker_archive(config, [LAYER], tags=("../../etc",))
    yield "tag without tag", docker_archive(config, [LAYER], tags=("app",))
    yield "wrong bytes under a digest", lying.replace(b'"created_by":"step"', b'"created_by":"evil"')
    yield (
        "second image bad",
        layer_tar(
            {
                "c.json": config,
                "l.tar": LAYER,
                "manifest.json": json.dumps(
                    [{"Config": "c.json", "Layers": ["l.tar"]}, {"Config": "gone.json", "Layers": []}]
                ).encode(),
            }
        ),
    )
    deep = b"[" * 100_000
    yield "deep manifest", layer_tar({"manifest.json": deep})
    yield "duplicate keys", layer_tar({"manifest.json": b'[{"Config":"a","Config":"b"}]'})


HOSTILE = dict(hostile())


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_stores_no_image(world, name):
    with pytest.raises(OrlopError):
        asyncio.run(load_into(world, HOSTILE[name]))

    assert asyncio.run(world.images.list()) == []


def test_selecting_what_is_not_there_fails(world):
    with pytest.raises(OrlopError, match="No such image: nothing:latest"):
        asyncio.run(saved(world, "nothing"))


def test_an_import_makes_one_layer_of_any_tar(world):
    async def main():
        async with world.leases.hold("import") as lease:
            return await import_image(
                chunks(gzip.compress(LAYER)),
                world.images,
                world.layers,
                lease,
                run=RunConfig(cmd=("sh",)),
                platform=AMD64,
                created_ns=5,
                message="Imported from -",
                names=[parse_reference("imported")],
            )

    image = asyncio.run(main())

    assert image.diff_ids == (f"sha256:{sha(LAYER)}",)
    assert image.config.run.cmd == ("sh",)
    assert image.config.history[0].comment == "Imported from -"
    assert [tag.familiar for tag in image.tags] == ["imported:latest"]
