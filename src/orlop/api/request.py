"""What a handler receives, and the answers it makes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, TypeVar

from orlop.aio.http_messages import (
    BodyReader,
    Hijack,
    MemoryBody,
    Peer,
    Response,
    StreamResponse,
)
from orlop.api.errors import error_message, status_of
from orlop.api.query import Query
from orlop.api.versions import MAX_VERSION, Version
from orlop.base.errors import InvalidInput
from orlop.wire import gojson

__all__ = [
    "Answer",
    "ErrorLine",
    "JsonResponse",
    "Request",
    "bytes_stream",
    "created",
    "json_lines",
    "json_response",
    "no_content",
    "progress_stream",
]

MAX_JSON_BODY = 8 << 20
JSON = ("Content-Type", "application/json")

T = TypeVar("T")


@dataclass(slots=True)
class Request:
    """One call of an operation: path parameters are decoded, `version` is the client's."""

    method: str
    path: str
    version: Version = MAX_VERSION
    operation: str = ""
    params: dict[str, str] = field(default_factory=dict)
    query: Query = field(default_factory=lambda: Query(""))
    headers: dict[str, str] = field(default_factory=dict)  # names in lower case
    body: BodyReader = field(default_factory=MemoryBody)
    peer: Peer = field(default_factory=lambda: Peer("unix"))
    rewrites: tuple[Callable[[dict[str, Any]], None], ...] = ()  # what the client's version does to a body

    async def json(self, cls: type[T], *, limit: int = MAX_JSON_BODY) -> T:
        """The JSON body as a `cls`.

        Raises:
            InvalidInput: wrong content type, too large, or not such a document.
        """
        data = await self.current_body(limit)
        self._check_content_type(is_empty=not data)
        return gojson.decode(cls, data, limit=limit)

    async def find_json(self, cls: type[T], *, limit: int = MAX_JSON_BODY) -> T | None:
        """The JSON body as a `cls`; None when there is no body."""
        data = await self.current_body(limit)
        if not data.strip():
            return None
        self._check_content_type(is_empty=False)
        return gojson.decode(cls, data, limit=limit)

    async def current_body(self, limit: int) -> bytes:
        """The JSON body as a client of the newest version would have sent it."""
        data = await self.body.read(limit)
        if not self.rewrites or not data.strip():
            return data
        body = gojson.parse(data, limit=limit)
        if isinstance(body, dict):
            for rewrite in self.rewrites:
                rewrite(body)
        return gojson.encode(body)

    def _check_content_type(self, *, is_empty: bool) -> None:
        # a browser can post text/plain across origins without asking, but not application/json
        given = self.headers.get("content-type", "")
        if given.partition(";")[0].strip().lower() == "application/json" or (is_empty and not given):
            return
        raise InvalidInput(f"unsupported Content-Type header ({given[:100]}): must be 'application/json'")


@dataclass(slots=True)
class JsonResponse:
    """A value that is encoded after the client's API version had its say."""

    value: object
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ErrorDetail:
    """The error of a progress stream; the docker client asks for a login when the code is 401."""

    code: int = gojson.field("code", omit_empty=True)
    message: str = gojson.field("message")


@dataclass(frozen=True, slots=True)
class ErrorLine:
    """The last line of a progress stream that failed."""

    error_detail: ErrorDetail = gojson.field("errorDetail")
    error: str = gojson.field("error")

    @classmethod
    def of(cls, message: str, code: int = 0) -> ErrorLine:
        """Both forms of one message."""
        return cls(ErrorDetail(code, message), message)


Answer = Response | JsonResponse | StreamResponse | Hijack


def json_response(value: object, status: int = 200) -> JsonResponse:
    """200 with a value: a dataclass, a list of them, or plain JSON values."""
    return JsonResponse(value, status)


def created(value: object) -> JsonResponse:
    """201 with a value."""
    return JsonResponse(value, 201)


def no_content() -> Response:
    """204."""
    return Response(204)


def bytes_stream(chunks: AsyncIterator[bytes], content_type: str = "application/x-tar") -> StreamResponse:
    """200 with bytes as they come."""
    return StreamResponse(chunks, headers=(("Content-Type", content_type),))


def json_lines(
    values: AsyncIterator[Any], *, start: bytes = b"", end: bytes = b"\n", content_type: str = JSON[1]
) -> StreamResponse:
    """200 at once, then one JSON document a line, each flushed; for events and stats."""

    async def lines() -> AsyncIterator[bytes]:
        async with aclosing(values) as source:  # type: ignore[type-var]  # every source here is a generator
            async for value in source:
                yield start + gojson.encode_line(value, end)

    return StreamResponse(lines(), headers=((JSON[0], content_type),))


async def progress_stream(values: AsyncIterator[Any]) -> Answer:
    """Docker's progress stream: pull, push, build, load, import.

    A failure before the first value is raised (the client sees its HTTP status); a later one becomes the
    last line, `{"errorDetail": {...}, "error": ...}`, because the status has been sent.
    """
    iterator = aiter(values)
    try:
        first = await anext(iterator)
    except StopAsyncIteration:
        return StreamResponse(_nothing(), headers=(JSON,))

    async def lines() -> AsyncIterator[bytes]:
        try:
            yield gojson.encode_line(first)
            async for value in iterator:
                yield gojson.encode_line(value)
        except (GeneratorExit, asyncio.CancelledError):
            raise
        except Exception as error:  # noqa: BLE001 - the border: everything becomes a line for the client
            code = 401 if status_of(error) == 401 else 0
            yield gojson.encode_line(ErrorLine.of(error_message(error), code))
        finally:
            close = getattr(iterator, "aclose", None)
            if close is not None:
                await close()

    return StreamResponse(lines(), headers=(JSON,))


async def _nothing() -> AsyncIterator[bytes]:
    empty: tuple[bytes, ...] = ()
    for chunk in empty:
        yield chunk
