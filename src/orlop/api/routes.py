"""Routes as data, and the table that finds one.

A path template has `{name}` for one segment and `{name:.*}` for an image name with slashes.
Templates are tried in order, static ones first, as they are in dockerd's router.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from orlop.api.request import Answer, Request
from orlop.api.versions import MIN_VERSION, Version

__all__ = ["Handler", "Route", "Router"]

Handler = Callable[[Any, Request], Awaitable[Answer]]

SCOPES = frozenset({"read", "operate", "build", "admin"})
_PLACEHOLDER = re.compile(r"\{([a-z_]+)(:\.\*)?\}")


@dataclass(frozen=True, slots=True)
class Route:
    """One operation of the API.

    Args:
        operation: its name in the Engine API description, e.g. `ContainerList`.
        method: `GET`, `POST`, ...; a GET route does not answer HEAD by itself.
        path: template without version prefix.
        handler: `async (engine, request) -> answer`.
        since: first API version that has it.
        scope: `read`, `operate`, `build` or `admin`: what a caller must be allowed to do.
        until: last API version that has it, None for all.
    """

    operation: str
    method: str
    path: str
    handler: Handler
    since: Version = MIN_VERSION
    scope: str = "read"
    until: Version | None = None

    def __post_init__(self) -> None:
        assert self.scope in SCOPES, self.scope

    def serves(self, version: Version) -> bool:
        """True when clients of `version` may call it."""
        return self.since <= version and (self.until is None or version <= self.until)


class Router:
    """Finds routes by path. Built once."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        self._static: dict[str, list[Route]] = {}
        self._dynamic: dict[str, list[tuple[re.Pattern[str], Route]]] = {}
        for route in self.routes:
            if "{" in route.path:
                first = route.path.split("/")[1]
                self._dynamic.setdefault(first, []).append((_compile(route.path), route))
            else:
                self._static.setdefault(route.path, []).append(route)

    def find(
        self, method: str, path: str, version: Version
    ) -> tuple[Route | None, dict[str, str], list[str]]:
        """The route and its parameters; without a route, the methods that the path does have."""
        allowed: list[str] = []
        for route in self._static.get(path, ()):
            if route.serves(version):
                if route.method == method:
                    return route, {}, []
                allowed.append(route.method)
        first = path[1:].partition("/")[0]
        for pattern, route in self._dynamic.get(first, ()):
            if not route.serves(version):
                continue
            matched = pattern.fullmatch(path)
            if matched is not None:
                if route.method == method:
                    return route, matched.groupdict(), []
                allowed.append(route.method)
        return None, {}, allowed


def _compile(template: str) -> re.Pattern[str]:
    parts: list[str] = []
    at = 0
    for hole in _PLACEHOLDER.finditer(template):
        parts.append(re.escape(template[at : hole.start()]))
        parts.append(f"(?P<{hole[1]}>{'.+' if hole[2] else '[^/]+'})")
        at = hole.end()
    parts.append(re.escape(template[at:]))
    return re.compile("".join(parts), re.DOTALL)
