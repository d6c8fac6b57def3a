import asyncio
import contextlib
import os

import pytest

from orlop.aio.http_client import (
    AddressRefused,
    BadResponse,
    BytesBody,
    ConnectFailed,
    ConnectionBroken,
    Dial,
    FileBody,
    HttpClient,
    ResponseTooLarge,
    Stalled,
)
from orlop.aio.url import parse_url
from orlop.base.errors import InvalidInput


async def read_request(reader):
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    fields = {n.lower(): v for n, _, v in (line.partition(": ") for line in head.split("\r\n")[1:])}
    body = await reader.readexactly(int(fields.get("content-length", 0)))
    while fields.get("transfer-encoding") == "chunked":
        size = int(await reader.readline(), 16)
        body += (await reader.readexactly(size + 2))[:-2]
        if size == 0:
            break
    return head.split("\r\n")[0], fields, body


@contextlib.asynccontextmanager
async def listening(handle, path=None):
    """Serve connections with `handle`; end them all on the way out."""
    tasks = set()

    async def run(reader, writer):
        tasks.add(asyncio.current_task())
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await handle(reader, writer)
        finally:
            writer.transport.abort()

    start = asyncio.start_unix_server(run, path) if path else asyncio.start_server(run, "127.0.0.1", 0)
    server = await start
    try:
        yield server.sockets[0].getsockname()
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def served(*answers, stall_s=5.0):
    """A server that gives the answers in turn: bytes, or a coroutine function (reader, writer)."""
    left, seen, connections = list(answers), [], []

    async def handle(reader, writer):
        connections.append(1)
        while left:
            seen.append(await read_request(reader))
            answer = left.pop(0)
            if callable(answer):
                await answer(reader, writer)
            else:
                writer.write(answer)
                await writer.drain()
        writer.close()
        await asyncio.sleep(1)

    async with listening(handle) as (_, port):
        client = HttpClient(user_agent="test", stall_s=stall_s)
        try:
            yield client, parse_url(f"http://127.0.0.1:{port}/x"), seen, connections
        finally:
            client.close()


def answer(body=b"", status="200 OK", *lines):
    head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *lines, "", ""])
    return head.encode() + body


async def fetch(client, url, method="GET", limit=1 << 20, **more):
    async with client.request(method, url, **more) as response:
        return response.status, await response.read(limit)


def test_one_connection_serves_many_exchanges():
    async def main():
        chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"
        async with served(answer(b"one"), chunked, answer(b""), answer(b"x")) as (client, url, seen, conns):
            results = [await fetch(client, url) for _ in range(2)]
            head = await fetch(client, url, "HEAD")
            return results, head, await fetch(client, url), len(conns), seen[0]

    results, head, last, connections, first = asyncio.run(main())

    assert results == [(200, b"one"), (200, b"abcde")]
    assert (head, last, connections) == ((200, b""), (200, b"x"), 1)
    assert first[1]["host"].startswith("127.0.0.1:")
    assert first[1]["accept-encoding"] == "identity"


def test_head_announces_a_length_without_a_body():
    async def main():
        raw = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"
        async with served(raw) as (client, url, _, _), client.request("HEAD", url) as response:
            return response.length, await response.read(0)

    assert asyncio.run(main()) == (99, b"")


def test_a_large_body_arrives_in_large_pieces():
    data = os.urandom(6 << 20)

    async def main():
        async with served(answer(data), answer(b"again")) as (client, url, _, connections):
            async with client.request("GET", url) as response:
                pieces = [bytes(chunk) async for chunk in response.chunks()]
            return pieces, await fetch(client, url), len(connections)

    pieces, again, connections = asyncio.run(main())

    assert b"".join(pieces) == data
    assert len(pieces) < 60
    assert (again, connections) == ((200, b"again"), 1)


def test_bodies_go_out_from_memory_and_from_an_fd(tmp_path):
    path = tmp_path / "blob"
    path.write_bytes(os.urandom(3 << 20))

    async def main():
        fd, sent = os.open(path, os.O_RDONLY), []
        async with served(answer(), answer()) as (client, url, seen, _):
            await fetch(client, url, "PUT", body=BytesBody(b"hello"))
            await fetch(client, url, "PATCH", body=FileBody(fd, 10, (3 << 20) - 10, sent.append))
        os.close(fd)
        return [body for _, _, body in seen], sent[-1]

    bodies, sent = asyncio.run(main())

    assert bodies[0] == b"hello"
    assert bodies[1] == path.read_bytes()[10:]
    assert sent == (3 << 20) - 10


def test_an_early_answer_stops_the_sending():
    async def refuse(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(b"no", "401 Unauthorized"))
        await writer.drain()
        await asyncio.sleep(0.2)

    async def main():
        async with listening(refuse) as (_, port):
            client = HttpClient(user_agent="test", stall_s=2)
            url = parse_url(f"http://127.0.0.1:{port}/x")
            return await fetch(client, url, "PUT", body=BytesBody(bytes(64 << 20)))

    assert asyncio.run(main()) == (401, b"no")


def test_a_connection_that_died_in_the_pool_is_replaced():
    async def main():
        async with served(answer(b"1", "200 OK"), answer(b"2")) as (client, url, _, connections):
            first = await fetch(client, url)
            for entries in client._idle.values():
                entries[0][1]._transport.abort()
            return first, await fetch(client, url), len(connections)

    assert asyncio.run(main()) == ((200, b"1"), (200, b"2"), 2)


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * (10 << 20) + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 300 + b"\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"garbage\r\n\r\n",
    ],
    ids=range(10),
)
def test_malformed_responses_are_refused(raw):
    async def main():
        async with served(raw) as (client, url, _, _):
            await fetch(client, url)

    with pytest.raises(BadResponse):
        asyncio.run(main())


def test_a_body_that_ends_early_is_an_error():
    async def main():
        async with served(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf") as (client, url, _, _):
            await fetch(client, url)

    with pytest.raises(ConnectionBroken):
        asyncio.run(main())


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"])
def test_trickling_bytes_are_a_stall(head):
    async def trickle(_reader, writer):
        writer.write(head)
        for _ in range(100):
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.05)

    async def main():
        async with served(trickle, stall_s=0.3) as (client, url, _, _):
            await fetch(client, url, answer_timeout_s=0.3)

    with pytest.raises(Stalled):
        asyncio.run(main())


def test_a_slow_consumer_is_no_stall():
    async def main():
        body, total = answer(bytes(4 << 20)), 0
        async with served(body, stall_s=0.2) as (client, url, _, _), client.request("GET", url) as response:
            async for chunk in response.chunks():
                total += len(chunk)
                await asyncio.sleep(0.1)
        return total

    assert asyncio.run(main()) == 4 << 20


def test_documents_have_a_limit():
    async def main():
        async with served(answer(b"x" * 100)) as (client, url, _, _):
            await fetch(client, url, limit=99)

    with pytest.raises(ResponseTooLarge):
        asyncio.run(main())


def test_addresses_can_be_refused_and_nobody_home_is_an_error():
    async def main():
        client = HttpClient(user_agent="test")
        with pytest.raises(AddressRefused):
            await fetch(client, parse_url("http://localhost:1/"), dial=Dial(allows_address=lambda _: False))
        with pytest.raises(ConnectFailed):
            await fetch(client, parse_url("http://127.0.0.1:1/"))
        with pytest.raises(InvalidInput):
            await fetch(client, parse_url("http://127.0.0.1:1/"), headers={"A": "b\r\nC: d"})

    asyncio.run(main())


def test_unix_sockets_are_spoken_to(tmp_path):
    path = str(tmp_path / "s")

    async def handle(reader, writer):
        await read_request(reader)
        writer.write(answer(b"unix"))
        await writer.drain()
        await asyncio.sleep(1)

    async def main():
        async with listening(handle, path):
            client = HttpClient(user_agent="test")
            try:
                return await fetch(client, parse_url("http://docker/x"), dial=Dial(unix_path=path))
            finally:
                client.close()

    assert asyncio.run(main()) == (200, b"unix")
