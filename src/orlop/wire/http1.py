"""HTTP/1.1 heads and chunked bodies as pure functions on bytes, for servers and clients.

Theory of operation. A driver collects bytes until the empty line, hands the head to
`parse_request` or `parse_response`, asks `body_framing` how the body ends, and feeds body bytes to a
`ChunkedDecoder` or counts them. Nothing here reads ahead: whatever follows a message stays with the
driver, which is what makes pipelining, upgrades and hijacked connections simple.

Strictness follows one rule: if two implementations could disagree about where a message ends,
it is refused. Refused: bare LF or CR, NUL and control characters, obs-fold, white space before a colon,
Content-Length together with Transfer-Encoding, repeated or signed or list-valued Content-Length, any
transfer coding but a single `chunked`, Transfer-Encoding in HTTP/1.0, none or two Host headers.

Spec: RFC 9112 (syntax, sections 2 to 7), RFC 9110 (fields).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from orlop.base.errors import InvalidInput

__all__ = [
    "CHUNKED",
    "HTTP2_PREFACE",
    "LAST_CHUNK",
    "TO_EOF",
    "BadHttp",
    "ChunkedDecoder",
    "Headers",
    "RequestHead",
    "ResponseHead",
    "body_framing",
    "chunk_head",
    "encode_head",
    "parse_request",
    "parse_response",
    "response_framing",
]

MAX_HEAD_BYTES = 1 << 20  # build arguments and labels travel in the target; Go allows the same
MAX_FIELDS = 200
MAX_CHUNK_LINE = 256
MAX_TRAILER_BYTES = 8 << 10
_MAX_LENGTH_DIGITS = 18

HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
CHUNKED = -1
TO_EOF = -2

_REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}) ([\x21-\x7e\x80-\xff]+) HTTP/1\.([01])\r\n")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?\r\n")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*)\r\n")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?\r\n")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_BAD_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

Headers = dict[str, str]  # names in lower case; repeated fields joined by ", " as RFC 9110 section 5.3 allows


class BadHttp(InvalidInput):
    """The bytes are not HTTP/1.x that we accept; the connection cannot go on."""

    code = "bad-http"
    status: ClassVar[int] = 400


class HeadTooLarge(BadHttp):
    """Request line and headers are over the limits."""

    code = "http-head-too-large"
    status = 431


@dataclass(slots=True)
class RequestHead:
    """A request without its body; `target` is as received, `minor` is 1 for HTTP/1.1."""

    method: str
    target: str
    minor: int
    headers: Headers

    def keeps_alive(self) -> bool:
        """True when the client expects the connection to stay open."""
        tokens = connection_tokens(self.headers)
        return "close" not in tokens if self.minor else "keep-alive" in tokens


@dataclass(slots=True)
class ResponseHead:
    """A response without its body."""

    status: int
    reason: str
    minor: int
    headers: Headers

    def keeps_alive(self) -> bool:
        """True when the server keeps the connection open."""
        tokens = connection_tokens(self.headers)
        return "close" not in tokens if self.minor else "keep-alive" in tokens


def connection_tokens(headers: Headers) -> frozenset[str]:
    """The options of the Connection field, in lower case."""
    return frozenset(token.strip().lower() for token in headers.get("connection", "").split(","))


def parse_request(head: bytes) -> RequestHead:
    """Parse a request line and headers, the empty line included.

    Raises:
        BadHttp: anything but strict HTTP/1.0 or 1.1.
    """
    line = _REQUEST_LINE.match(head)
    if line is None:
        raise BadHttp(_explain_request_line(head))
    method, target, minor = line.groups()
    headers = _parse_fields(head, line.end())
    if minor == b"1" and "host" not in headers:
        raise BadHttp("missing required Host header")
    return RequestHead(method.decode("ascii"), target.decode("latin-1"), int(minor), headers)


def parse_response(head: bytes) -> ResponseHead:
    """Parse a status line and headers, the empty line included.

    Raises:
        BadHttp: anything but strict HTTP/1.0 or 1.1.
    """
    line = _STATUS_LINE.match(head)
    if line is None:
        raise BadHttp("malformed HTTP status line")
    minor, status, reason = line.groups()
    return ResponseHead(
        int(status), (reason or b"").decode("latin-1"), int(minor), _parse_fields(head, line.end())
    )


def body_framing(request: RequestHead) -> int:
    """How the request's body ends: a length in bytes, or CHUNKED.

    Raises:
        BadHttp: the framing is ambiguous.
    """
    return _framing(request.headers, request.minor, default=0)


def response_framing(response: ResponseHead, method: str) -> int:
    """How the response's body ends: a length in bytes, CHUNKED, or TO_EOF.

    Raises:
        BadHttp: the framing is ambiguous.
    """
    if method == "HEAD" or response.status < 200 or response.status in (204, 304):
        return 0
    return _framing(response.headers, response.minor, default=TO_EOF)


def encode_head(first_line: str, fields: Iterable[tuple[str, str]]) -> bytes:
    """A head with its empty line.

    Raises:
        ValueError: a name or value would break the message: our own bug, or hostile data let through.
    """
    parts = [first_line]
    for name, value in fields:
        if not _TOKEN.match(name) or _BAD_VALUE.search(value):
            raise ValueError(f"invalid header field {name[:40]!r}")
        parts.append(f"{name}: {value}")
    parts.append("\r\n")
    return "\r\n".join(parts).encode("latin-1", "replace")


def chunk_head(size: int) -> bytes:
    """What precedes a chunk of `size` bytes; CR LF follows it. Zero would end the body."""
    assert size > 0
    return b"%x\r\n" % size


class ChunkedDecoder:
    """Chunked body bytes to data, incrementally. `is_done` after the last trailer; `rest` follows it."""

    def __init__(self) -> None:
        self.is_done = False
        self._pending = b""
        self._left = 0  # bytes of the current chunk still to come
        self._needs_crlf = False
        self._in_trailer = False
        self._trailer_bytes = 0

    @property
    def rest(self) -> bytes:
        """Bytes after the body; meaningful once `is_done`."""
        return self._pending

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes from the wire, give the data they complete.

        Raises:
            BadHttp: malformed or oversized chunk framing.
        """
        out: list[bytes] = []
        buffer = self._pending + data if self._pending else data
        at = 0
        while not self.is_done:
            if self._left:
                piece = buffer[at : at + self._left]
                if not piece:
                    break
                out.append(piece)
                at += len(piece)
                self._left -= len(piece)
                self._needs_crlf = self._needs_crlf or not self._left
                continue
            moved = self._frame(buffer, at)
            if moved == at:
                break
            at = moved
        self._pending = buffer[at:]
        return out

    def _frame(self, buffer: bytes, at: int) -> int:
        """Advance over one piece of framing; the same position means that more bytes are needed."""
        if self._needs_crlf:
            if len(buffer) - at < 2:
                return at
            if buffer[at : at + 2] != b"\r\n":
                raise BadHttp("malformed chunked body: chunk is longer than it said")
            self._needs_crlf = False
            return at + 2
        end = buffer.find(b"\n", at)
        limit = MAX_TRAILER_BYTES if self._in_trailer else MAX_CHUNK_LINE
        if (len(buffer) if end < 0 else end) - at > limit:
            raise BadHttp("malformed chunked body: line too long")
        if end < 0:
            return at
        line = buffer[at : end + 1]
        if self._in_trailer:
            self._trailer(line)
        else:
            match = _CHUNK_LINE.fullmatch(line)
            if match is None:
                raise BadHttp("malformed chunked body: invalid chunk size")
            self._left = int(match[1], 16)
            self._in_trailer = not self._left
        return end + 1

    def _trailer(self, line: bytes) -> None:
        self._trailer_bytes += len(line)
        if line == b"\r\n":
            self.is_done = True
        elif self._trailer_bytes > MAX_TRAILER_BYTES or not _FIELD.fullmatch(line):
            raise BadHttp("malformed chunked body: invalid trailer")


def _parse_fields(head: bytes, at: int) -> Headers:
    headers: Headers = {}
    count = 0
    field = _FIELD.match
    while (match := field(head, at)) is not None:
        at = match.end()
        count += 1
        if count > MAX_FIELDS:
            raise HeadTooLarge("too many header fields")
        name, value = match[1].decode("ascii").lower(), match[2].decode("latin-1").rstrip(" \t")
        if name in headers:
            if name in _SINGLE:
                raise BadHttp(f"repeated {name} header")
            value = f"{headers[name]}{'; ' if name == 'cookie' else ', '}{value}"
        headers[name] = value
    if head[at:] != b"\r\n":
        raise BadHttp("malformed HTTP header")
    return headers


_SINGLE = frozenset(
    {"content-length", "transfer-encoding", "host", "content-type", "authorization", "x-registry-auth"}
)


def _framing(headers: Headers, minor: int, *, default: int) -> int:
    length, coding = headers.get("content-length"), headers.get("transfer-encoding")
    if coding is not None:
        if length is not None:
            raise BadHttp("both Content-Length and Transfer-Encoding")
        if minor == 0:
            raise BadHttp("Transfer-Encoding in HTTP/1.0")
        if coding.lower() != "chunked":
            raise BadHttp("unsupported transfer encoding")
        return CHUNKED
    if length is None:
        return default
    if not (length.isascii() and length.isdecimal()) or len(length) > _MAX_LENGTH_DIGITS:
        raise BadHttp("invalid Content-Length")
    return int(length)


def _explain_request_line(head: bytes) -> str:
    line = head[: head.find(b"\r\n")]
    if line[:3] == b"\x16\x03\x01" or line[:2] == b"\x16\x03":
        return "client sent a TLS handshake to a plain HTTP listener"
    if re.search(rb" HTTP/[^1]", line):
        return "unsupported HTTP version"
    return "malformed HTTP request line"
