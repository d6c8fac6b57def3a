import asyncio

import pytest

from orlop.aio.scope import Background, Scope
from orlop.aio.single_flight import SingleFlight


def test_concurrent_callers_share_one_execution():
    async def main():
        flight, runs = SingleFlight[str, int]("test"), []

        async def work():
            runs.append(1)
            await asyncio.sleep(0.01)
            return 7

        async with Scope("test") as scope:
            tasks = [scope.spawn(flight.run("k", work)) for _ in range(5)]
        again = await flight.run("k", work)
        return [task.result() for task in tasks], again, len(runs), "k" in flight

    assert asyncio.run(main()) == ([7] * 5, 7, 2, False)


def test_a_cancelled_waiter_does_not_cancel_the_others():
    async def main():
        flight, gate = SingleFlight[str, int]("test"), asyncio.Event()

        async def work():
            await gate.wait()
            return 1

        async with Background("test") as tasks:
            first = tasks.spawn(flight.run("k", work))
            second = tasks.spawn(flight.run("k", work))
            await asyncio.sleep(0)
            first.cancel()
            await asyncio.sleep(0)
            gate.set()
            result = await second
            return first.cancelled(), result

    assert asyncio.run(main()) == (True, 1)


def test_the_last_waiter_to_leave_cancels_the_work_and_newcomers_start_anew():
    async def main():
        flight, trace = SingleFlight[str, int]("test"), []

        async def work():
            trace.append("start")
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0.01)
                trace.append("end")

        async def fresh():
            trace.append("fresh")
            return 2

        async with Background("test") as tasks:
            only = tasks.spawn(flight.run("k", work))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            only.cancel()
            await asyncio.sleep(0)
            result = await flight.run("k", fresh)
        return result, trace

    assert asyncio.run(main()) == (2, ["start", "end", "fresh"])


def test_every_waiter_sees_the_failure():
    async def main():
        flight = SingleFlight[str, int]("test")

        async def work():
            await asyncio.sleep(0)
            raise ValueError("no")

        async def caller():
            with pytest.raises(ValueError, match="no"):
                await flight.run("k", work)

        async with Scope("test") as scope:
            scope.spawn(caller())
            scope.spawn(caller())

    asyncio.run(main())
