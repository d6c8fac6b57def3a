"""Leases: edges, expiry by two clocks, what stays after a failure."""

import asyncio

import pytest

from orlop.store.leases import LeaseLost, Leases, tx_hold, tx_unhold


def expired(store, leases=None):
    return store.db.write_sync((leases or store.leases).tx_expire)


def test_a_lease_ends_with_its_block_unless_a_failure_is_to_keep_it(store):
    async def main():
        async with store.leases.hold("one"):
            assert len(await store.leases.list()) == 1
        for keep in (False, True):
            with pytest.raises(KeyError):
                async with store.leases.hold("two", keep_on_failure=keep):
                    raise KeyError
        return [lease.purpose for lease in await store.leases.list()]

    assert asyncio.run(main()) == ["two"]


def test_holding_needs_a_living_lease(store):
    async def main():
        lease = await store.leases.create("test")
        await store.db.write(lambda tx: tx_hold(tx, lease, "blob", "a"))
        await store.db.write(lambda tx: tx_unhold(tx, lease, "blob", "a"))
        await store.db.write(lambda tx: tx_hold(tx, lease, "blob", "b"))
        assert [info.refs for info in await store.leases.list()] == [1]
        await store.leases.release(lease)
        with pytest.raises(LeaseLost):
            await store.db.write(lambda tx: tx_hold(tx, lease, "blob", "c"))
        with pytest.raises(LeaseLost):
            await store.leases.renew(lease)
        return await store.db.read(lambda tx: tx.value("SELECT count(*) FROM lease_ref"))

    assert asyncio.run(main()) == 0


def test_expiry_counts_monotonic_time_within_a_boot(store):
    asyncio.run(store.leases.create("test", ttl_s=100))

    store.clock._now_ns += 10**15  # the wall clock jumps
    assert expired(store) == 0
    store.clock.advance(101)
    assert expired(store) == 1


def test_expiry_counts_wall_time_after_a_reboot(store):
    asyncio.run(store.leases.create("test", ttl_s=100))
    rebooted = Leases(store.db, store.clock, boot_id="boot-2")

    store.clock._monotonic_ns = 0
    assert expired(store, rebooted) == 0
    store.clock.advance(101)
    assert expired(store, rebooted) == 1


def test_renewing_starts_the_time_again(store):
    lease = asyncio.run(store.leases.create("test", ttl_s=100))

    store.clock.advance(90)
    asyncio.run(store.leases.renew(lease, ttl_s=100))
    store.clock.advance(90)

    assert expired(store) == 0
