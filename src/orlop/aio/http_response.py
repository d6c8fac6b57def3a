"""What a client reads of a response: its head, its chunked body, and what may be wrong with it.

A thin dress over llhttp (httptools). Spec: RFC 9112.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import httptools

from orlop.base.errors import Kind, OrlopError

__all__ = ["BadResponse", "ConnectionBroken", "Head", "ResponseParser", "Stalled"]

_MAX_HEADERS = 200


class ConnectionBroken(OrlopError):
    """The peer closed or reset the connection in the middle."""

    kind = Kind.UNAVAILABLE
    code = "connection-broken"


class Stalled(OrlopError):
    """The peer is connected but sends nothing, or next to nothing."""

    kind = Kind.UNAVAILABLE
    code = "connection-stalled"


class BadResponse(OrlopError):
    """The peer does not speak HTTP/1.1 as specified."""

    kind = Kind.UNAVAILABLE
    code = "bad-http-response"


@dataclass(frozen=True, slots=True)
class Head:
    """Status line and headers of a final response."""

    status: int
    headers: Mapping[str, tuple[str, ...]]  # lower-case names
    keep_alive: bool

    def get(self, name: str, default: str = "") -> str:
        """The first value of a header."""
        values = self.headers.get(name)
        return values[0] if values else default


class ResponseParser:
    """Collects what llhttp reports of one response."""

    def __init__(self) -> None:
        self.headers: dict[str, tuple[str, ...]] = {}
        self.count = 0
        self.pieces: list[bytes] = []
        self.is_complete = False
        self.llhttp = httptools.HttpResponseParser(self)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.count += 1
        if self.count > _MAX_HEADERS:
            raise BadResponse(f"the response has more than {_MAX_HEADERS} headers")
        key = name.decode("latin-1").lower()
        self.headers[key] = (*self.headers.get(key, ()), value.decode("latin-1").strip())

    def on_body(self, body: bytes) -> None:
        self.pieces.append(body)

    def on_message_complete(self) -> None:
        self.is_complete = True

    def feed(self, data: memoryview) -> None:
        try:
            self.llhttp.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            if isinstance(error.__context__, OrlopError):
                raise error.__context__ from None
            raise BadResponse(f"malformed HTTP response: {error}") from error
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            raise BadResponse(f"malformed HTTP response: {error}") from error

    def head(self) -> Head:
        """The head, once it was fed; raises BadResponse for a version that is not ours."""
        version: str = self.llhttp.get_http_version()
        if version not in {"1.0", "1.1"}:
            raise BadResponse(f"the response is in HTTP/{version}")
        # llhttp's own answer is wrong here: it forgets the length of an empty message
        words = {word.strip().lower() for word in ",".join(self.headers.get("connection", ())).split(",")}
        keep_alive = "close" not in words and (version == "1.1" or "keep-alive" in words)
        return Head(self.llhttp.get_status_code(), self.headers, keep_alive)
