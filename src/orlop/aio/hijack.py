"""A connection that has become a byte stream, and the pump between it and another socket.

`docker attach` and `docker exec` take over the HTTP connection. Both directions end on their
own: a client that closes its standard input shuts down its writing half, while output still flows;
the container's output ends while the client may still be typing.

A unix client that vanishes altogether and one that only closes its input both look like end of
file to a reader; the kernel tells them apart by EPOLLHUP, which `Hangup` waits for.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Protocol, Self

from orlop.aio.scope import Scope

__all__ = ["ClientStream", "HijackedConnection", "relay", "shutdown_write"]

BUFFER_BYTES = 128 << 10
LINGER_S = 1.0

InputFilter = Callable[[bytes], tuple[bytes, bool]]


class ClientStream(Protocol):
    """A client as the relay sees it: bytes both ways, each ending on its own."""

    @property
    def socket(self) -> socket.socket:
        """The connection below, watched for its end."""

    async def write(self, data: bytes | memoryview) -> None:
        """Send all of it; waits while the client does not read."""

    async def read(self) -> bytes:
        """Some bytes; empty when the client sends no more."""

    async def write_eof(self) -> None:
        """Tell the client that no more comes."""

    def close(self) -> None:
        """Close the connection; may be repeated."""


class HijackedConnection:
    """A client's connection after the HTTP head: `leftover` is what came with the request.

    Owns the non-blocking `socket`; `close` may be called twice.
    """

    def __init__(self, sock: socket.socket, leftover: bytes) -> None:
        self._socket = sock
        self.leftover = leftover

    @property
    def socket(self) -> socket.socket:
        """The connection itself."""
        return self._socket

    async def write(self, data: bytes | memoryview) -> None:
        """Send all of it; waits while the client does not read."""
        await asyncio.get_running_loop().sock_sendall(self._socket, data)

    async def read(self, limit: int = BUFFER_BYTES) -> bytes:
        """Some bytes; empty when the client has shut down its writing half."""
        if self.leftover:
            data, self.leftover = self.leftover[:limit], self.leftover[limit:]
            return data
        try:
            return await asyncio.get_running_loop().sock_recv(self._socket, limit)
        except ConnectionResetError:
            return b""

    async def write_eof(self) -> None:
        """Tell the client that no more comes, and go on reading."""
        shutdown_write(self._socket)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Hangup:
    """Waits until a peer has closed both halves of its connection."""

    def __init__(self, sock: socket.socket) -> None:
        self._epoll = select.epoll()
        self._epoll.register(sock.fileno(), 0)  # hang-up and error are always reported
        self._seen = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._wake)

    def _wake(self) -> None:
        asyncio.get_running_loop().remove_reader(self._epoll.fileno())
        self._seen.set()

    async def wait(self) -> None:
        """Return when the peer is gone."""
        await self._seen.wait()

    def close(self) -> None:
        """Stop watching; may be called twice."""
        if not self._epoll.closed:
            asyncio.get_running_loop().remove_reader(self._epoll.fileno())
            self._epoll.close()


class _Detached(Exception):
    """The input filter ended the session."""


async def relay(
    client: ClientStream,
    backend: socket.socket,
    *,
    input_filter: InputFilter | None = None,
    before_end: Callable[[], Awaitable[object]] | None = None,
) -> bool:
    """Pump both ways until the backend's output ends, the client is gone, or the filter detaches.

    Client end of file is passed on as a half-close of `backend`; output goes on. Closes `client`; `backend`
    (non-blocking) stays the caller's.

    Args:
        client: the hijacked connection.
        backend: the supervisor's stream socket.
        input_filter: sees every piece of input, returns what to pass on and True to detach
            (Docker's detach keys).
        before_end: awaited between the end of the backend's output and the client's seeing it.

    Returns:
        True when the filter detached, False otherwise.
    """
    hangup = Hangup(client.socket)
    try:
        async with Scope("relay") as scope:
            inward = scope.spawn(_inward(client, backend, input_filter), name="in")
            gone = scope.spawn(hangup.wait(), name="hangup")
            outward = scope.spawn(_outward(client, backend, before_end), name="out")
            await asyncio.wait({outward, gone}, return_when=asyncio.FIRST_COMPLETED)
            inward.cancel()
            if not gone.done():
                await _let_output_arrive(client)
            for task in (gone, outward):
                task.cancel()
    except _Detached:
        with contextlib.suppress(ConnectionError):
            await client.write_eof()
        return True
    finally:
        hangup.close()
        client.close()
    return False


async def _outward(
    client: ClientStream,
    backend: socket.socket,
    before_end: Callable[[], Awaitable[object]] | None,
) -> None:
    loop = asyncio.get_running_loop()
    buffer = bytearray(BUFFER_BYTES)
    view = memoryview(buffer)
    try:
        while count := await loop.sock_recv_into(backend, buffer):
            await client.write(view[:count])
        if before_end is not None:
            await before_end()
        await client.write_eof()
    except (BrokenPipeError, ConnectionError):
        return


async def _let_output_arrive(client: ClientStream) -> None:
    """TCP resets a connection closed with unread input; the peer may lose what it has not read."""
    if client.socket.family == socket.AF_UNIX:
        return
    with contextlib.suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(LINGER_S):
            while await client.read():
                pass


async def _inward(client: ClientStream, backend: socket.socket, input_filter: InputFilter | None) -> None:
    loop = asyncio.get_running_loop()
    try:
        while data := await client.read():
            is_done = False
            if input_filter is not None:
                data, is_done = input_filter(data)
            if data:
                await loop.sock_sendall(backend, data)
            if is_done:
                raise _Detached
    except ConnectionError:
        return  # the backend takes no more input; its output decides when we end
    shutdown_write(backend)


def shutdown_write(sock: socket.socket) -> None:
    """Half-close; nothing happens when that was done or the peer is gone."""
    try:
        sock.shutdown(socket.SHUT_WR)
    except OSError:
        return  # already shut or gone: what was wanted
