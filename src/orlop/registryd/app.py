"""The border: a request of the HTTP server becomes a call, its errors become the spec's, its end a line.

Order: path, visitor, policy, switches (read-only, delete), handler, headers of every answer, access log.
"""

from __future__ import annotations

import asyncio
from time import monotonic

from orlop.aio.http_messages import AnyResponse, FileResponse, Response, ServerRequest
from orlop.base import log
from orlop.base.version import VERSION
from orlop.registryd import routes
from orlop.registryd.calls import Answer, Call, Route, Services
from orlop.registryd.meters import Meters
from orlop.registryd.problems import Problem, Word, problem_of, problem_response
from orlop.wire import gojson

__all__ = ["RegistryApp"]

_COMMON = (
    ("Docker-Distribution-Api-Version", "registry/2.0"),
    ("X-Content-Type-Options", "nosniff"),
    ("Server", f"Orlop/{VERSION}"),
)
_JSON = (("Content-Type", "application/json"),)
MAX_FORM_BYTES = 64 << 10


class RegistryApp:
    """Answers requests for one registry.

    Args:
        services: what it is made of.
        meters: what is counted.
        has_access_log: a line for every request.
    """

    def __init__(self, services: Services, meters: Meters, *, has_access_log: bool = True) -> None:
        self._services = services
        self._meters = meters
        self._has_access_log = has_access_log

    async def handle(self, incoming: ServerRequest) -> AnyResponse:
        """Answer one request; never raises but for cancellation."""
        started_s = monotonic()
        operation, user = "other", ""
        try:
            answer, operation, user = await self._answer(incoming)
        except asyncio.CancelledError:
            self._note(incoming, "cancelled", user, 499, 0, monotonic() - started_s)
            raise
        except Exception as error:  # noqa: BLE001 - the border between handlers and the wire
            answer = self._explain(error)
        size = answer.length if isinstance(answer, FileResponse) else len(getattr(answer, "body", b""))
        self._note(incoming, operation, user, answer.status, size, monotonic() - started_s)
        answer.headers = (*_COMMON, *answer.headers)
        return answer

    async def _answer(self, incoming: ServerRequest) -> tuple[Answer, str, str]:
        path, _, query_text = incoming.target.partition("?")
        place = routes.locate(path)
        query = routes.parse_query(query_text)
        if place is None:
            return await self._beside(incoming, path, query), path.strip("/") or "other", ""
        route = routes.find_route(incoming.method, place)
        visitor = await self._services.gate.identify(incoming)
        call = Call(self._services, incoming, place.name, place.reference, query, visitor)
        self._check(call, route)
        try:
            return await route.handler(call), route.operation, visitor.user
        except Exception as error:  # noqa: BLE001 - as above, but the operation is known
            return self._explain(error), route.operation, visitor.user

    def _check(self, call: Call, route: Route) -> None:
        settings, gate = self._services.settings, self._services.gate
        if route.action and route.action not in gate.allowed(call.visitor, call.name):
            raise gate.refuse(call.visitor, call.incoming, call.name, route.action)
        if route.action in {"push", "delete"} and settings.is_read_only:
            raise Problem(Word.UNSUPPORTED, "the registry is read-only")
        if route.action == "delete" and not settings.allows_delete:
            raise Problem(Word.UNSUPPORTED, "deletion is switched off")
        if route.action == "push" and settings.upstream_of(call.name) is not None:
            raise Problem(Word.UNSUPPORTED, "this repository caches another registry's: push there")

    async def _beside(self, incoming: ServerRequest, path: str, query: dict[str, list[str]]) -> Answer:
        """What is not part of the API: health, metrics, tokens."""
        match incoming.method, path:
            case "GET" | "HEAD", "/healthz":
                await self._services.storage.has_repository("healthz")
                return Response(200, gojson.encode({"status": "ok"}), _JSON)
            case "GET", "/metrics" if self._meters.is_public:
                return Response(200, self._meters.text(), (("Content-Type", self._meters.content_type),))
            case "GET", "/token" if self._services.gate.has_tokens:
                return await self._grant(incoming, query)
            case "POST", "/token" if self._services.gate.has_tokens:
                body = await incoming.body.read(MAX_FORM_BYTES)
                return await self._grant(incoming, routes.parse_query(body.decode("utf-8", "replace")))
            case _:
                raise Problem(Word.UNSUPPORTED, "page not found", status=404)

    async def _grant(self, incoming: ServerRequest, form: dict[str, list[str]]) -> Answer:
        answer = await self._services.gate.grant(incoming, form)
        return Response(200, gojson.encode(answer), (*_JSON, ("Cache-Control", "no-store")))

    def _explain(self, error: Exception) -> Response:
        problem = problem_of(error)
        if problem is None:
            log.error("request failed", error=repr(error))
            problem = Problem(Word.UNKNOWN, "internal error")
        return problem_response(problem)

    def _note(
        self, incoming: ServerRequest, operation: str, user: str, status: int, size: int, took_s: float
    ) -> None:
        self._meters.count(operation, incoming.method, status, size, took_s)
        if self._has_access_log:
            log.info(
                "access",
                peer=incoming.peer.address,
                user=user or "-",
                method=incoming.method,
                path=incoming.target[:512],
                status=status,
                bytes=size,
                took_ms=round(took_s * 1000, 1),
                agent=incoming.headers.get("user-agent", "-")[:200],
            )
