"""The server on real sockets, spoken to in raw bytes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import ssl
import subprocess

import pytest

from orlop.aio.hijack import HijackedConnection, relay
from orlop.aio.http_messages import Hijack, Response, ServerRequest, StreamResponse
from orlop.aio.http_server import CannotListen, HttpServer, Limits, listen_tcp, listen_unix

HOST = b"Host: x\r\n"


class Door:
    """A server with one handler, and raw clients of it."""

    def __init__(self, path, handler, **options):
        self.path = path
        self.server = HttpServer(handler, **options)
        self.writers = []

    async def __aenter__(self):
        await self.server.start(listen_unix(self.path))
        return self

    async def __aexit__(self, *_):
        for writer in self.writers:
            writer.transport.abort()
        await self.server.close(0.1)
        await asyncio.sleep(0)

    async def connect(self):
        reader, writer = await asyncio.open_unix_connection(self.path)
        self.writers.append(writer)
        return reader, writer

    async def talk(self, data, *, eof=False):
        """Send, then read until the server closes."""
        reader, writer = await self.connect()
        writer.write(data)
        if eof:
            writer.write_eof()
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        return answer


def run(tmp_path, handler, talk, **options):
    async def main():
        async with Door(str(tmp_path / "s"), handler, **options) as door:
            return await talk(door)

    return asyncio.run(main())


async def echo(request: ServerRequest) -> Response:
    body = await request.body.read(1 << 20)
    return Response(200, b"%s %s [%s]" % (request.method.encode(), request.target.encode(), body))


def test_keep_alive_and_pipelined_requests_are_answered_in_order(tmp_path):
    data = b"GET /1 HTTP/1.1\r\n" + HOST + b"\r\nPOST /2 HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n\r\nhi"
    data += b"GET /3 HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"

    answer = run(tmp_path, echo, lambda door: door.talk(data))

    assert [line for line in answer.split(b"\r\n") if b"[" in line] == [
        b"GET /1 []HTTP/1.1 200 OK",
        b"POST /2 [hi]HTTP/1.1 200 OK",
        b"GET /3 []",
    ]


def test_a_chunked_body_in_single_bytes_is_reassembled(tmp_path):
    async def talk(door):
        reader, writer = await door.connect()
        raw = b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        for byte in raw + b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: v\r\n\r\n":
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        return await asyncio.wait_for(reader.read(), 10)

    assert run(tmp_path, echo, talk).endswith(b"POST / [abcde]")


def test_expect_continue_is_answered_when_the_handler_reads(tmp_path):
    async def talk(door):
        reader, writer = await door.connect()
        writer.write(
            b"POST / HTTP/1.1\r\n"
            + HOST
            + b"Expect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\n"
        )
        first = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        writer.write(b"ok")
        return first, await asyncio.wait_for(reader.read(), 5)

    first, rest = run(tmp_path, echo, talk)

    assert first == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert rest.endswith(b"POST / [ok]")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", b"400"),
        (b"GET / HTTP/1.1\nHost: x\n\n", b"400"),
        (b"GET / HTTP/1.1\r\n" + HOST + b"A: b\r\n c\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01", b"400"),
        (b"GET / HTTP/1.1\r\n" + HOST + b"Expect: magic\r\n\r\n", b"417"),
        (b"GET / HTTP/1.1\r\n" + HOST + b"A: " + b"a" * 1_100_000, b"431"),
        (b"GET / HTTP/1.1\r\n" + HOST + b"A: b\r\n" * 300 + b"\r\n", b"431"),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 9999999\r\n\r\n", b"500"),
    ],
)
def test_what_could_be_misread_is_refused_and_closed(tmp_path, data, status):
    answer = run(tmp_path, echo, lambda door: door.talk(data))

    assert answer.startswith(b"HTTP/1.1 " + status)
    assert b"Connection: close" in answer
    assert answer.count(b"HTTP/1.1") == 1


def test_a_large_head_in_small_pieces_is_read_in_linear_time(tmp_path):
    async def talk(door):
        reader, writer = await door.connect()
        writer.write(b"GET /?" + b"a" * 10 + b" HTTP/1.1\r\n" + HOST + b"A: ")
        for _ in range(2000):
            writer.write(b"b" * 400)
            await asyncio.sleep(0)
        writer.write(b"\r\nConnection: close\r\n\r")
        await asyncio.sleep(0.01)
        writer.write(b"\n")
        return await asyncio.wait_for(reader.read(), 5)

    assert run(tmp_path, echo, talk).startswith(b"HTTP/1.1 200")


def test_http2_with_prior_knowledge_gets_a_goaway(tmp_path):
    answer = run(tmp_path, echo, lambda door: door.talk(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))

    assert answer[3] == 4
    assert answer.endswith(b"HTTP/2 is not supported yet: use HTTP/1.1")


def test_the_http2_hook_gets_transport_and_bytes(tmp_path):
    def on_http2(transport, data):
        transport.write(b"h2:" + data[-3:])
        transport.close()

    answer = run(
        tmp_path, echo, lambda door: door.talk(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nabc"), on_http2=on_http2
    )

    assert answer == b"h2:abc"


def test_a_slow_head_is_timed_out(tmp_path):
    answer = run(tmp_path, echo, lambda door: door.talk(b"GET / HT"), limits=Limits(head_timeout_s=0.05))

    assert answer.startswith(b"HTTP/1.1 408")


def test_an_idle_connection_is_closed(tmp_path):
    assert run(tmp_path, echo, lambda door: door.talk(b""), limits=Limits(idle_timeout_s=0.05)) == b""


def test_too_many_connections_are_refused(tmp_path):
    async def talk(door):
        held = await door.connect()
        await asyncio.sleep(0.01)
        answer = await door.talk(b"")
        held[1].close()
        return answer

    assert run(tmp_path, echo, talk, limits=Limits(max_connections=1)).startswith(b"HTTP/1.1 503")


def test_streams_flush_every_item_and_stop_when_the_client_vanishes(tmp_path):
    closed = asyncio.Event()

    async def chunks():
        try:
            yield b"first"
            await asyncio.Event().wait()
        finally:
            closed.set()

    async def handler(request):
        return StreamResponse(chunks())

    async def talk(door):
        reader, writer = await door.connect()
        writer.write(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
        await asyncio.wait_for(reader.readuntil(b"5\r\nfirst\r\n"), 5)
        writer.close()
        await asyncio.wait_for(closed.wait(), 5)

    run(tmp_path, handler, talk)


def test_a_failing_stream_is_cut_without_a_last_chunk(tmp_path):
    async def chunks():
        yield b"first"
        raise ValueError

    async def handler(request):
        return StreamResponse(chunks())

    answer = run(tmp_path, handler, lambda door: door.talk(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"))

    assert answer.endswith(b"5\r\nfirst\r\n")


def test_a_waiting_handler_is_cancelled_when_its_client_vanishes(tmp_path):
    cancelled = asyncio.Event()
    started = asyncio.Event()

    async def handler(request):
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async def talk(door):
        _, writer = await door.connect()
        writer.write(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
        await asyncio.wait_for(started.wait(), 5)
        writer.close()
        await asyncio.wait_for(cancelled.wait(), 5)

    run(tmp_path, handler, talk)


def test_a_half_closed_client_still_gets_its_answer(tmp_path):
    answer = run(tmp_path, echo, lambda door: door.talk(b"GET /x HTTP/1.1\r\n" + HOST + b"\r\n", eof=True))

    assert answer.endswith(b"GET /x []")


def test_a_body_cut_short_raises_client_gone(tmp_path):
    seen = []

    async def handler(request):
        try:
            await request.body.read(100)
        except Exception as error:
            seen.append(type(error).__name__)
        return Response(400)

    run(
        tmp_path,
        handler,
        lambda door: door.talk(b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 9\r\n\r\nabc", eof=True),
    )

    assert seen == ["ClientGone"]


def test_a_slow_handler_stops_the_upload(tmp_path):
    go = asyncio.Event()

    async def handler(request):
        await go.wait()
        total = 0
        async for chunk in request.body:
            total += len(chunk)
        return Response(200, str(total).encode())

    async def talk(door):
        size = 32 << 20
        reader, writer = await door.connect()
        writer.write(
            b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % size
        )
        writer.write(bytes(size))
        await asyncio.sleep(0.2)
        waiting = writer.transport.get_write_buffer_size()
        go.set()
        return waiting, await asyncio.wait_for(reader.read(), 10)

    waiting, answer = run(tmp_path, handler, talk)

    assert waiting > 24 << 20  # at most a few MiB were taken
    assert answer.endswith(str(32 << 20).encode())


def test_an_unread_small_body_does_not_spoil_the_next_request(tmp_path):
    async def handler(request):
        return Response(200, request.target.encode())

    data = (
        b"POST /1 HTTP/1.1\r\n"
        + HOST
        + b"Content-Length: 5\r\n\r\nabcdeGET /2 HTTP/1.1\r\n"
        + HOST
        + b"Connection: close\r\n\r\n"
    )

    answer = run(tmp_path, handler, lambda door: door.talk(data))

    assert answer.count(b"200 OK") == 2
    assert answer.endswith(b"/2")


def test_head_and_http10_answers_have_no_chunks(tmp_path):
    async def handler(request):
        async def chunks():
            yield b"abc"

        return StreamResponse(chunks())

    old = run(tmp_path, handler, lambda door: door.talk(b"GET / HTTP/1.0\r\n\r\n"))
    head = run(
        tmp_path,
        handler,
        lambda door: door.talk(b"HEAD / HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"),
    )

    assert old.endswith(b"\r\n\r\nabc")
    assert b"chunked" not in old
    assert head.endswith(b"\r\n\r\n")


UPGRADE = (
    b"POST /attach HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n"
)


def hijacker(session):
    async def handler(request):
        return Hijack(session)

    return handler


def test_an_upgrade_hands_over_leftover_bytes_and_half_closes_both_ways(tmp_path):
    async def session(connection: HijackedConnection):
        got = b""
        while piece := await connection.read():
            got += piece
        await connection.write(b"got:" + got)
        await connection.write_eof()

    async def talk(door):
        reader, writer = await door.connect()
        writer.write(UPGRADE + b"early ")
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        writer.write(b"late")
        writer.write_eof()
        return head, await asyncio.wait_for(reader.read(), 5)

    head, rest = run(tmp_path, hijacker(session), talk)

    assert head == (
        b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n"
        b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
    )
    assert rest == b"got:early late"


def test_an_old_client_hijacks_without_upgrade(tmp_path):
    async def session(connection):
        await connection.write(await connection.read())

    answer = run(
        tmp_path,
        hijacker(session),
        lambda door: door.talk(UPGRADE.replace(b"Connection: Upgrade\r\nUpgrade: tcp\r\n", b"") + b"raw"),
    )

    assert answer == b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\nraw"


def test_relay_passes_half_close_on_while_output_flows(tmp_path):
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)

    async def backend():
        loop = asyncio.get_running_loop()
        got = b""
        while piece := await loop.sock_recv(theirs, 65536):
            got += piece
        await loop.sock_sendall(theirs, b"x" * 1_000_000 + got)
        theirs.close()

    async def session(connection):
        await relay(connection, ours)

    async def talk(door):
        task = asyncio.get_running_loop().create_task(backend())
        reader, writer = await door.connect()
        writer.write(UPGRADE + b"in")
        writer.write_eof()
        answer = await asyncio.wait_for(reader.read(), 5)
        await task
        return answer

    answer = run(tmp_path, hijacker(session), talk)
    ours.close()

    assert answer.endswith(b"xin")
    assert len(answer) > 1_000_000


def test_relay_ends_when_a_quiet_client_vanishes(tmp_path):
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    ended = asyncio.Event()

    async def session(connection):
        try:
            await relay(connection, ours)
        finally:
            ended.set()

    async def talk(door):
        reader, writer = await door.connect()
        writer.write(UPGRADE)
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        writer.close()
        await asyncio.wait_for(ended.wait(), 5)

    run(tmp_path, hijacker(session), talk)
    ours.close()
    theirs.close()


def test_relay_detaches_when_the_filter_says_so(tmp_path):
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    results = []

    async def session(connection):
        results.append(
            await relay(
                connection, ours, input_filter=lambda data: (data.removesuffix(b"Q"), data.endswith(b"Q"))
            )
        )

    answer = run(tmp_path, hijacker(session), lambda door: door.talk(UPGRADE + b"abcQ"))

    assert results == [True]
    assert theirs.recv(10) == b"abc"
    assert answer.endswith(b"\r\n\r\n")
    ours.close()
    theirs.close()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
def test_a_tls_connection_is_hijacked_through_a_bridge(tmp_path):
    server_side, client_side = contexts(tmp_path)

    async def session(connection):
        await connection.write(b"x" * 500_000 + await connection.read())

    async def main():
        server = HttpServer(hijacker(session))
        listener = listen_tcp("127.0.0.1", 0)
        port = listener.getsockname()[1]
        await server.start(listener, server_side)
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client_side)
        writer.write(UPGRADE)
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        writer.write(b"end")
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        await server.close(1)
        return answer

    answer = asyncio.run(main())

    assert len(answer) == 500_003
    assert answer.endswith(b"xend")


def contexts(tmp_path):
    """A server's and a client's TLS context; the client does not verify."""
    pem = tmp_path / "pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=x", "-keyout", f"{pem}.key", "-out", str(pem)]
    subprocess.run(command, check=True, capture_output=True)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem, f"{pem}.key")
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    return server, client


def test_no_descriptor_is_left_behind(tmp_path):
    async def session(connection):
        await connection.write(b"x")

    async def talk(door):
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            await door.talk(UPGRADE)
        await asyncio.sleep(0.05)
        return len(os.listdir("/proc/self/fd")) - before

    assert run(tmp_path, hijacker(session), talk) <= 0


def test_close_lets_requests_in_flight_end(tmp_path):
    started = asyncio.Event()

    async def handler(request):
        started.set()
        await asyncio.sleep(0.05)
        return Response(200, b"done")

    async def talk(door):
        reader, writer = await door.connect()
        writer.write(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
        await started.wait()
        await door.server.close(5)
        return await asyncio.wait_for(reader.read(), 5)

    assert run(tmp_path, handler, talk).endswith(b"done")


def test_unix_sockets_are_private_and_replace_only_dead_ones(tmp_path):
    path = str(tmp_path / "s")
    first = listen_unix(path)

    assert os.stat(path).st_mode & 0o777 == 0o660
    with pytest.raises(CannotListen, match="another engine"):
        listen_unix(path)
    first.close()
    listen_unix(path).close()
    os.unlink(path)
    (tmp_path / "s").write_text("")
    with pytest.raises(CannotListen, match="no socket"):
        listen_unix(path)


def test_a_taken_tcp_port_is_named():
    with (
        contextlib.closing(listen_tcp("127.0.0.1", 0)) as sock,
        pytest.raises(CannotListen, match="EADDRINUSE"),
    ):
        listen_tcp("127.0.0.1", sock.getsockname()[1])
