"""The event stream.

Spec: Docker Engine API v1.51, SystemEvents.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from orlop.api.negotiation import choose_type
from orlop.api.request import Answer, Request, json_lines
from orlop.api.routes import Route
from orlop.base.clock import SystemClock
from orlop.base.errors import InvalidInput
from orlop.engine.events import Event, Subscription
from orlop.engine.filters import parse_timestamp_ns

if TYPE_CHECKING:
    from orlop.engine.engine import Engine

__all__ = ["ROUTES"]

_JSON_SEQUENCE = "application/json-seq"  # RFC 7464: every document begins with a record separator
_TYPES = ("application/json", "application/x-ndjson", "application/jsonl", _JSON_SEQUENCE)
_RECORD_SEPARATOR = b"\x1e"


async def events(engine: Engine, request: Request) -> Answer:
    """Kept events since `since`, then live ones until `until`, the client's end, or ours."""
    query = request.query
    now_ns = SystemClock().now_ns()
    since_ns = parse_timestamp_ns(query.get("since"), now_ns) if query.get("since") else None
    until_ns = parse_timestamp_ns(query.get("until"), now_ns) if query.get("until") else None
    if since_ns is not None and until_ns is not None and since_ns > until_ns:
        raise InvalidInput(
            f"`since` time ({query.get('since')}) cannot be after `until` time ({query.get('until')})"
        )
    wanted = query.filter_values()
    subscription = engine.events.subscribe(since_ns=since_ns, until_ns=until_ns, filters=wanted)
    content_type = choose_type(request.headers.get("accept", ""), _TYPES, "application/json")
    start = _RECORD_SEPARATOR if content_type == _JSON_SEQUENCE else b""
    return json_lines(_closing(subscription), start=start, content_type=content_type)


async def _closing(subscription: Subscription) -> AsyncIterator[Event]:
    try:
        async for event in subscription:
            yield event
    finally:
        subscription.close()


ROUTES = (Route("SystemEvents", "GET", "/events", events),)
