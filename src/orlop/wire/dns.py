"""DNS messages as a small server sees them: one question in, an answer out. No I/O.

Read is only what a query has to have; whatever else is in it (EDNS, cookies) is passed over or on.
Compression pointers are not followed in questions: no client writes them there.
Source: RFC 1035 section 4, RFC 6891 (size of answers), RFC 8020.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = [
    "AAAA",
    "FORMAT_ERROR",
    "NO_ERROR",
    "NO_SUCH_NAME",
    "PTR",
    "REFUSED",
    "SERVER_FAILURE",
    "A",
    "BadQuery",
    "Query",
    "address_of_pointer",
    "answer",
    "encode_name",
    "failure",
    "parse_query",
    "pointer_record",
    "truncate",
]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

A, PTR, AAAA, _OPT = 1, 12, 28, 41
_IN = 1
NO_ERROR, FORMAT_ERROR, SERVER_FAILURE, NO_SUCH_NAME, REFUSED = 0, 1, 2, 3, 5

_HEADER = struct.Struct("!HHHHHH")
_RESPONSE, _RECURSION_WANTED, _RECURSION_THERE, _TRUNCATED = 0x8000, 0x0100, 0x0080, 0x0200
_OPCODE = 0x7800
_MAX_NAME = 255
_MAX_LABEL = 63
_PLAIN_UDP_BYTES = 512
_MAX_UDP_BYTES = 4096


class BadQuery(ValueError):
    """Not a query that can be answered; `reply` is what to send all the same, or b""."""

    def __init__(self, text: str, reply: bytes = b"") -> None:
        super().__init__(text)
        self.reply = reply


@dataclass(frozen=True, slots=True)
class Query:
    """A question. `name` is in lower case, without the last dot; `question` its bytes as they came."""

    id: int
    flags: int
    name: str
    kind: int
    question: bytes
    udp_bytes: int  # the largest answer that fits into a datagram

    @property
    def header_flags(self) -> int:
        """Those of an answer."""
        return _RESPONSE | _RECURSION_THERE | self.flags & (_RECURSION_WANTED | _OPCODE)


def parse_query(data: bytes) -> Query:
    """Read a query.

    Raises:
        BadQuery: it is cut short, an answer itself, of another kind or class, or has several questions.
    """
    if len(data) < _HEADER.size:
        raise BadQuery("shorter than a header")
    number, flags, questions, answers, authorities, extras = _HEADER.unpack_from(data)
    if flags & _RESPONSE:
        raise BadQuery("an answer")
    error = _HEADER.pack(number, _RESPONSE | flags & _OPCODE | FORMAT_ERROR, 0, 0, 0, 0)
    if flags & _OPCODE or questions != 1 or answers or authorities:
        raise BadQuery("not a plain question", error)
    labels, at = _read_name(data, _HEADER.size, error)
    if len(data) < at + 4:
        raise BadQuery("cut short", error)
    kind, klass = struct.unpack_from("!HH", data, at)
    if klass != _IN:
        raise BadQuery("not of the internet class", error)
    name = b".".join(labels).decode("latin-1").lower()
    size = _udp_bytes(data, at + 4, extras)
    return Query(number, flags, name, kind, data[_HEADER.size : at + 4], size)


def _read_name(data: bytes, at: int, error: bytes) -> tuple[list[bytes], int]:
    labels: list[bytes] = []
    start = at
    while at < len(data):
        length = data[at]
        at += 1
        if length == 0:
            return labels, at
        if length > _MAX_LABEL or at + length > len(data) or at + length - start > _MAX_NAME:
            break
        labels.append(data[at : at + length])
        at += length
    raise BadQuery("a name that is none", error)


def _udp_bytes(data: bytes, at: int, extras: int) -> int:
    """What an OPT record, if it is the first thing behind the question, says."""
    if extras and len(data) >= at + 11 and data[at] == 0:
        kind, size = struct.unpack_from("!HH", data, at + 1)
        if kind == _OPT:
            return max(_PLAIN_UDP_BYTES, min(int(size), _MAX_UDP_BYTES))
    return _PLAIN_UDP_BYTES


def answer(query: Query, addresses: Iterable[Address], ttl_s: int) -> bytes:
    """Addresses of the name that was asked for; those of the other IP version are left out."""
    records = [
        _record(A if address.version == 4 else AAAA, ttl_s, address.packed)
        for address in addresses
        if query.kind == (A if address.version == 4 else AAAA)
    ]
    return _message(query, NO_ERROR, records)


def pointer_record(query: Query, name: str, ttl_s: int) -> bytes:
    """The name of the address that was asked for."""
    return _message(query, NO_ERROR, [_record(PTR, ttl_s, encode_name(name))])


def failure(query: Query, code: int) -> bytes:
    """No answer, and why."""
    return _message(query, code, ())


def truncate(message: bytes, query: Query) -> bytes:
    """What fits into a datagram: an answer that is too large is replaced by a word to ask over TCP."""
    if len(message) <= query.udp_bytes:
        return message
    return _HEADER.pack(query.id, query.header_flags | _TRUNCATED, 1, 0, 0, 0) + query.question


def _message(query: Query, code: int, records: Sequence[bytes]) -> bytes:
    header = _HEADER.pack(query.id, query.header_flags | code, 1, len(records), 0, 0)
    return b"".join((header, query.question, *records))


def _record(kind: int, ttl_s: int, data: bytes) -> bytes:
    """A record of the name in the question, which begins at offset 12."""
    return struct.pack("!HHHIH", 0xC00C, kind, _IN, ttl_s, len(data)) + data


def encode_name(name: str) -> bytes:
    """A name as labels; what does not fit into one is cut."""
    labels = [label.encode("latin-1", "replace")[:_MAX_LABEL] for label in name.split(".") if label]
    return b"".join(bytes([len(label)]) + label for label in labels)[: _MAX_NAME - 1] + b"\0"


def address_of_pointer(name: str) -> Address | None:
    """The address that a name below in-addr.arpa or ip6.arpa stands for."""
    try:
        if name.endswith(".in-addr.arpa"):
            return ipaddress.IPv4Address(".".join(reversed(name.removesuffix(".in-addr.arpa").split("."))))
        if name.endswith(".ip6.arpa"):
            digits = "".join(reversed(name.removesuffix(".ip6.arpa").split(".")))
            return ipaddress.IPv6Address(int(digits, 16)) if len(digits) == 32 else None
    except ValueError:
        return None
    return None
