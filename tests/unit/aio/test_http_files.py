"""Answers that are ranges of files: the right bytes, a connection that goes on, no descriptor left."""

import asyncio
import contextlib
import os
import socket

import pytest

from orlop.aio.http_messages import FileResponse
from orlop.aio.http_server import HttpServer, listen_tcp

DATA = os.urandom(9 << 20)


@contextlib.asynccontextmanager
async def serving(path, answers):
    """A server that answers each request with the next of `answers`: (offset, length), head only when None."""
    fds = []

    async def handler(request):
        offset, length = answers.pop(0)
        fd = -1 if request.method == "HEAD" else os.open(path, os.O_RDONLY)
        fds.append(fd)
        return FileResponse(fd, offset, length, 200, (("Etag", '"x"'),))

    server = HttpServer(handler)
    listener = listen_tcp("127.0.0.1", 0)
    port = listener.getsockname()[1]
    await server.start(listener)
    try:
        yield port, fds
    finally:
        await server.close(0.1)


async def ask(reader, writer, method="GET"):
    writer.write(f"{method} / HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    length = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
    return length, b"" if method == "HEAD" else await asyncio.wait_for(reader.readexactly(length), 20)


def is_closed(fd):
    try:
        os.fstat(fd)
    except OSError:
        return True
    return False


@pytest.fixture
def path(tmp_path):
    (tmp_path / "file").write_bytes(DATA)
    return tmp_path / "file"


def test_ranges_arrive_and_the_connection_goes_on(path):
    wanted = [(0, len(DATA)), (5, 0), (1, 10), (len(DATA) - 1, 1), (100, 5 << 20)]

    async def main():
        async with serving(path, [*wanted, (0, 77), (3, 4)]) as (port, fds):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for offset, length in wanted:
                assert await ask(reader, writer) == (length, DATA[offset : offset + length])
            assert await ask(reader, writer, "HEAD") == (77, b"")
            assert (await ask(reader, writer))[1] == DATA[3:7]
            assert all(is_closed(fd) for fd in fds if fd >= 0)
            writer.close()

    asyncio.run(main())


def test_a_file_that_is_too_short_cuts_the_answer(path):
    async def main():
        async with serving(path, [(0, len(DATA) + 1)]) as (port, fds):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await ask(reader, writer)
            assert is_closed(fds[0])
            writer.close()

    asyncio.run(main())


def test_a_client_that_vanishes_leaves_no_descriptor(path):
    async def main():
        async with serving(path, [(0, len(DATA))]) as (port, fds):
            raw = socket.create_connection(("127.0.0.1", port))
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            raw.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            while not fds:
                await asyncio.sleep(0.01)
            raw.close()
            async with asyncio.timeout(10):
                while not is_closed(fds[0]):
                    await asyncio.sleep(0.01)

    asyncio.run(main())
