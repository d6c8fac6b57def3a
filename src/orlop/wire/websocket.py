"""WebSocket, the server's side: the opening handshake, and frames in both directions. No I/O.

A client's bytes become items: pieces of data, pings, pongs, and the one close. Data is handed on as it
arrives, so the length that a frame announces costs nothing, whatever it claims; only control frames (at
most 125 bytes) are collected. What a client sends must be masked, what we send must not be. Extensions are
not offered, so reserved bits must be zero.

Spec: RFC 6455, sections 4.2 (handshake), 5 (framing), 7.4 (status codes), 8.1 (text is UTF-8).
"""

from __future__ import annotations

import base64
import binascii
import codecs
import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

__all__ = [
    "BadHandshake",
    "Close",
    "Data",
    "FrameDecoder",
    "Opcode",
    "Ping",
    "Pong",
    "Status",
    "Violation",
    "accept_handshake",
    "encode_close",
    "encode_frame",
]

MAX_CONTROL_BYTES = 125
MAX_REASON_BYTES = MAX_CONTROL_BYTES - 2
_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_VERSION = "13"
_FIN, _RESERVED, _MASKED = 0x80, 0x70, 0x80
_LENGTH_16, _LENGTH_64 = 126, 127
_MAX_LENGTH = (1 << 63) - 1


class Opcode(IntEnum):
    """What a frame carries; RFC 6455, section 11.8."""

    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


class Status(IntEnum):
    """Why a connection ends; RFC 6455, section 7.4.1."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    BAD_DATA = 1007
    INTERNAL_ERROR = 1011


class BadHandshake(ValueError):
    """A request that asks for a WebSocket in the wrong way; `headers` belong into the refusal."""

    def __init__(self, status: int, message: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers


class Violation(ValueError):
    """The client broke the protocol: the connection must be closed with `status`."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Data:
    """A piece of a message."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Ping:
    """To be answered by a pong with the same payload."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to a ping, or a sign of life."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Close:
    """The client sends nothing more; `status` None when it gave none."""

    status: int | None
    reason: str = ""


Item = Data | Ping | Pong | Close


def accept_handshake(headers: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The fields that the `101` answer to an opening handshake has beside `Connection` and `Upgrade`.

    Args:
        headers: the request's, names in lower case.

    Raises:
        BadHandshake: not such a request, or a version that we do not speak.
    """
    if "websocket" not in _tokens(headers.get("upgrade", "")):
        raise BadHandshake(426, "this operation needs a WebSocket", (("Upgrade", "websocket"),))
    if "upgrade" not in _tokens(headers.get("connection", "")):
        raise BadHandshake(400, "a WebSocket handshake needs the header Connection: Upgrade")
    if headers.get("sec-websocket-version", "").strip() != _VERSION:
        raise BadHandshake(
            426, f"WebSocket version {_VERSION} is needed", (("Sec-WebSocket-Version", _VERSION),)
        )
    key = headers.get("sec-websocket-key", "").strip()
    if not _is_key(key):
        raise BadHandshake(400, "the header Sec-WebSocket-Key is not 16 bytes in base64")
    digest = hashlib.sha1(f"{key}{_GUID}".encode("ascii"), usedforsecurity=False).digest()
    fields = [("Sec-WebSocket-Accept", base64.b64encode(digest).decode("ascii"))]
    offered = [word.strip() for word in headers.get("sec-websocket-protocol", "").split(",") if word.strip()]
    if len(offered) == 1:  # dockerd agrees to whatever it is, and browsers give up without an answer
        fields.append(("Sec-WebSocket-Protocol", offered[0]))
    return tuple(fields)


def _tokens(value: str) -> set[str]:
    return {word.strip().lower() for word in value.split(",")}


def _is_key(text: str) -> bool:
    try:
        return len(base64.b64decode(text.encode("ascii"), validate=True)) == 16
    except (binascii.Error, UnicodeEncodeError):
        return False


def encode_frame(opcode: Opcode, payload: bytes | bytearray | memoryview) -> bytes:
    """One whole, final frame of a server."""
    size = len(payload)
    first = _FIN | opcode
    if size < _LENGTH_16:
        head = struct.pack(">BB", first, size)
    elif size < 1 << 16:
        head = struct.pack(">BBH", first, _LENGTH_16, size)
    else:
        head = struct.pack(">BBQ", first, _LENGTH_64, size)
    return b"".join((head, payload))


def encode_close(status: int, reason: str = "") -> bytes:
    """A close frame; a reason that is too long is cut between characters."""
    text = reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore").encode()
    return encode_frame(Opcode.CLOSE, struct.pack(">H", status) + text)


class FrameDecoder:
    """Turns received bytes into items, whatever the size of the pieces.

    After a `Close` nothing follows: later bytes are dropped. After a `Violation` it must not be fed again.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._opcode = Opcode.CONTINUATION  # of the frame whose payload is being read
        self._is_final = True
        self._left: int | None = None  # bytes of the payload still to come; None: a head is due
        self._mask = b""
        self._message: Opcode | None = None  # of the message in progress
        self._text = codecs.getincrementaldecoder("utf-8")()
        self._is_closed = False

    def feed(self, data: bytes) -> list[Item]:
        """The items that `data` brings.

        Raises:
            Violation: what was received cannot come from a client that follows the protocol.
        """
        if self._is_closed:
            return []
        self._buffer += data
        items: list[Item] = []
        while not self._is_closed:
            if self._left is None and not self._take_head():
                break
            if not self._take_payload(items):
                break
        return items

    def _take_head(self) -> bool:
        """Read a frame's head from the buffer; False when it is not all there."""
        buffer = self._buffer
        if len(buffer) < 2:
            return False
        first, second = buffer[0], buffer[1]
        self._check_first(first)
        if not second & _MASKED:
            raise Violation(Status.PROTOCOL_ERROR, "a frame of a client is not masked")
        length = second & 0x7F
        at = 2 + {_LENGTH_16: 2, _LENGTH_64: 8}.get(length, 0)
        if self._opcode >= Opcode.CLOSE and length > MAX_CONTROL_BYTES:
            raise Violation(Status.PROTOCOL_ERROR, "a control frame is longer than 125 bytes")
        if len(buffer) < at + 4:
            return False
        if at > 2:
            length = _extended(bytes(buffer[2:at]))
        self._mask = bytes(buffer[at : at + 4])
        self._left = length
        del buffer[: at + 4]
        return True

    def _check_first(self, first: int) -> None:
        if first & _RESERVED:
            raise Violation(Status.PROTOCOL_ERROR, "a frame has a reserved bit")
        try:
            opcode = Opcode(first & 0x0F)
        except ValueError:
            raise Violation(Status.PROTOCOL_ERROR, f"unknown opcode {first & 0x0F}") from None
        is_final = bool(first & _FIN)
        if opcode >= Opcode.CLOSE:
            if not is_final:
                raise Violation(Status.PROTOCOL_ERROR, "a control frame is fragmented")
        elif (opcode is Opcode.CONTINUATION) != (self._message is not None):
            raise Violation(Status.PROTOCOL_ERROR, "the fragments of a message do not follow each other")
        self._opcode, self._is_final = opcode, is_final

    def _take_payload(self, items: list[Item]) -> bool:
        """Hand on what is there of the payload; False when more must come first."""
        assert self._left is not None
        if self._opcode >= Opcode.CLOSE:
            if len(self._buffer) < self._left:
                return False
            items.append(self._control(self._unmasked(self._left)))
            return True
        if self._opcode is not Opcode.CONTINUATION:
            self._message = self._opcode
        if self._left and not self._buffer:
            return False
        piece = self._unmasked(min(self._left, len(self._buffer)))
        is_over = self._left is None and self._is_final
        if self._message is Opcode.TEXT:
            self._check_text(piece, is_over=is_over)
        if is_over:
            self._message = None
        if piece:
            items.append(Data(piece))
        return True

    def _unmasked(self, size: int) -> bytes:
        """Take `size` bytes of the payload from the buffer; sets `_left`."""
        assert self._left is not None
        piece = _xor(bytes(self._buffer[:size]), self._mask)
        del self._buffer[:size]
        self._left -= size
        turn = size % 4
        self._mask = self._mask[turn:] + self._mask[:turn]
        if not self._left:
            self._left = None
        return piece

    def _check_text(self, piece: bytes, *, is_over: bool) -> None:
        try:
            self._text.decode(piece, is_over)
        except UnicodeDecodeError:
            raise Violation(Status.BAD_DATA, "a text message is not UTF-8") from None

    def _control(self, payload: bytes) -> Item:
        match self._opcode:
            case Opcode.PING:
                return Ping(payload)
            case Opcode.PONG:
                return Pong(payload)
            case _:
                self._is_closed = True
                self._buffer.clear()
                return _close_of(payload)


def _extended(raw: bytes) -> int:
    length = int.from_bytes(raw, "big")
    if length > _MAX_LENGTH:
        raise Violation(Status.PROTOCOL_ERROR, "the length of a frame has its highest bit set")
    if length < (_LENGTH_16 if len(raw) == 2 else 1 << 16):
        raise Violation(Status.PROTOCOL_ERROR, "the length of a frame is not in its shortest form")
    return length


def _close_of(payload: bytes) -> Close:
    if not payload:
        return Close(None)
    if len(payload) == 1:
        raise Violation(Status.PROTOCOL_ERROR, "a close frame has one byte")
    status = int.from_bytes(payload[:2], "big")
    # section 7.4.2; 1004 to 1006 and 1015 are never sent
    if not (1000 <= status <= 1014 or 3000 <= status <= 4999) or 1004 <= status <= 1006:
        raise Violation(Status.PROTOCOL_ERROR, f"close with status {status}")
    try:
        return Close(status, payload[2:].decode())
    except UnicodeDecodeError:
        raise Violation(Status.BAD_DATA, "the reason of a close frame is not UTF-8") from None


def _xor(data: bytes, mask: bytes) -> bytes:
    size = len(data)
    if not size:
        return b""
    pad = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(pad, "little")).to_bytes(size, "little")
