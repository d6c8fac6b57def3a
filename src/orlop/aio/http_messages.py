"""What a handler of the HTTP server receives and returns.

Five kinds of answers: `Response` (bytes known), `StreamResponse` (an async iterator, each item
flushed as it comes), `FileResponse` (a range of a file), `Hijack` (the connection becomes a byte
stream), and an exception, which the layer above turns into a `Response`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Protocol

from orlop.base.errors import Kind, OrlopError

if TYPE_CHECKING:
    from orlop.aio.hijack import HijackedConnection

__all__ = [
    "AnyResponse",
    "BodyReader",
    "BodyTooLarge",
    "ClientGone",
    "FileResponse",
    "Handler",
    "Hijack",
    "MemoryBody",
    "Peer",
    "Response",
    "ServerRequest",
    "StreamResponse",
]

RAW_STREAM = "application/vnd.docker.raw-stream"
MULTIPLEXED_STREAM = "application/vnd.docker.multiplexed-stream"

HeaderFields = tuple[tuple[str, str], ...]


class ClientGone(OrlopError):
    """The client went away before it had sent its whole request."""

    kind: ClassVar[Kind] = Kind.CANCELLED
    code: ClassVar[str] = "client-gone"


class BodyTooLarge(OrlopError):
    """A body that is read into memory is over its limit."""

    kind: ClassVar[Kind] = Kind.INVALID
    code: ClassVar[str] = "body-too-large"


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end: `unix` with credentials where the kernel gives them, or `tcp`."""

    transport: str
    address: str = ""
    pid: int = 0
    uid: int = -1
    gid: int = -1
    is_tls: bool = False


class BodyReader(Protocol):
    """A request's body; read it once. Iterating gives chunks of any size as they arrive."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Chunks in order; raises ClientGone when the body is cut short."""

    async def read(self, limit: int) -> bytes:
        """The whole body; raises BodyTooLarge beyond `limit` bytes."""

    @property
    def length(self) -> int | None:
        """The announced length; None when chunked."""


class MemoryBody:
    """A body that is already there: for tests and for handlers that call handlers."""

    def __init__(self, data: bytes = b"") -> None:
        self._data = data
        self.length: int | None = len(data)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._data:
            yield self._data

    async def read(self, limit: int) -> bytes:
        if len(self._data) > limit:
            raise BodyTooLarge(f"request body too large: limit is {limit} bytes")
        return self._data


@dataclass(slots=True)
class ServerRequest:
    """A request as it came: `target` undecoded, header names in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: BodyReader
    peer: Peer


@dataclass(slots=True)
class Response:
    """A complete answer; Content-Length and the headers every answer has are added later."""

    status: int = 200
    body: bytes = b""
    headers: HeaderFields = ()


@dataclass(slots=True)
class StreamResponse:
    """An answer whose body is made while it is sent.

    Every item is flushed at once and the producer waits while the client does not read. The
    iterator is closed (`aclose`) in every case, also when the client vanishes: then the task that runs it
    is cancelled. An exception from it cuts the body short, so that clients see the failure.
    """

    chunks: AsyncIterator[bytes]
    status: int = 200
    headers: HeaderFields = ()


@dataclass(slots=True)
class FileResponse:
    """An answer whose body is a range of a file; the kernel copies it where the connection allows.

    Owns `fd`: it is closed when the answer is out or the client has gone. For the head alone it is -1.
    """

    fd: int
    offset: int
    length: int
    status: int = 200
    headers: HeaderFields = ()


@dataclass(slots=True)
class Hijack:
    """Turn the connection into a byte stream after the head has been sent.

    `run` owns the connection from then on; it is closed when `run` returns. With `Upgrade` in the
    request the head is `101` with `reason`, without it the bare `200 OK` of old clients. An empty
    `content_type` is not sent.
    """

    run: Callable[[HijackedConnection], Awaitable[None]]
    content_type: str = RAW_STREAM
    protocol: str = "tcp"
    reason: str = "UPGRADED"
    headers: HeaderFields = field(default=())


AnyResponse = Response | StreamResponse | FileResponse | Hijack

Handler = Callable[[ServerRequest], Awaitable[AnyResponse]]
