"""The door: a request of the HTTP server becomes one call of a handler.

Order: origin check, version prefix, route, handler, version shims, encoding, the headers that every
answer has. Every exception ends here as Docker's error JSON.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from itertools import chain
from time import monotonic
from typing import Any
from urllib.parse import unquote_to_bytes

from orlop.aio.http_messages import AnyResponse, Hijack, Response, ServerRequest
from orlop.api.docker import (
    build,
    container_streams,
    containers,
    events,
    execs,
    image_extensions,
    image_sending,
    images,
    networks,
    remote_images,
    system,
    volume_extensions,
    volumes,
    websockets,
)
from orlop.api.docker.request_shims import request_shims_for
from orlop.api.docker.shims import shims_for
from orlop.api.docker.unsupported import unsupported_routes
from orlop.api.errors import error_response, message_response
from orlop.api.guard import check_origin
from orlop.api.query import Query
from orlop.api.request import Answer, JsonResponse, Request
from orlop.api.routes import Route, Router
from orlop.api.tracing import begin_span, end_span
from orlop.api.versions import MAX_VERSION, Version, parse_version, version_text
from orlop.base import log, trace
from orlop.base.errors import InvalidInput
from orlop.base.version import VERSION
from orlop.wire import gojson

__all__ = ["App", "build_routes"]

_PREFIX = re.compile(r"/v([0-9][0-9.]*)(/.*)\Z", re.DOTALL)
_JSON = (("Content-Type", "application/json"),)


def build_routes() -> tuple[Route, ...]:
    """All operations, in the order in which they are tried."""
    nouns = (
        system,
        events,
        containers,
        container_streams,
        websockets,
        execs,
        images,
        image_extensions,
        image_sending,
        remote_images,
        build,
        networks,
        volumes,
        volume_extensions,
    )
    return (*chain.from_iterable(noun.ROUTES for noun in nouns), *unsupported_routes())


class App:
    """Answers requests for one engine."""

    def __init__(
        self,
        engine: Any,
        routes: tuple[Route, ...] | None = None,
        *,
        allowed_hosts: frozenset[str] = frozenset(),
        is_experimental: bool = False,
        on_answer: Callable[[str, int, float], None] | None = None,
    ) -> None:
        self._engine = engine
        self._on_answer = on_answer  # counts: operation, status, seconds
        self._router = Router(build_routes() if routes is None else routes)
        self._allowed_hosts = allowed_hosts
        self._common = (
            ("Api-Version", version_text(MAX_VERSION)),
            ("Docker-Experimental", "true" if is_experimental else "false"),
            ("Ostype", "linux"),
            ("Server", f"Orlop/{VERSION} (linux)"),
        )

    async def handle(self, incoming: ServerRequest) -> AnyResponse:
        """Answer one request; never raises but for cancellation."""
        started = monotonic()
        operation = "?"
        path = incoming.target.partition("?")[0]
        span = begin_span(incoming) if trace.is_on() else None
        try:
            check_origin(incoming.headers, incoming.peer, self._allowed_hosts)
            request, route = self._resolve(incoming)
            if route is None:
                response: AnyResponse = self._no_route(request)
            else:
                operation = request.operation
                answer = await route.handler(self._engine, request)
                response = self._finish(answer, request)
        except asyncio.CancelledError as error:
            log.debug("request cancelled", method=incoming.method, path=path, operation=operation)
            if span is not None:
                span.end(error)
            raise
        except Exception as error:  # noqa: BLE001 - the border between handlers and the wire
            response = error_response(error, operation=operation)
        status = 101 if isinstance(response, Hijack) else response.status
        took_s = monotonic() - started
        if self._on_answer is not None:
            self._on_answer(operation, status, took_s)
        if span is not None:
            end_span(span, response, operation, status)
        log.debug(
            "request",
            method=incoming.method,
            path=path,
            operation=operation,
            status=status,
            took_ms=round(took_s * 1000, 1),
        )
        response.headers = (*self._common, *response.headers)
        return response

    def _resolve(self, incoming: ServerRequest) -> tuple[Request, Route | None]:
        raw_path, _, raw_query = incoming.target.partition("?")
        path, version = _split_version(_decode_path(raw_path))
        route, params, allowed = self._router.find(incoming.method, path, version)
        request = Request(
            incoming.method,
            path,
            version,
            route.operation if route else "",
            params,
            Query(raw_query),
            incoming.headers,
            incoming.body,
            incoming.peer,
        )
        request.params = params if route else {"allowed": ", ".join(allowed)}
        if version < MAX_VERSION:
            _apply_version(request)
        return request, route

    def _no_route(self, request: Request) -> Response:
        allowed = request.params.get("allowed", "")
        if not allowed:
            return message_response(404, "page not found")
        response = message_response(405, f"method {request.method} is not allowed here: use {allowed}")
        response.headers += (("Allow", allowed),)
        return response

    def _finish(self, answer: Answer, request: Request) -> AnyResponse:
        if not isinstance(answer, JsonResponse):
            return answer
        value = answer.value
        shims = shims_for(request.operation, request.version)
        if shims:
            value = gojson.parse(gojson.encode(value), limit=1 << 30)
            for shim in shims:
                value = shim.rewrite(value)
        return Response(answer.status, gojson.encode(value), (*_JSON, *answer.headers))


def _apply_version(request: Request) -> None:
    """Take away what the client's version does not have."""
    rows = request_shims_for(request.operation, request.version)
    for row in rows:
        for name in row.drops:
            request.query.discard(name)
    request.rewrites = tuple(row.rewrite for row in rows)


def _decode_path(raw: str) -> str:
    """The path with its escapes resolved, once.

    Raises:
        InvalidInput: not an absolute path, or it holds a NUL.
    """
    if raw.startswith(("http://", "https://")):  # absolute form, as proxies send it
        raw = "/" + raw.partition("://")[2].partition("/")[2]
    if not raw.startswith("/"):
        raise InvalidInput("malformed request path")
    path = unquote_to_bytes(raw.encode("latin-1")).decode("utf-8", "replace") if "%" in raw else raw
    if "\0" in path:
        raise InvalidInput("malformed request path")
    return path


def _split_version(path: str) -> tuple[str, Version]:
    prefix = _PREFIX.match(path)
    if prefix is None:
        return path, MAX_VERSION
    return prefix[2], parse_version(prefix[1])
