"""Ping, version, info, disk usage, login.

Spec: Docker Engine API v1.51, "System".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orlop.aio.http_messages import Response
from orlop.api.request import Answer, Request, json_response
from orlop.api.routes import Route
from orlop.base.errors import InvalidInput
from orlop.engine.auth import AuthConfig
from orlop.engine.system import USAGE_TYPES

if TYPE_CHECKING:
    from orlop.engine.engine import Engine

__all__ = ["ROUTES"]

# Builder 1 is the classic one (POST /build); 2 would make clients look for BuildKit's /grpc and /session.
_PING_HEADERS = (
    ("Builder-Version", "1"),
    ("Swarm", "inactive"),
    ("Cache-Control", "no-cache, no-store, must-revalidate"),
    ("Pragma", "no-cache"),
    ("Content-Type", "text/plain; charset=utf-8"),
)


async def ping(_engine: Engine, request: Request) -> Answer:
    """`OK`, and the headers from which a client learns what we are."""
    return Response(200, b"" if request.method == "HEAD" else b"OK", _PING_HEADERS)


async def version(engine: Engine, _request: Request) -> Answer:
    return json_response(engine.system.version())


async def info(engine: Engine, _request: Request) -> Answer:
    return json_response(await engine.system.info())


async def doctor(engine: Engine, _request: Request) -> Answer:
    """An extension of ours: no other engine has it."""
    return json_response(await engine.system.doctor())


async def disk_usage(engine: Engine, request: Request) -> Answer:
    types = request.query.get_all("type")
    for name in types:
        if name not in USAGE_TYPES:
            raise InvalidInput(f"unknown object type: {name[:60]}")
    return json_response(await engine.system.df(types))


async def auth(engine: Engine, request: Request) -> Answer:
    return json_response(await engine.system.login(await request.json(AuthConfig, limit=1 << 16)))


ROUTES = (
    Route("SystemPing", "GET", "/_ping", ping),
    Route("SystemPingHead", "HEAD", "/_ping", ping),
    Route("SystemVersion", "GET", "/version", version),
    Route("SystemInfo", "GET", "/info", info),
    Route("OrlopDoctor", "GET", "/orlop/doctor", doctor),
    Route("SystemDataUsage", "GET", "/system/df", disk_usage, since=(1, 25)),
    Route("SystemAuth", "POST", "/auth", auth, scope="operate"),
)
