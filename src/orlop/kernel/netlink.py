"""Netlink messages: a socket that sends batches and hands back what the kernel answered.

One module for the framing that rtnetlink (links, addresses, routes) and nfnetlink (nftables)
share: headers, attributes, acknowledgements, dumps. A socket belongs to the network namespace
in which it was made and goes on working there wherever its owner goes: that is how a process
configures a namespace without living in it.

Source: linux/netlink.h; Documentation/userspace-api/netlink/intro.rst.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

__all__ = [
    "ACK",
    "CREATE",
    "DUMP",
    "EXCL",
    "REPLACE",
    "Message",
    "NetlinkError",
    "NetlinkSocket",
    "Reply",
    "attribute",
    "nested",
    "parse_attributes",
    "text",
    "u8",
    "u16",
    "u32",
]

REQUEST = 0x001
ACK = 0x004
DUMP = 0x300
REPLACE = 0x100
EXCL = 0x200
CREATE = 0x400
APPEND = 0x800

_ERROR = 2
_DONE = 3
_CAPPED = 0x100
_ACK_TLVS = 0x200
_SOL_NETLINK = 270
_CAP_ACK = 10
_EXT_ACK = 11
_EXT_MESSAGE = 1
_NESTED = 0x8000
_TYPE_MASK = 0x3FFF

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_RECEIVE_BYTES = 1 << 17
_BUFFER_BYTES = 1 << 20


class NetlinkError(OSError):
    """The kernel refused a message; `index` is its place in the batch."""

    def __init__(self, number: int, message: str, index: int) -> None:
        super().__init__(number, message or os.strerror(number))
        self.index = index


@dataclass(frozen=True, slots=True)
class Message:
    """One request: type, flags beyond REQUEST, and the bytes behind the header."""

    type: int
    flags: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """One message of an answer, without its header."""

    type: int
    payload: memoryview


def _pad(length: int) -> int:
    return -length % 4


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    return _ATTRIBUTE.pack(4 + len(value), kind) + value + bytes(_pad(len(value)))


def nested(kind: int, *attributes: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(kind | _NESTED, b"".join(attributes))


def u8(kind: int, value: int) -> bytes:
    """An attribute with one byte."""
    return attribute(kind, struct.pack("=B", value))


def u16(kind: int, value: int) -> bytes:
    """An attribute with two bytes in the host's order."""
    return attribute(kind, struct.pack("=H", value))


def u32(kind: int, value: int) -> bytes:
    """An attribute with four bytes in the host's order."""
    return attribute(kind, struct.pack("=I", value))


def text(kind: int, value: str) -> bytes:
    """An attribute with a string that ends with NUL."""
    return attribute(kind, value.encode() + b"\0")


def parse_attributes(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Attributes in order, flags of the type taken off; what is cut short ends them."""
    while len(data) >= 4:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if length < 4 or length > len(data):
            return
        yield kind & _TYPE_MASK, data[4:length]
        data = data[length + _pad(length) :]


class NetlinkSocket:
    """A socket of one netlink family in the present network namespace; a context manager.

    Owned by one thread. Requests block for as long as the kernel works on them.
    """

    def __init__(self, family: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
        try:
            self._socket.bind((0, 0))
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
            for option in (_CAP_ACK, _EXT_ACK):
                self._socket.setsockopt(_SOL_NETLINK, option, 1)
        except BaseException:
            self._socket.close()
            raise
        self._sequence = 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def fileno(self) -> int:
        """The descriptor; it goes with the object."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close it; may be repeated."""
        self._socket.close()

    def send(self, messages: Sequence[Message]) -> None:
        """Send a batch in one call and wait until the kernel has acknowledged every message with ACK.

        Raises:
            NetlinkError: of the first message that was refused. Those before it have happened, and with
                rtnetlink those behind it as well.
        """
        first = self._transmit(messages)
        awaited = {first + index for index, message in enumerate(messages) if message.flags & ACK}
        problem: NetlinkError | None = None
        while awaited:
            for sequence, kind, flags, payload in self._receive():
                if kind != _ERROR:
                    continue
                number = -struct.unpack_from("=i", payload)[0]
                if number and problem is None:
                    problem = NetlinkError(number, _extended(payload, flags), sequence - first)
                awaited.discard(sequence)
        if problem is not None:
            raise problem

    def ask(self, message: Message) -> list[Reply]:
        """Send one request and return what it answers: a dump, or the single message of a get.

        Raises:
            NetlinkError: ENODEV and the like.
        """
        first = self._transmit([message])
        is_dump = message.flags & DUMP == DUMP
        found: list[Reply] = []
        while True:
            for sequence, kind, flags, payload in self._receive():
                if sequence != first:
                    continue
                if kind == _DONE:
                    return found
                if kind == _ERROR:
                    number = -struct.unpack_from("=i", payload)[0]
                    if number:
                        raise NetlinkError(number, _extended(payload, flags), 0)
                    return found
                found.append(Reply(kind, payload))
                if not is_dump:
                    return found

    def _transmit(self, messages: Sequence[Message]) -> int:
        first = self._sequence
        packed = []
        for message in messages:
            length = _HEADER.size + len(message.payload)
            header = _HEADER.pack(length, message.type, REQUEST | message.flags, self._sequence, 0)
            packed += [header, message.payload, bytes(_pad(length))]
            self._sequence += 1
        self._socket.sendto(b"".join(packed), (0, 0))
        return first

    def _receive(self) -> Iterator[tuple[int, int, int, memoryview]]:
        """(sequence, type, flags, payload) of every message of one datagram."""
        data, _, flags, sender = self._socket.recvmsg(_RECEIVE_BYTES)
        if flags & socket.MSG_TRUNC:
            raise OSError(errno.EMSGSIZE, "a netlink answer was cut short")
        if sender[0] != 0:  # only the kernel has port 0
            return
        view = memoryview(data)
        while len(view) >= _HEADER.size:
            length, kind, message_flags, sequence, _ = _HEADER.unpack_from(view)
            if length < _HEADER.size or length > len(view):
                return
            yield sequence, kind, message_flags, view[_HEADER.size : length]
            view = view[length + _pad(length) :]


def _extended(payload: memoryview, flags: int) -> str:
    """What the kernel says in words, if it does."""
    if not flags & _ACK_TLVS:
        return ""
    echoed = 0 if flags & _CAPPED else struct.unpack_from("=I", payload, 4)[0] - _HEADER.size
    start = 4 + _HEADER.size + echoed + _pad(echoed)
    for kind, value in parse_attributes(payload[start:]):
        if kind == _EXT_MESSAGE:
            return bytes(value).rstrip(b"\0").decode("ascii", "replace")
    return ""
