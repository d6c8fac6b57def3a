"""An HTTP/1.1 client for streams: pooled connections, bodies from fds, stall detection.

It never follows redirects, never decompresses, keeps no cookies and knows no credentials:
those are policy, and policy belongs to the caller. Connections are pooled by origin and
`Dial` (TLS context and address rule), so that one made under a lax rule is never used under
a strict one. A kept connection that turns out dead before a byte of the answer has come is
replaced silently when the request may be repeated. Spec: RFC 9110, RFC 9112.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import ssl
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from orlop.aio import offload
from orlop.aio.http_connection import Connection
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

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

CONNECT_TIMEOUT_S = 15.0
ANSWER_TIMEOUT_S = 60.0
STALL_S = 15.0
_FAST_FALLBACK_S = 3.0
_IDLE_S = 60.0
_MAX_IDLE_PER_KEY = 8
_DRAIN_BYTES = 64 << 10
_SEND_BYTES = 256 << 10
_IDEMPOTENT = {"GET", "HEAD", "OPTIONS", "PUT", "DELETE"}


class ConnectFailed(OrlopError):
    """No connection: the name is unknown, nobody listens, or the network is down."""

    kind = Kind.UNAVAILABLE
    code = "connect-failed"


class TlsFailed(OrlopError):
    """The peer's certificate or protocol is not acceptable. Never retried in clear."""

    kind = Kind.UNAVAILABLE
    code = "tls-failed"


class AddressRefused(OrlopError):
    """The name resolves to an address that this request must not reach."""

    kind = Kind.FORBIDDEN
    code = "address-refused"


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


@dataclass(frozen=True, slots=True)
class Dial:
    """How to connect: the TLS context, which addresses may be reached, or a unix socket.

    Compared by value; keep and reuse the context, it is part of the pool's key.
    """

    tls: ssl.SSLContext | None = None
    allows_address: Callable[[IpAddress], bool] | None = None
    unix_path: str | None = None


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
        message = self._head(method, url, headers or {}, body)
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

    def _head(self, method: str, url: Url, headers: Mapping[str, str], body: Body | None) -> bytes:
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
        lines = [f"{method} {url.target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
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
        loop = asyncio.get_running_loop()
        peer = dial.unix_path or origin.authority

        def make() -> Connection:
            return Connection(peer, self._stall_s)

        context = dial.tls if origin.scheme == "https" else None
        if origin.scheme == "https" and context is None:
            raise TlsFailed(f"no TLS settings for {origin}")
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                if dial.unix_path is not None:
                    return (await loop.create_unix_connection(make, dial.unix_path))[1]
                sock = await self._open_socket(origin, dial)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                name = origin.host if context is not None else None
                return (await loop.create_connection(make, sock=sock, ssl=context, server_hostname=name))[1]
        except TimeoutError:
            raise ConnectFailed(f"cannot connect to {peer}: timed out") from None
        except ssl.SSLError as error:  # before OSError, which it is
            raise TlsFailed(f"cannot connect to {peer}: {_tls_reason(error)}") from error
        except OSError as error:
            raise ConnectFailed(f"cannot connect to {peer}: {_reason(error)}") from error

    async def _open_socket(self, origin: Origin, dial: Dial) -> socket.socket:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
        allowed = [info for info in found if _is_allowed(dial, str(info[4][0]))]
        if found and not allowed:
            raise AddressRefused(
                f"{origin.host} is {found[0][4][0]}, an address inside this network or machine",
                hint="a public registry must not send this engine to private addresses",
            )
        failure: OSError = OSError(0, "no address")
        for index, (family, kind, protocol, _, address) in enumerate(allowed):
            sock = socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol)
            sock.setblocking(False)
            try:
                async with asyncio.timeout(_FAST_FALLBACK_S if index + 1 < len(allowed) else None):
                    await loop.sock_connect(sock, address)
            except TimeoutError:
                sock.close()
                failure = OSError(110, os.strerror(110))
            except OSError as error:
                sock.close()
                failure = error
            except BaseException:
                sock.close()
                raise
            else:
                return sock
        raise failure


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


def _is_allowed(dial: Dial, address: str) -> bool:
    if dial.allows_address is None:
        return True
    parsed = ipaddress.ip_address(address.partition("%")[0])
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return dial.allows_address(mapped or parsed)


def _reason(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return "no such host" if error.errno == socket.EAI_NONAME else str(error.strerror).lower()
    return os.strerror(error.errno).lower() if error.errno else str(error)


def _tls_reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {error.verify_message}"
    return error.reason or str(error)
