import asyncio

from orlop.aio.keyed_lock import KeyedLock
from orlop.aio.scope import Scope


def test_holders_of_one_key_take_turns_and_other_keys_do_not_wait():
    async def main():
        locks, trace = KeyedLock[str](), []

        async def user(key, name):
            async with locks.hold(key):
                trace.append(f"{name}+")
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                trace.append(f"{name}-")

        async with Scope("test") as scope:
            scope.spawn(user("a", "1"))
            scope.spawn(user("a", "2"))
            scope.spawn(user("b", "3"))
        return trace, len(locks)

    trace, left = asyncio.run(main())

    assert [step for step in trace if step[0] != "3"] == ["1+", "1-", "2+", "2-"]
    assert trace.index("3+") < trace.index("1-")
    assert left == 0


def test_a_cancelled_waiter_leaves_no_entry():
    async def main():
        locks = KeyedLock[str]()

        async def wait():
            async with locks.hold("a"):
                pass

        async with Scope("test") as scope, locks.hold("a"):
            waiter = scope.spawn(wait())
            await asyncio.sleep(0)
            waiter.cancel()
            await asyncio.sleep(0)
            assert locks.is_locked("a")
        return len(locks)

    assert asyncio.run(main()) == 0
