"""A hijacked connection that speaks WebSocket, as the plain byte stream that the relay wants.

There is no half-close: when the client sends its close, the session is over, and when the container's
output ends, ours is. Pings are answered while the stream flows. The codec is `wire.websocket`.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import socket
from collections import deque

from orlop.aio.hijack import HijackedConnection
from orlop.base import log
from orlop.wire.stdstream import FrameDecoder as StreamFrames
from orlop.wire.websocket import (
    Close,
    Data,
    FrameDecoder,
    Opcode,
    Ping,
    Pong,
    Status,
    Violation,
    encode_close,
    encode_frame,
)

__all__ = ["WebSocket"]

_CLOSE_S = 5.0  # a client that does not read its messages gets no farewell
_CHUNK_BYTES = 64 << 10


class WebSocket:
    """A `ClientStream` over WebSocket.

    Args:
        connection: after the opening handshake; the caller's, closed by `close`.
        is_text: send text messages, as API versions before 1.28 do; what is not UTF-8 is replaced.
        is_framed: what is written are stdcopy frames, of which the client wants the data alone.
    """

    def __init__(self, connection: HijackedConnection, *, is_text: bool, is_framed: bool) -> None:
        self._connection = connection
        self._decoder = FrameDecoder()
        self._text = codecs.getincrementaldecoder("utf-8")("replace") if is_text else None
        self._frames = StreamFrames() if is_framed else None
        self._received: deque[bytes] = deque()
        self._sending = asyncio.Lock()  # pongs come between messages, not into them
        self._is_closing = False  # we send nothing more
        self._is_over = False  # the client sends nothing more

    @property
    def socket(self) -> socket.socket:
        """The connection below."""
        return self._connection.socket

    async def write(self, data: bytes | memoryview) -> None:
        """Send output as one message."""
        payload = bytes(data)
        if self._frames is not None:
            payload = b"".join(piece for _, piece in self._frames.feed(payload))
        await self._send_data(payload, is_last=False)

    async def read(self) -> bytes:
        """The next piece of a message; empty when the client has closed or broken the protocol."""
        while not self._received:
            if self._is_over:
                self._hang_up()
                return b""
            data = await self._connection.read(_CHUNK_BYTES)
            if not data:
                return b""
            self._is_over = not await self._take(data)
        return self._received.popleft()

    async def write_eof(self) -> None:
        """Close the WebSocket: no more comes, and nothing more is wanted."""
        await self._send_data(b"", is_last=True)
        await self._send_close(Status.NORMAL, "")
        await self._connection.write_eof()

    def close(self) -> None:
        """Close the connection; may be repeated."""
        self._connection.close()

    async def _take(self, data: bytes) -> bool:
        """Sort what was received; False when the session is over."""
        try:
            items = self._decoder.feed(data)
        except Violation as error:
            log.debug("a client broke the WebSocket protocol", error=error)
            await self._send_close(error.status, str(error))
            return False
        for item in items:
            match item:
                case Data(payload):
                    self._received.append(payload)
                case Ping(payload):
                    await self._send(encode_frame(Opcode.PONG, payload))
                case Pong():
                    pass
                case Close(status):
                    await self._send_close(status or Status.NORMAL, "")
                    return False
        return True

    def _hang_up(self) -> None:
        """Both halves: the relay sees a client that is gone."""
        self._is_closing = True
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    async def _send_data(self, payload: bytes, *, is_last: bool) -> None:
        opcode = Opcode.BINARY
        if self._text is not None:
            opcode, payload = Opcode.TEXT, self._text.decode(payload, is_last).encode()
        if payload and not self._is_closing:
            await self._send(encode_frame(opcode, payload))

    async def _send_close(self, status: int, reason: str) -> None:
        if self._is_closing:
            return
        self._is_closing = True
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(_CLOSE_S):
                await self._send(encode_close(status, reason))

    async def _send(self, frame: bytes) -> None:
        async with self._sending:
            await self._connection.write(frame)
