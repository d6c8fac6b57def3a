"""The engine's API as Python calls: JSON in and out, streams as iterators, attach as a socket."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode

from orlop.base.errors import Kind, OrlopError
from orlop.client.connection import Exchange, send_request
from orlop.client.endpoint import Endpoint

__all__ = ["API_VERSION", "ApiError", "Client", "path_of"]

API_VERSION = "1.51"
_KINDS = {
    400: Kind.INVALID,
    401: Kind.UNAUTHORIZED,
    403: Kind.FORBIDDEN,
    404: Kind.NOT_FOUND,
    409: Kind.CONFLICT,
    501: Kind.UNSUPPORTED,
    503: Kind.UNAVAILABLE,
}


class ApiError(OrlopError):
    """The engine refused; `status` is the HTTP status, the message is the engine's."""

    code = "api"

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message, status=status)
        self.status = status
        self.kind = _KINDS.get(status, Kind.INTERNAL)  # type: ignore[misc] # the status decides


class Client:
    """Calls on one endpoint; every call opens a connection of its own, so it may be used in threads."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint

    def open(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        *,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Exchange:
        """Send a call and return its answer unread; the caller closes it.

        Args:
            method: GET, POST, ...
            path: below the version prefix, already quoted.
            query: values; lists repeat, booleans are 1 and 0, None and "" are left out.
            body: bytes or an iterable of bytes as they are, anything else as JSON.
            headers: further headers.

        Raises:
            ApiError: the status is 400 or more.
            CannotConnect: nobody listens.
        """
        sent = dict(headers or {})
        if body is not None and not isinstance(body, bytes | Iterator):
            body = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        target, host = self._target(path, query), self.endpoint.authority
        exchange = send_request(self.endpoint.connect(), method, target, sent, body, host=host)
        if exchange.head.status >= 400:
            raise ApiError(exchange.head.status, _message(exchange))
        return exchange

    @staticmethod
    def _target(path: str, query: Mapping[str, Any] | None) -> str:
        words: list[tuple[str, str]] = []
        for name, value in (query or {}).items():
            for item in value if isinstance(value, list | tuple) else [value]:
                if item is not None and item != "":
                    words.append((name, str(int(item)) if isinstance(item, bool) else str(item)))  # noqa: PERF401
        return f"/v{API_VERSION}{path}" + (f"?{urlencode(words)}" if words else "")

    def call(self, method: str, path: str, query: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """One call with a JSON answer (None when it has no body). Raises as `open`."""
        payload = self.open(method, path, query, **options).read()
        return json.loads(payload) if payload.strip() else None

    def lines(
        self, method: str, path: str, query: Mapping[str, Any] | None = None, **options: Any
    ) -> Iterator[dict[str, Any]]:
        """A call whose answer is a stream of JSON values: progress, events, stats. Raises as `open`."""
        exchange = self.open(method, path, query, **options)
        try:
            yield from _json_values(exchange.chunks())
        finally:
            exchange.close()

    def hijack(
        self, path: str, query: Mapping[str, Any] | None = None, body: Any = None
    ) -> tuple[socket.socket, bytes, bool]:
        """POST with an upgrade: the raw socket, early bytes, and whether streams are multiplexed."""
        headers = {"Connection": "Upgrade", "Upgrade": "tcp"}
        exchange = self.open("POST", path, query, body=body if body is not None else b"", headers=headers)
        connection, leftover = exchange.take_socket()
        is_multiplexed = "multiplexed" in exchange.head.headers.get("content-type", "")
        return connection, leftover, is_multiplexed


def path_of(*parts: str) -> str:
    """A quoted path: `path_of("images", "a/b", "json")` keeps the slashes of names."""
    return "".join("/" + quote(part, safe="/:@") for part in parts)


def _message(exchange: Exchange) -> str:
    payload = exchange.read()
    try:
        return str(json.loads(payload)["message"])
    except (ValueError, KeyError, TypeError):
        return payload.decode(errors="replace").strip() or f"status {exchange.head.status}"


def _json_values(chunks: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Values separated by newlines or by nothing, as Docker's streams have them."""
    decoder = json.JSONDecoder()
    text = ""
    pending = b""
    for chunk in chunks:
        pending += chunk
        cut = pending.rfind(b"}") + 1
        text += pending[:cut].decode()
        pending = pending[cut:]
        while text := text.lstrip():
            try:
                value, end = decoder.raw_decode(text)
            except ValueError:
                break
            yield value
            text = text[end:]
