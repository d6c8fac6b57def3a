"""One HTTP/1.1 exchange on a blocking socket: small, because every `orlop ps` pays for its import.

Only what a client of our own engine needs: requests with a known or a chunked body, answers with
a length, chunked, or until the end; after 101 the socket itself is the stream.

Spec: RFC 9112.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from orlop.base.errors import Kind, OrlopError

__all__ = ["BadAnswer", "Exchange", "Head", "send_request"]

_READ_BYTES = 256 * 1024
_MAX_HEAD_BYTES = 64 * 1024


class BadAnswer(OrlopError):
    """The peer does not speak HTTP, or hung up in the middle."""

    kind = Kind.UNAVAILABLE
    code = "bad-answer"


@dataclass(frozen=True, slots=True)
class Head:
    """Status and headers of an answer; header names in lower case."""

    status: int
    reason: str
    headers: Mapping[str, str] = field(default_factory=dict)


class Exchange:
    """An answer that is being read. Owns the socket until `close` or `take_socket`."""

    def __init__(self, connection: socket.socket, method: str = "GET") -> None:
        self._socket = connection
        self._method = method
        self._buffer = b""
        self.head = self._read_head()

    def _more(self) -> bool:
        data = self._socket.recv(_READ_BYTES)
        self._buffer += data
        return bool(data)

    def _line(self) -> bytes:
        while b"\n" not in self._buffer:
            if len(self._buffer) > _MAX_HEAD_BYTES or not self._more():
                raise BadAnswer("the engine hung up in the middle of its answer", hint=self._tls_hint())
        line, self._buffer = self._buffer.split(b"\n", 1)
        return line.rstrip(b"\r")

    def _tls_hint(self) -> str | None:
        """With TLS 1.3 a client learns only after the handshake that its certificate is refused."""
        if not hasattr(self._socket, "unwrap") or hasattr(self, "head"):
            return None
        return "does the engine know the authority that signed your certificate?"

    def _read_head(self) -> Head:
        while True:
            parts = self._line().decode("latin-1").split(" ", 2)
            if len(parts) < 2 or not parts[0].startswith("HTTP/1.") or not parts[1].isdecimal():
                raise BadAnswer(f"this is not HTTP: {' '.join(parts)[:100]!r}")
            headers: dict[str, str] = {}
            while line := self._line():
                name, _, value = line.decode("latin-1").partition(":")
                headers[name.lower()] = value.strip()
            if parts[1] != "100":
                return Head(int(parts[1]), parts[2] if len(parts) > 2 else "", headers)

    def chunks(self) -> Iterator[bytes]:
        """The body as it arrives; ends when the message ends."""
        headers = self.head.headers
        if self.head.status in {204, 304} or self._method == "HEAD":
            return
        if headers.get("transfer-encoding", "").lower() == "chunked":
            yield from self._chunked()
        elif "content-length" in headers:
            yield from self._exactly(int(headers["content-length"]))
        else:
            if self._buffer:
                yield self._buffer
                self._buffer = b""
            while data := self._socket.recv(_READ_BYTES):
                yield data

    def _exactly(self, count: int) -> Iterator[bytes]:
        while count:
            if not self._buffer and not self._more():
                raise BadAnswer("the engine hung up in the middle of its answer")
            piece, self._buffer = self._buffer[:count], self._buffer[count:]
            count -= len(piece)
            yield piece

    def _chunked(self) -> Iterator[bytes]:
        while True:
            size = int(self._line().split(b";")[0], 16)
            if not size:
                while self._line():
                    pass
                return
            yield from self._exactly(size)
            self._line()

    def read(self) -> bytes:
        """The whole body; the socket is closed."""
        try:
            return b"".join(self.chunks())
        finally:
            self.close()

    def take_socket(self) -> tuple[socket.socket, bytes]:
        """After 101: the raw socket, now the caller's, and bytes that had already arrived."""
        leftover, self._buffer = self._buffer, b""
        if not hasattr(self._socket, "unwrap"):
            return self._socket, leftover
        from orlop.client.tls import plain_socket

        return plain_socket(self._socket), leftover

    def close(self) -> None:
        """Hang up. May be called twice."""
        self._socket.close()


def send_request(
    connection: socket.socket,
    method: str,
    target: str,
    headers: Mapping[str, str],
    body: bytes | Iterable[bytes] | None = None,
    *,
    host: str = "orlop",
) -> Exchange:
    """Send a request and read the head of its answer; bytes go with a length, an iterable in chunks.

    `host` is the engine's address on TCP: it refuses names that it does not know.
    """
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", "User-Agent: orlop"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if isinstance(body, bytes):
        lines.append(f"Content-Length: {len(body)}")
    elif body is not None:
        lines.append("Transfer-Encoding: chunked")
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
    try:
        if isinstance(body, bytes):
            connection.sendall(head + body)
        else:
            connection.sendall(head)
            if body is not None:
                _send_chunks(connection, body)
        return Exchange(connection, method)
    except BaseException:
        connection.close()
        raise


def _send_chunks(connection: socket.socket, body: Iterable[bytes]) -> None:
    try:
        for piece in body:
            if piece:
                connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
        connection.sendall(b"0\r\n\r\n")
    except (BrokenPipeError, ConnectionResetError):
        return  # the engine refused early; its answer says why
