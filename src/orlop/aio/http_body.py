"""A request's body while it arrives: decoded, bounded in memory, with back-pressure to the client."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

from orlop.aio.http_messages import BodyTooLarge, ClientGone
from orlop.wire.http1 import CHUNKED, ChunkedDecoder

__all__ = ["StreamBody"]

HIGH_WATER = 1 << 20
LOW_WATER = 256 << 10


class StreamBody:
    """Fed by the connection, read by one handler. `length` is None when chunked.

    Args:
        framing: a length in bytes or CHUNKED.
        on_first_read: called once when a handler wants the body (100 Continue).
        set_reading: called with False when too much waits here, with True when it was taken.
    """

    def __init__(
        self, framing: int, *, on_first_read: Callable[[], None], set_reading: Callable[[bool], None]
    ) -> None:
        self.length = None if framing == CHUNKED else framing
        self.is_complete = framing == 0
        self._decoder = ChunkedDecoder() if framing == CHUNKED else None
        self._left = 0 if framing == CHUNKED else framing
        self._chunks: deque[bytes] = deque()
        self._queued = 0
        self._is_full = False
        self._waiter: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self._on_first_read: Callable[[], None] | None = on_first_read
        self._set_reading = set_reading
        self._discards = False

    def feed(self, data: bytes) -> bytes:
        """Take bytes from the wire; give back what follows the body.

        Raises:
            BadHttp: malformed chunked framing.
        """
        rest = b""
        if self._decoder is not None:
            for chunk in self._decoder.feed(data):
                self._queue(chunk)
            self.is_complete = self._decoder.is_done
            rest = self._decoder.rest if self.is_complete else b""
        else:
            taken = data[: self._left]
            rest = data[self._left :]
            self._left -= len(taken)
            self._queue(taken)
            self.is_complete = not self._left
        self._wake()
        if self._queued > HIGH_WATER and not self._is_full:
            self._is_full = True
            self._set_reading(False)
        return rest

    def fail(self, error: Exception) -> None:
        """The rest will not come; readers get `error` after what has arrived."""
        if not self.is_complete and self._error is None:
            self._error = error
            self._wake()

    def discard(self) -> None:
        """Nobody reads it any more: drop what is queued and what still comes."""
        self._discards = True
        self._chunks.clear()
        self._release()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            while self._chunks:
                chunk = self._chunks.popleft()
                self._queued -= len(chunk)
                if self._is_full and self._queued < LOW_WATER:
                    self._release()
                yield chunk
            if self.is_complete:
                return
            if self._error is not None:
                raise self._error
            await self._wait()

    async def read(self, limit: int) -> bytes:
        """The whole body; raises BodyTooLarge beyond `limit` bytes, before receiving them."""
        if self.length is not None and self.length > limit:
            raise BodyTooLarge(f"request body too large: {self.length} bytes, limit is {limit} bytes")
        parts: list[bytes] = []
        total = 0
        async for chunk in self:
            total += len(chunk)
            if total > limit:
                raise BodyTooLarge(f"request body too large: limit is {limit} bytes")
            parts.append(chunk)
        return b"".join(parts)

    async def wait_complete(self) -> bool:
        """Wait until the wire has delivered all of it; False when it never will."""
        while not self.is_complete and self._error is None:
            await self._wait()
        return self.is_complete

    async def _wait(self) -> None:
        if self._on_first_read is not None:
            self._on_first_read()
            self._on_first_read = None
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _queue(self, chunk: bytes) -> None:
        if chunk and not self._discards:
            self._chunks.append(chunk)
            self._queued += len(chunk)

    def _release(self) -> None:
        self._is_full = False
        self._queued = sum(map(len, self._chunks)) if self._discards else self._queued
        self._set_reading(True)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def cut_short() -> ClientGone:
    """The error of a body whose client went away."""
    return ClientGone("unexpected EOF: the client went away before it had sent its whole request")
