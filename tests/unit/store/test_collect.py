"""Collection: leased and reachable things stay, the rest loses rows first, bytes then."""

import asyncio
import os

import pytest

from orlop.base import failpoints
from orlop.oci.digest import encoded
from orlop.store.collect import Collector


class Shelf:
    """A resource whose things are in memory: roots with edges to blobs."""

    kind = "shelf"

    def __init__(self):
        self.things = {}

    def keys(self, tx):
        return ()

    def roots(self, tx):
        return [("shelf", key) for key in self.things]

    def edges(self, tx):
        return [(key, ("blob", digest)) for key, digests in self.things.items() for digest in digests]

    def forget(self, tx, keys):
        raise AssertionError("shelves are never collected")

    async def sweep(self, keys=None):
        return 0


@pytest.fixture
def shelf():
    return Shelf()


@pytest.fixture
def collector(store, shelf):
    return Collector(store.db, store.leases, [store.blobs, shelf])


def stored(store):
    return set(os.listdir(store.root / "blobs" / "sha256"))


def test_only_what_nobody_holds_is_reclaimed(store, shelf, collector):
    async def main():
        async with store.leases.hold("making") as lease:
            rooted = await store.blobs.put(b"rooted", lease)
            garbage = await store.blobs.put(b"garbage", lease)
            assert (await collector.run()).keys == {}
            shelf.things["a"] = [rooted]
        reclaimed = await collector.run()
        return rooted, garbage, reclaimed

    rooted, garbage, reclaimed = asyncio.run(main())

    assert reclaimed.keys == {"blob": (garbage,)}
    assert reclaimed.size_bytes > 0
    assert stored(store) == {encoded(rooted)}


def test_an_expired_lease_holds_nothing(store, collector):
    async def main():
        lease = await store.leases.create("lost", ttl_s=10)
        await store.blobs.put(b"data", lease)
        store.clock.advance(11)
        await collector.run()

    asyncio.run(main())

    assert stored(store) == set()


def test_a_crash_between_rows_and_bytes_is_finished_by_recover(store, collector):
    async def main():
        async with store.leases.hold("making") as lease:
            await store.blobs.put(b"data", lease)
        failpoints.configure("collect.after-forget=error")
        with pytest.raises(OSError):
            await collector.run()
        failpoints.configure("")
        assert len(stored(store)) == 1
        return await collector.recover()

    assert asyncio.run(main()) > 0
    assert stored(store) == set()


def test_a_blob_that_comes_back_while_it_is_swept_survives(store, collector):
    async def main():
        for _ in range(20):
            async with store.leases.hold("making") as lease:
                await store.blobs.put(b"data", lease)
            keeper = await store.leases.create("again")
            _, digest = await asyncio.gather(collector.run(), store.blobs.put(b"data", keeper))
            assert await store.blobs.read(digest, 10) == b"data"
            await store.leases.release(keeper)

    asyncio.run(main())
