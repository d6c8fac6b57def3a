"""Layers from bytes to a mounted tree: commit, crash, deletion, damage, and all three ways to mount."""

import asyncio
import os
import subprocess

import pytest
from store_tars import tar_of

from orlop.base import failpoints
from orlop.oci.digest import Digest, digest_of, encoded
from orlop.store.collect import Collector
from orlop.store.db import StoreFull
from orlop.store.ingest import DigestMismatch
from orlop.store.layerfile import TAR_OFFSET, LayerCorrupt
from orlop.store.layers import LayerNotFound, LayerTooLarge
from orlop.wire.tarheader import TarError

pytestmark = pytest.mark.root

DATA = tar_of(("etc/", b""), ("etc/motd", b"hello\n"), ("bin/tool", b"#!" * 5000))


@pytest.mark.parametrize("way", ["file", "loop", "unpacked"])
def test_a_layer_is_seen_mounted_and_goes_when_deleted(make_store, way):
    store = make_store(way)

    async def scenario():
        info = await store.add(DATA)
        paths = await asyncio.gather(*[store.layers.mount(info.diff_id) for _ in range(5)])
        assert len(set(paths)) == 1
        with open(f"{paths[0]}/etc/motd", "rb") as file:
            assert file.read() == b"hello\n"
        store.reopen()
        assert await store.layers.mount(info.diff_id) == paths[0]
        await store.layers.delete(info.diff_id)
        await store.layers.delete(info.diff_id)
        with pytest.raises(LayerNotFound):
            await store.layers.mount(info.diff_id)
        assert not os.path.exists(paths[0])
        assert os.listdir(store.root / "layers") == []
        again = await store.add(DATA)
        assert os.path.exists(f"{await store.layers.mount(again.diff_id)}/bin/tool")

    asyncio.run(scenario())


def test_the_file_is_the_tar_in_a_frame(store):
    async def scenario():
        info = await store.add(DATA, expected=digest_of(DATA))
        fd, offset, size = store.layers.open(info.diff_id)
        with os.fdopen(fd, "rb") as file:
            assert file.read(TAR_OFFSET)[:5] == b"orlop"
            assert offset == TAR_OFFSET
            assert file.read(size) == DATA
        assert (info.entry_count, info.content_bytes, info.size_bytes) == (3, 10_006, len(DATA))
        assert os.stat(store.layers.path(info.diff_id)).st_mode & 0o777 == 0o600
        await store.layers.verify(info.diff_id)

    asyncio.run(scenario())


def test_committing_twice_and_at_once_gives_one_layer(store):
    async def scenario():
        infos = await asyncio.gather(*[store.add(DATA) for _ in range(4)])
        again = await store.add(DATA)
        assert set(infos) == {again}
        assert os.listdir(store.root / "staging") == []

    asyncio.run(scenario())


def test_a_staged_layer_is_hashed_by_the_worker(store):
    async def scenario():
        lease = await store.leases.create("test")
        async with store.layers.stage(lease) as staged:
            os.pwrite(staged.fd, DATA, TAR_OFFSET)
            info = await staged.commit()
        assert info.diff_id == digest_of(DATA)
        async with store.layers.stage(lease) as staged:
            os.pwrite(staged.fd, DATA + bytes(512), TAR_OFFSET)
            info = await staged.commit(known=digest_of(DATA + bytes(512)))
        await store.layers.verify(info.diff_id)

    asyncio.run(scenario())


def test_sha512_diff_ids_work(store):
    async def scenario():
        lease = await store.leases.create("test")
        async with store.layers.writer(lease, "sha512") as writer:
            await writer.write(DATA)
            info = await writer.commit()
        assert info.diff_id.startswith("sha512:")
        assert os.path.exists(f"{await store.layers.mount(info.diff_id)}/etc/motd")
        await store.layers.delete(info.diff_id)
        assert not await store.layers.has(info.diff_id)

    asyncio.run(scenario())


def test_an_empty_tar_is_a_layer(store):
    async def scenario():
        for data in (bytes(1024), b""):
            info = await store.add(data)
            assert os.listdir(await store.layers.mount(info.diff_id)) == []

    asyncio.run(scenario())


def test_bad_bytes_leave_nothing(store):
    async def scenario():
        with pytest.raises(DigestMismatch):
            await store.add(DATA, expected=Digest("sha256:" + "0" * 64))
        with pytest.raises(TarError):
            await store.add(DATA[:-1025] + b"garbage" + DATA[-1018:])
        with pytest.raises(TarError, match=r"has a '\.\.' component"):
            await store.add(tar_of(("../x", b"")))
        store.layers._limit = 100
        with pytest.raises(LayerTooLarge):
            await store.add(DATA)
        assert await store.layers.list() == []
        assert os.listdir(store.root / "staging") == os.listdir(store.root / "layers") == []

    asyncio.run(scenario())


@pytest.mark.parametrize("step", ["before-fsync", "before-rename", "after-rename", "before-row"])
def test_a_failure_at_any_step_leaves_nothing_but_what_recovery_takes(store, step):
    async def scenario():
        lease = await store.leases.create("test")
        failpoints.configure(f"layers.commit.{step}=enospc")
        with pytest.raises((StoreFull, OSError)):
            await store.add(DATA, lease)
        failpoints.configure("")
        assert not await store.layers.has(digest_of(DATA))
        store.reopen()
        await Collector(store.db, store.leases, [store.layers, store.snapshots]).recover()
        assert os.listdir(store.root / "staging") == os.listdir(store.root / "layers") == []
        await store.add(DATA, lease)
        await store.layers.verify(digest_of(DATA))

    asyncio.run(scenario())


def test_leftovers_of_a_crash_are_swept_at_start(store):
    (store.root / "staging" / "left").write_bytes(b"x")

    store.reopen()

    assert os.listdir(store.root / "staging") == []


def test_collection_takes_layers_and_their_mounts(store):
    async def scenario():
        collector = Collector(store.db, store.leases, [store.layers, store.snapshots])
        lease = await store.leases.create("test")
        info = await store.add(DATA, lease)
        path = await store.layers.mount(info.diff_id)
        assert (await collector.run()).keys == {}
        await store.leases.release(lease)
        reclaimed = await collector.run()
        assert reclaimed.keys == {"layer": (info.diff_id,)}
        assert reclaimed.size_bytes > 0
        assert not os.path.exists(path)

    asyncio.run(scenario())


@pytest.mark.parametrize("where", [0, 200, 1030, TAR_OFFSET + 600, -600])
def test_damage_is_found(store, where):
    async def scenario():
        info = await store.add(DATA)
        path = store.layers.path(info.diff_id)
        with open(path, "r+b") as file:
            file.seek(where, os.SEEK_SET if where >= 0 else os.SEEK_END)
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 1]))
        with pytest.raises(LayerCorrupt):
            await store.layers.verify(info.diff_id)
        with open(path, "r+b") as file:
            file.truncate(3000)
        with pytest.raises(LayerCorrupt):
            store.layers.open(info.diff_id)

    asyncio.run(scenario())


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path, make_store):
    disk = tmp_path / "data"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", disk], check=True)
    store = make_store("")

    async def scenario():
        assert store.mounts.name != "file"  # EROFS cannot read through tmpfs
        with pytest.raises(StoreFull):
            await store.add(tar_of(("big", bytes(32 << 20))))
        assert os.listdir(store.root / "staging") == []
        await store.add(DATA)

    asyncio.run(scenario())


def test_names_are_the_hex_of_the_diff_id(store):
    async def scenario():
        info = await store.add(DATA)
        assert os.listdir(store.root / "layers") == [encoded(info.diff_id)]

    asyncio.run(scenario())
