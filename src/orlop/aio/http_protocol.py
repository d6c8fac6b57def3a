"""One client connection of the HTTP server, as an asyncio protocol.

Theory of operation. Bytes collect in `_input` until a head is complete; then one task serves that
request while later bytes feed its body or wait (pipelined requests are not parsed before the answer is
out: what follows a request may turn out to be the stream of a hijacked connection).

    state      bytes go to        leaves when
    idle       _input             a head is complete -> serving; preface of HTTP/2 -> another protocol
    serving    body, then _input  the answer is out -> idle, or closed
    hijacked   nobody: the socket has been duplicated for its new owner and the transport is dropped
    lingering  thrown away        client closes or 2 s: lets the answer arrive before the reset

A client that closes its connection cancels the task that serves it. End of file alone might be a
half-close, so it cancels only after a short grace, and never when an upgrade was asked for.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from orlop.aio.hijack import HijackedConnection
from orlop.aio.http_answers import HTTP2_REFUSAL, answer_head, message, peer_of, refusal
from orlop.aio.http_body import StreamBody, cut_short
from orlop.aio.http_files import send_file
from orlop.aio.http_messages import (
    AnyResponse,
    FileResponse,
    Hijack,
    Peer,
    Response,
    ServerRequest,
    StreamResponse,
)
from orlop.aio.tls_bridge import bridge_tls
from orlop.base import log
from orlop.wire import http1

if TYPE_CHECKING:
    from orlop.aio.http_server import HttpServer

__all__ = ["HttpConnection"]

MAX_PIPELINED = 256 << 10
EOF_GRACE_S = 0.25
LINGER_S = 2.0
MAX_DRAIN = 256 << 10
WRITE_HIGH_WATER = 256 << 10


class HttpConnection(asyncio.Protocol):
    """See the module's docstring. Created by HttpServer only."""

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._transport: asyncio.Transport
        self._peer = Peer("unix")
        self._input = bytearray()
        self._body: StreamBody | None = None
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_idle_timer = True
        self._scanned = 0  # bytes of _input that hold no end of a head
        self._write_waiter: asyncio.Future[None] | None = None
        self._is_fresh = True  # nothing was served yet: an HTTP/2 preface may come
        self._is_upgrade = False
        self._got_eof = False
        self._is_lost = False
        self._lingers = False
        self._hijacked = False

    # -- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=WRITE_HIGH_WATER)
        self._peer = peer_of(transport)
        if not self._server.add(self):
            self._refuse(503, "too many connections")
            return
        self._set_timer(self._server.limits.idle_timeout_s, transport.close)

    def data_received(self, data: bytes) -> None:
        if self._lingers:
            return
        body = self._body
        if body is not None and not body.is_complete:
            try:
                rest = body.feed(data)
            except http1.BadHttp as error:
                body.fail(error)
                self._got_eof = True  # what follows cannot be framed
                return
            if rest:
                self._input += rest
            return
        self._input += data
        if self._task is not None:
            if len(self._input) > MAX_PIPELINED:
                self._transport.pause_reading()
            return
        self._next_request()

    def eof_received(self) -> bool:
        self._got_eof = True
        if self._task is None:
            return False
        if self._body is not None:
            self._body.fail(cut_short())
        if not self._is_upgrade and not self._lingers:
            self._set_timer(EOF_GRACE_S, self._cancel)
        return True

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._is_lost = True
        self._set_timer(None)
        self._wake_writer()
        if self._body is not None:
            self._body.fail(cut_short())
        self._server.discard(self)
        if not self._hijacked:
            self._cancel()

    def pause_writing(self) -> None:
        if self._write_waiter is None:
            self._write_waiter = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        self._wake_writer()

    # -- requests

    @property
    def is_busy(self) -> bool:
        """True while a request is being served."""
        return self._task is not None

    def close_idle(self) -> None:
        """Close unless a request is being served."""
        if self._task is None:
            self._transport.close()

    def _next_request(self) -> None:
        """Start to serve the next buffered request, if its head is complete."""
        if self._is_fresh and self._input[:3] == b"PRI" and self._sniff_http2():
            return
        if self._scanned < 2 and self._input[:2] == b"\r\n":  # RFC 9112, section 2.2: ignored
            del self._input[:2]
            self._scanned = 0
        end = self._input.find(b"\r\n\r\n", max(self._scanned - 3, 0), http1.MAX_HEAD_BYTES)
        self._scanned = len(self._input) if end < 0 else 0  # a head in many pieces is searched once
        try:
            if end < 0:
                self._await_head()
                return
            head = http1.parse_request(bytes(self._input[: end + 4]))
            framing = http1.body_framing(head)
        except http1.BadHttp as error:
            self._refuse(error.status, error.message)
            return
        del self._input[: end + 4]
        self._start(head, framing)

    def _await_head(self) -> None:
        """Check what is there of a head and start its clock (slow clients may not hold a connection)."""
        size = len(self._input)
        newline = self._input.find(b"\n", 0, 64 << 10)
        if size >= http1.MAX_HEAD_BYTES:
            raise http1.HeadTooLarge("request header too large")
        if newline == 0 or (newline > 0 and self._input[newline - 1] != 0x0D) or self._input[:1] == b"\x16":
            http1.parse_request(bytes(self._input))
            raise http1.BadHttp("malformed HTTP request")
        limits = self._server.limits
        if not size:
            self._set_timer(limits.idle_timeout_s, self._transport.close)
        elif self._timer is None or self._is_idle_timer:
            self._set_timer(limits.head_timeout_s, lambda: self._refuse(408, "request header timeout"))
            self._is_idle_timer = False

    def _start(self, head: http1.RequestHead, framing: int) -> None:
        self._is_fresh = False
        self._set_timer(None)
        self._is_upgrade = "upgrade" in http1.connection_tokens(head.headers)
        expect = head.headers.get("expect", "").lower()
        if expect not in ("", "100-continue"):
            self._refuse(417, "unsupported Expect header")
            return
        waits = expect == "100-continue" and head.minor == 1 and not self._input
        self._body = StreamBody(
            framing, on_first_read=self._continue if waits else _nothing, set_reading=self._set_reading
        )
        if self._input and not self._body.is_complete:
            pending = bytes(self._input)
            self._input.clear()
            try:
                self._input += self._body.feed(pending)
            except http1.BadHttp as error:
                self._refuse(error.status, error.message)
                return
        request = ServerRequest(head.method, head.target, head.headers, self._body, self._peer)
        self._task = self._server.background.spawn(self._serve(head, request, self._body), name=head.method)

    async def _serve(self, head: http1.RequestHead, request: ServerRequest, body: StreamBody) -> None:
        keeps = False
        try:
            response = await self._answer(request)
            if isinstance(response, Hijack):
                await self._hijack(response, head, body)
                return
            keeps = head.keeps_alive() and not self._server.is_closing and not self._got_eof
            keeps = keeps and _is_drainable(body)
            keeps = await self._send(response, head, keeps_alive=keeps)
            if keeps and not body.is_complete:
                body.discard()
                keeps = await body.wait_complete()
        except (ConnectionError, asyncio.CancelledError) as error:
            keeps = False
            self._transport.abort()
            if isinstance(error, asyncio.CancelledError):
                raise
        finally:
            self._finish(keeps_alive=keeps)

    async def _answer(self, request: ServerRequest) -> AnyResponse:
        try:
            return await self._server.handler(request)
        except Exception as error:  # noqa: BLE001 - the border; the application should have answered
            log.error("request failed", method=request.method, error=repr(error))
            return message(500, "internal error")

    def _finish(self, *, keeps_alive: bool) -> None:
        self._task = None
        body, self._body = self._body, None
        if self._hijacked or self._is_lost:
            return
        self._set_timer(None)
        if not keeps_alive or self._got_eof:
            self._linger(is_needed=body is not None and not body.is_complete and not self._got_eof)
            return
        self._set_reading(True)
        self._next_request()

    # -- answers

    async def _send(
        self,
        response: Response | StreamResponse | FileResponse,
        head: http1.RequestHead,
        *,
        keeps_alive: bool,
    ) -> bool:
        """Write the answer; False when the connection must close after it."""
        has_body = head.method != "HEAD" and response.status >= 200 and response.status not in (204, 304)
        first, keeps_alive = answer_head(response, head, keeps_alive=keeps_alive)
        if isinstance(response, Response):
            self._transport.write(first + response.body if has_body else first)
            await self._drain()
            return keeps_alive
        self._transport.write(first)
        if isinstance(response, FileResponse):
            await send_file(self._transport, response, self._drain, has_body=has_body)
            return keeps_alive
        await self._send_chunks(response, is_chunked=head.minor == 1, has_body=has_body)
        return keeps_alive

    async def _send_chunks(self, response: StreamResponse, *, is_chunked: bool, has_body: bool) -> None:
        write = self._transport.write
        try:
            if has_body:
                async for chunk in response.chunks:
                    if not chunk:
                        continue
                    write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if is_chunked else chunk)
                    await self._drain()
        except Exception as error:
            if not isinstance(error, ConnectionError):
                log.error("stream failed", error=repr(error))
            raise ConnectionAbortedError from error  # no last chunk: the client sees that it is cut
        finally:
            close = getattr(response.chunks, "aclose", None)
            if close is not None:
                await close()
        if has_body and is_chunked:
            write(http1.LAST_CHUNK)
        await self._drain()

    async def _drain(self) -> None:
        if self._is_lost:
            raise ConnectionResetError
        waiter = self._write_waiter
        if waiter is not None:
            await asyncio.shield(waiter)

    def _continue(self) -> None:
        self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _refuse(self, status: int, message: str) -> None:
        """Answer a request that cannot be served and close."""
        self._transport.write(refusal(status, message))
        self._linger(is_needed=True)

    def _linger(self, *, is_needed: bool) -> None:
        self._input.clear()
        if not is_needed or self._lingers:
            self._transport.close()
            return
        self._lingers = True
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._set_reading(True)
        self._set_timer(LINGER_S, self._transport.abort)

    def _sniff_http2(self) -> bool:
        """True when the first bytes are (the beginning of) HTTP/2's preface."""
        if len(self._input) < len(http1.HTTP2_PREFACE):
            return http1.HTTP2_PREFACE.startswith(self._input)
        if not self._input.startswith(http1.HTTP2_PREFACE):
            return False
        if self._server.on_http2 is None:
            self._transport.write(HTTP2_REFUSAL)
            self._linger(is_needed=True)
            return True
        self._set_timer(None)
        self._server.discard(self)
        self._server.on_http2(self._transport, bytes(self._input))
        return True

    # -- hijacking

    async def _hijack(self, answer: Hijack, head: http1.RequestHead, body: StreamBody) -> None:
        body.discard()
        if not _is_drainable(body) or not await body.wait_complete():
            self._refuse(400, "the body of an upgrade request must be complete")
            return
        self._set_timer(None)
        fields = [("Content-Type", answer.content_type)] if answer.content_type else []
        line = "HTTP/1.1 200 OK"
        if self._is_upgrade:
            line = f"HTTP/1.1 101 {answer.reason}"
            fields += [("Connection", "Upgrade"), ("Upgrade", answer.protocol)]
        self._transport.write(http1.encode_head(line, [*fields, *answer.headers]))
        with HijackedConnection(await self._take_socket(), bytes(self._input)) as connection:
            self._input.clear()
            log.debug("connection hijacked", target=head.target.partition("?")[0])
            try:
                await answer.run(connection)
            except ConnectionError:
                log.debug("hijacked connection lost")

    async def _take_socket(self) -> socket.socket:
        """A duplicate of the connection's socket; asyncio's transport is dropped without a shutdown."""
        if self._peer.is_tls:
            self._hijacked = True
            self._server.discard(self)
            return bridge_tls(self._transport, self._server.background)
        self._transport.pause_reading()
        self._transport.set_write_buffer_limits(high=0)
        while self._transport.get_write_buffer_size() and not self._is_lost:
            await self._drain()
        if self._is_lost:
            raise ConnectionResetError
        original = self._transport.get_extra_info("socket")
        taken = socket.socket(fileno=os.dup(original.fileno()))
        taken.setblocking(False)
        self._hijacked = True
        self._transport.abort()
        return taken

    # -- small things

    def _set_timer(self, delay_s: float | None, action: Callable[[], None] | None = None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._is_idle_timer = True
        if delay_s is not None and action is not None:
            self._timer = asyncio.get_running_loop().call_later(delay_s, action)

    def _set_reading(self, wanted: bool) -> None:
        if self._is_lost or self._hijacked or self._transport.is_closing():
            return
        if wanted:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _wake_writer(self) -> None:
        waiter, self._write_waiter = self._write_waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()


def _nothing() -> None:
    """No 100 Continue was asked for."""


def _is_drainable(body: StreamBody) -> bool:
    return body.is_complete or (body.length is not None and body.length <= MAX_DRAIN)
