"""A hijacked TLS connection as a plain socket: a socket pair with the cipher between.

Each half ends on its own, as it does on a plain connection: the client's close_notify becomes the end of
the pair's input, and the end of the pair's output becomes our close_notify. A client that is gone closes
the whole pair.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque

from orlop.aio.hijack import shutdown_write
from orlop.aio.scope import Background, Scope

__all__ = ["bridge_tls"]

_CHUNK = 64 << 10
_HIGH_WATER = 1 << 20
_LINGER_S = 2.0


class _Bridge(asyncio.Protocol):
    """The connection's protocol from the hijack on; owns `inner`, our end of the pair."""

    def __init__(self, transport: asyncio.Transport, inner: socket.socket) -> None:
        self._transport = transport
        self._inner = inner
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._is_over = False
        self._ended = asyncio.Event()
        self._lost = asyncio.Event()
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        if self._is_over:
            return
        self._queue.append(data)
        self._queued += len(data)
        self._arrived.set()
        if self._queued > _HIGH_WATER:
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        self._ended.set()
        self._arrived.set()
        return True

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._lost.set()
        self._ended.set()
        self._writable.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    async def run(self) -> None:
        """Pump until the handler closes its end or the client is gone."""
        try:
            with self._inner:
                async with Scope("tls-bridge") as scope:
                    inward = scope.spawn(self._inward(), name="in")
                    outward = scope.spawn(self._outward(), name="out")
                    lost = scope.spawn(self._lost.wait(), name="lost")
                    await asyncio.wait({outward, lost}, return_when=asyncio.FIRST_COMPLETED)
                    for task in (inward, outward, lost):
                        task.cancel()
            await self._linger()
        except ConnectionError:
            self._transport.abort()
        finally:
            self._transport.close()

    async def _linger(self) -> None:
        """Let the client read to the end: what it still sends would reset a closed connection."""
        self._is_over = True
        self._queue.clear()
        if self._lost.is_set():
            return
        self._transport.write_eof()
        self._transport.resume_reading()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_S):
                await self._ended.wait()

    async def _inward(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while self._queue:
                data = self._queue.popleft()
                try:
                    await loop.sock_sendall(self._inner, data)
                except ConnectionError:
                    return  # the handler takes no more; what it wrote still goes out
                self._queued -= len(data)
                if self._queued <= _HIGH_WATER and not self._transport.is_closing():
                    self._transport.resume_reading()
            if self._ended.is_set():
                shutdown_write(self._inner)
                return
            self._arrived.clear()
            await self._arrived.wait()

    async def _outward(self) -> None:
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(self._inner, _CHUNK):
            if self._transport.is_closing():
                return
            self._transport.write(data)
            await self._writable.wait()


def bridge_tls(transport: asyncio.Transport, background: Background) -> socket.socket:
    """Take over `transport`; the plain, non-blocking socket that stands for it is the caller's."""
    outer, inner = socket.socketpair()
    outer.setblocking(False)
    inner.setblocking(False)
    bridge = _Bridge(transport, inner)
    transport.set_protocol(bridge)
    transport.resume_reading()
    _task = background.spawn(bridge.run(), name="tls-bridge")
    return outer
