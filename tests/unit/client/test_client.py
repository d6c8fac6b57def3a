"""The client against the real server: bodies, streams, errors, hijack."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from orlop.aio.hijack import HijackedConnection
from orlop.aio.http_messages import Hijack, Response, StreamResponse
from orlop.aio.http_server import HttpServer, listen_tcp, listen_unix
from orlop.base.errors import Kind
from orlop.client.client import ApiError, Client, path_of
from orlop.client.connection import BadAnswer
from orlop.client.endpoint import CannotConnect, Endpoint


class Background:
    """A server in a thread with its own loop."""

    def __init__(self, handler, *listeners):
        self._handler, self._listeners = handler, listeners
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()))

    async def _main(self):
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = HttpServer(self._handler)
        for listener in self._listeners:
            await server.start(listener)
        self._ready.set()
        await self._stop.wait()
        await server.close(0.1)

    def __enter__(self):
        self._thread.start()
        self._ready.wait(5)
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(5)


async def handler(request):
    path = request.target.partition("?")[0].removeprefix("/v1.51")
    if path == "/error":
        return Response(409, b'{"message":"in use"}')
    if path == "/empty":
        return Response(204)
    if path == "/echo":
        body = await request.body.read(1 << 30)
        kind = "chunked" if request.body.length is None else "sized"
        return Response(
            200,
            b'{"size":%d,"kind":"%s","target":"%s"}' % (len(body), kind.encode(), request.target.encode()),
        )
    if path == "/lines":

        async def lines():
            for piece in (b'{"a":1}\n{"a"', b':2}{"a":"\xc3', b'\xa4"}\r\n'):
                yield piece

        return StreamResponse(lines())
    if path == "/cut":

        async def cut():
            yield b"x"
            raise ConnectionError

        return StreamResponse(cut())
    if path == "/host":
        return Response(200, b'"%s"' % request.headers["host"].encode())
    return Hijack(session, "application/vnd.docker.multiplexed-stream")


async def session(connection: HijackedConnection):
    got = b""
    while piece := await connection.read():
        got += piece
    await connection.write(got[::-1])


@pytest.fixture
def client(tmp_path):
    path = str(tmp_path / "s")
    with Background(handler, listen_unix(path)):
        yield Client(Endpoint(f"unix://{path}", path=path))


def test_json_bodies_and_queries(client):
    answer = client.call("POST", "/echo", {"all": True, "t": ["a:b", "c"], "none": None}, body={"x": 1})

    assert answer == {"size": 8, "kind": "sized", "target": "/v1.51/echo?all=1&t=a%3Ab&t=c"}
    assert client.call("POST", "/empty") is None


def test_streamed_uploads_are_chunked(client):
    answer = client.call("POST", "/echo", body=iter([b"x" * 100_000, b"", b"y"]))

    assert (answer["size"], answer["kind"]) == (100_001, "chunked")


def test_errors_carry_status_kind_and_the_engines_words(client):
    with pytest.raises(ApiError, match="in use") as caught:
        client.call("POST", "/error")

    assert (caught.value.status, caught.value.kind) == (409, Kind.CONFLICT)


def test_json_values_of_a_stream_are_split_wherever_chunks_end(client):
    assert list(client.lines("GET", "/lines")) == [{"a": 1}, {"a": 2}, {"a": "ä"}]


def test_a_stream_cut_short_is_an_error(client):
    with pytest.raises(BadAnswer):
        client.open("GET", "/cut").read()


def test_hijack_gives_a_socket_with_half_close(client):
    connection, early, is_multiplexed = client.hijack("/attach")
    with connection:
        connection.sendall(b"abc")
        connection.shutdown(socket.SHUT_WR)
        answer = early
        while piece := connection.recv(100):
            answer += piece

    assert (answer, is_multiplexed) == (b"cba", True)


def test_tcp_calls_name_the_address_as_host():
    listener = listen_tcp("127.0.0.1", 0)
    port = listener.getsockname()[1]
    with Background(handler, listener):
        client = Client(Endpoint("tcp://x", host="127.0.0.1", port=port))

        assert client.call("GET", "/host") == f"127.0.0.1:{port}"


def test_a_silent_endpoint_is_explained(tmp_path):
    with pytest.raises(CannotConnect, match="cannot connect to the engine at unix:///x"):
        Client(Endpoint("unix:///x", path=str(tmp_path / "none"))).call("GET", "/echo")


def test_paths_keep_the_slashes_of_names_and_quote_the_rest():
    assert path_of("images", "host:5000/a/b?c", "json") == "/images/host:5000/a/b%3Fc/json"
