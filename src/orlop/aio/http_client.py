"""An HTTP/1.1 client for streams: pooled connections, bodies from fds, stall detection.

It never follows redirects, never decompresses, keeps no cookies and knows no credentials:
those are policy, and policy belongs to the caller. Connections are pooled by origin and
`Dial` (TLS context and address rule), so that one made under a lax rule is never used under
a strict one. A kept connection that turns out dead before a byte of the answer has come is
replaced silently when the request may be repeated. Spec: RFC 9110, RFC 9112.
"""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from orlop.aio import offload
from orlop.aio.http_connection import Connection
from orlop.aio.http_dial import (
    AddressRefused,
    ConnectFailed,
    Dial,
    IpAddress,
    TlsFailed,
    open_connection,
)
from orlop.aio.http_response import BadResponse, ConnectionBroken, Head, Stalled
from orlop.aio.url import Origin, Url
from orlop.base.errors import InvalidInput, Kind, OrlopError

__all__ = [
    "AddressRefused",
    "BadResponse",
    "Body",
    "BytesBody",
    "ConnectFailed",
    "ConnectionBroken",
    "Dial",
    "FileBody",
    "Head",
    "HttpClient",
    "IpAddress",
    "Response",
    "ResponseTooLarge",
    "Stalled",
    "TlsFailed",
]

CONNECT_TIMEOUT_S = 15.0
ANSWER_TIMEOUT_S = 60.0
STALL_S = 15.0
_IDLE_S = 60.0
_MAX_IDLE_PER_KEY = 8
_DRAIN_BYTES = 64 << 10
_SEND_BYTES = 256 << 10
_IDEMPOTENT = {"GET", "HEAD", "OPTIONS", "PUT", "DELETE"}


class ResponseTooLarge(OrlopError):
    """A document is larger than the caller accepts."""

    kind = Kind.INVALID
    code = "response-too-large"


class Body(Protocol):
    """A request body that can be sent again from its beginning."""

    @property
    def length(self) -> int | None:
        """Bytes, or None for chunked coding."""

    def chunks(self) -> AsyncIterator[bytes | memoryview]:
        """The bytes from the beginning."""


@dataclass(frozen=True, slots=True)
class BytesBody:
    """A body in memory."""

    data: bytes

    @property
    def length(self) -> int:
        return len(self.data)

    async def chunks(self) -> AsyncIterator[bytes]:
        view = self.data
        for start in range(0, len(view), _SEND_BYTES):
            yield view[start : start + _SEND_BYTES]


@dataclass(frozen=True, slots=True)
class FileBody:
    """`length` bytes of `fd` from `offset`; the fd stays the caller's."""

    fd: int
    offset: int
    length: int
    sent: Callable[[int], None] | None = None  # told how many bytes of this attempt are handed over

    async def chunks(self) -> AsyncIterator[bytes]:
        done = 0
        while done < self.length:
            wanted = min(_SEND_BYTES, self.length - done)
            data = await offload.thread(os.pread, self.fd, wanted, self.offset + done)
            if not data:
                raise OSError(f"the file to send ends {self.length - done} bytes early")
            yield data
            done += len(data)
            if self.sent is not None:
                self.sent(done)


class Response:
    """A response whose body is read inside the request's block."""

    def __init__(self, connection: Connection, head: Head, url: Url) -> None:
        self._connection = connection
        self.url = url
        self.peer_address = connection.peer_address
        self.status = head.status
        self.headers = head.headers

    def header(self, name: str, default: str = "") -> str:
        """The first value of a header; `name` in lower case."""
        values = self.headers.get(name)
        return values[0] if values else default

    @property
    def length(self) -> int | None:
        """Content-Length, when there is one."""
        value = self.header("content-length")
        return int(value) if value.isdecimal() else None

    async def chunks(self) -> AsyncIterator[memoryview]:
        """The body in pieces of up to 1 MiB; each is valid until the next is asked for."""
        while (chunk := await self._connection.next_chunk()) is not None:
            yield chunk

    async def read(self, limit: int) -> bytes:
        """The whole body.

        Raises:
            ResponseTooLarge: it has more than `limit` bytes, announced or real.
        """
        if (self.length or 0) > limit and not self._connection.is_body_done:
            raise ResponseTooLarge(f"{self.url.origin} sends {self.length} bytes, the limit is {limit}")
        data = bytearray()
        async for chunk in self.chunks():
            data += chunk
            if len(data) > limit:
                raise ResponseTooLarge(f"{self.url.origin} sends more than the limit of {limit} bytes")
        return bytes(data)


_Key = tuple[Origin, Dial]


class HttpClient:
    """Owns the pool; close it when no request is running."""

    def __init__(
        self, *, user_agent: str, stall_s: float = STALL_S, connect_timeout_s: float = CONNECT_TIMEOUT_S
    ) -> None:
        self._user_agent = user_agent
        self._stall_s = stall_s
        self._connect_timeout_s = connect_timeout_s
        self._idle: dict[_Key, list[tuple[float, Connection]]] = defaultdict(list)

    @asynccontextmanager
    async def request(
        self,
        method: str,
        url: Url,
        *,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        dial: Dial | None = None,
        answer_timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> AsyncIterator[Response]:
        """Send a request; the block sees the response and may read its body.

        A body that was not read to its end costs the connection. The answer may come before
        the request body is sent completely; then the rest is not sent.

        Raises:
            ConnectFailed, TlsFailed, AddressRefused, ConnectionBroken, Stalled, BadResponse.
        """
        key = (url.origin, dial or Dial())
        message = self._head(method, url, headers or {}, body, key[1])
        connection, head = await self._exchange(key, method, message, body, answer_timeout_s)
        try:
            yield Response(connection, head, url)
            await self._settle(connection)
        finally:
            self._release(key, connection)

    def close(self) -> None:
        """Drop all idle connections."""
        for entries in self._idle.values():
            for _, connection in entries:
                connection.abort()
        self._idle.clear()

    def _head(
        self, method: str, url: Url, headers: Mapping[str, str], body: Body | None, dial: Dial
    ) -> bytes:
        target = url.target
        if dial.proxy is not None and url.origin.scheme == "http":
            target, headers = str(url), {**headers, **dial.proxy.headers}  # RFC 9112, 3.2.2
        fields = {
            "Host": url.origin.authority,
            "User-Agent": self._user_agent,
            "Accept-Encoding": "identity",
            **headers,
        }
        if body is not None and body.length is None:
            fields["Transfer-Encoding"] = "chunked"
        elif body is not None or method in {"POST", "PUT", "PATCH"}:
            fields["Content-Length"] = str(body.length if body is not None else 0)
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        if any("\r" in line or "\n" in line or "\0" in line for line in lines):
            raise InvalidInput("a request header contains a line break")
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    async def _exchange(
        self, key: _Key, method: str, message: bytes, body: Body | None, timeout_s: float
    ) -> tuple[Connection, Head]:
        while True:
            kept = self._take_idle(key)
            connection = kept or await self._connect(*key)
            before = connection.received_bytes
            try:
                head = await self._round_trip(connection, method, message, body, timeout_s)
            except ConnectionBroken:
                connection.abort()
                if kept is not None and connection.received_bytes == before and method in _IDEMPOTENT:
                    continue  # it had died while it was idle; RFC 9112, 9.3.1
                raise
            except BaseException:
                connection.abort()
                raise
            return connection, head

    async def _round_trip(
        self, connection: Connection, method: str, message: bytes, body: Body | None, timeout_s: float
    ) -> Head:
        is_complete = True
        try:
            await connection.send(message)
            if body is not None:
                is_complete = await _send_body(connection, body)
        except ConnectionBroken:
            if not connection.has_answer or connection.is_alive:
                raise
            is_complete = False  # it may have answered before it closed
        head = await connection.read_head(is_head_request=method == "HEAD", timeout_s=timeout_s)
        if not is_complete:
            connection.is_reusable = False
        return head

    async def _settle(self, connection: Connection) -> None:
        """Read the rest of a short body, which is cheaper than a new connection."""
        taken = 0
        while not connection.is_body_done and taken <= _DRAIN_BYTES:
            chunk = await connection.next_chunk()
            if chunk is None:
                return
            taken += len(chunk)

    def _take_idle(self, key: _Key) -> Connection | None:
        entries = self._idle.get(key, [])
        oldest = asyncio.get_running_loop().time() - _IDLE_S
        while entries:
            since, connection = entries.pop()
            if since >= oldest and connection.is_alive:
                return connection
            connection.abort()
        return None

    def _release(self, key: _Key, connection: Connection) -> None:
        entries = self._idle[key]
        done = connection.is_reusable and connection.is_body_done and connection.is_alive
        if done and len(entries) < _MAX_IDLE_PER_KEY:
            connection.rest()
            entries.append((asyncio.get_running_loop().time(), connection))
        else:
            connection.abort()

    async def _connect(self, origin: Origin, dial: Dial) -> Connection:
        peer = dial.unix_path or origin.authority

        def make() -> Connection:
            return Connection(peer, self._stall_s)

        return await open_connection(make, origin, dial, peer, self._connect_timeout_s)


async def _send_body(connection: Connection, body: Body) -> bool:
    """Send as much as the peer wants; False when it answered before the end."""
    is_chunked = body.length is None
    async for chunk in body.chunks():
        if connection.has_answer:
            return False
        if is_chunked:
            await connection.send(b"%x\r\n" % len(chunk))
        await connection.send(chunk)
        if is_chunked:
            await connection.send(b"\r\n")
    if is_chunked:
        await connection.send(b"0\r\n\r\n")
    return True
