import asyncio
import threading

import pytest

from orlop.aio import offload
from orlop.aio.scope import Background


def test_results_and_errors_come_back():
    async def main():
        with pytest.raises(ZeroDivisionError):
            await offload.thread(divmod, 1, 0)
        return await offload.thread(divmod, 7, 2)

    assert asyncio.run(main()) == (3, 1)


def test_a_cancelled_caller_waits_for_the_call_to_end():
    gate, trace = threading.Event(), []

    def slow():
        gate.wait(5)
        trace.append("call ended")

    async def caller():
        try:
            await offload.thread(slow)
        finally:
            trace.append("caller left")

    async def main():
        async with Background("test") as tasks:
            task = tasks.spawn(caller())
            await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.sleep(0.01)
            task.cancel()
            gate.set()
            await asyncio.wait([task])
            return task.cancelled()

    assert asyncio.run(main())
    assert trace == ["call ended", "caller left"]


def test_the_pool_can_be_closed_and_used_again():
    offload.close()

    assert asyncio.run(offload.thread(abs, -1)) == 1
