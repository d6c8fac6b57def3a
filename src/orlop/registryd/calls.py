"""A request once it is understood, and what handlers reach through it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orlop.aio.http_messages import FileResponse, Response, ServerRequest, StreamResponse
from orlop.registryd.access.gate import Gate, Visitor
from orlop.registryd.settings import RegistrySettings
from orlop.registryd.storage.contract import Storage

if TYPE_CHECKING:
    from orlop.registryd.cache import PullThrough

__all__ = ["Answer", "Call", "Handler", "Route", "Services"]

Answer = Response | StreamResponse | FileResponse


@dataclass(frozen=True, slots=True)
class Services:
    """What a server is made of."""

    storage: Storage
    settings: RegistrySettings
    gate: Gate
    cache: PullThrough | None = None


@dataclass(slots=True)
class Call:
    """One operation: `name` and `reference` are checked, `query` has all values of each parameter."""

    services: Services
    incoming: ServerRequest
    name: str
    reference: str
    query: Mapping[str, Sequence[str]]
    visitor: Visitor = field(default_factory=Visitor)

    def parameter(self, name: str) -> str:
        """The first value of a parameter, or ""."""
        values = self.query.get(name)
        return values[0] if values else ""

    def header(self, name: str) -> str:
        """A header's value, or ""; `name` in lower case."""
        return self.incoming.headers.get(name, "")

    @property
    def is_head(self) -> bool:
        """True when only the head of the answer is wanted."""
        return self.incoming.method == "HEAD"


Handler = Callable[[Call], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Route:
    """One operation of the API.

    Args:
        operation: its name in logs and metrics.
        method: `GET`, ...; GET routes do not answer HEAD by themselves.
        place: the kind of path, see `routes.locate`.
        action: what the policy must allow: pull, push, delete; "" is decided by the handler.
        handler: answers it.
    """

    operation: str
    method: str
    place: str
    action: str
    handler: Handler
