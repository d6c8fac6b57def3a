import asyncio
import os

import pytest

from orlop.base.errors import InvalidInput
from orlop.procs.channel import channel_pair
from orlop.procs.connection import Connection, ConnectionLost
from orlop.procs.errors import encode_error


def scenario(work):
    """Run `work(connection, peer channel)`."""

    async def whole():
        ours, theirs = channel_pair()
        connection = Connection(ours, name="the peer")
        try:
            return await asyncio.wait_for(work(connection, theirs), 10)
        finally:
            connection.close()
            theirs.close()

    return asyncio.run(whole())


async def started(coroutine):
    task = asyncio.ensure_future(coroutine)
    await asyncio.sleep(0)
    return task


def test_replies_find_their_requests_in_any_order():
    async def work(connection, peer):
        first = await started(connection.request("one"))
        second = await started(connection.request("two", {"x": 1}))
        asked = [peer.receive().body for _ in range(2)]
        peer.send({"re": asked[1]["id"], "ok": {"n": 2}})
        peer.send({"re": asked[0]["id"], "ok": {"n": 1}})
        return asked, (await first).body, (await second).body

    asked, first, second = scenario(work)

    assert [item["op"] for item in asked] == ["one", "two"]
    assert asked[1]["x"] == 1
    assert (first, second) == ({"n": 1}, {"n": 2})


def test_an_error_reply_is_raised():
    async def work(connection, peer):
        request = await started(connection.request("one"))
        peer.send({"re": peer.receive().body["id"], "error": encode_error(InvalidInput("no"))})
        with pytest.raises(InvalidInput, match="no"):
            await request

    scenario(work)


def test_waiting_requests_fail_when_the_peer_goes():
    async def work(connection, peer):
        request = await started(connection.request("one"))
        peer.close()
        with pytest.raises(ConnectionLost):
            await request
        with pytest.raises(ConnectionLost):
            await connection.request("two")

    scenario(work)


def test_a_late_reply_to_a_cancelled_request_is_dropped_with_its_descriptors():
    async def work(connection, peer):
        request = await started(connection.request("one"))
        number = peer.receive().body["id"]
        request.cancel()
        await asyncio.sleep(0)
        before = len(os.listdir("/proc/self/fd"))
        peer.send({"re": number, "ok": {}}, [0, 0])
        again = await started(connection.request("two"))
        peer.send({"re": peer.receive().body["id"], "ok": {}})
        await again
        return before, len(os.listdir("/proc/self/fd"))

    before, after = scenario(work)

    assert after == before


def test_more_requests_than_the_socket_holds_are_queued():
    async def work(connection, peer):
        requests = [await started(connection.request("x", {"pad": "p" * 20000})) for _ in range(60)]
        answered = 0
        peer.socket.setblocking(False)
        while answered < 60:
            try:
                peer.send({"re": peer.receive().body["id"], "ok": {"n": answered}})
                answered += 1
            except BlockingIOError:
                await asyncio.sleep(0.001)
        return [(await request).body["n"] for request in requests]

    assert scenario(work) == list(range(60))


def test_events_reach_the_listener():
    async def whole():
        ours, theirs = channel_pair()
        seen = []
        connection = Connection(ours, name="peer", on_event=lambda message: seen.append(message.body))
        theirs.send({"event": "oom"})
        while not seen:
            await asyncio.sleep(0.001)
        connection.close()
        theirs.close()
        return seen

    assert asyncio.run(whole()) == [{"event": "oom"}]
