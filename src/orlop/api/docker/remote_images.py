"""Images in registries: search (Docker's), and what Orlop has beyond it below `/orlop/registry`.

Spec: Docker Engine API v1.51, ImageSearch; docs/reference/extensions.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orlop.aio.http_messages import Response
from orlop.api.registry_auth import find_registry_auth, registry_config
from orlop.api.request import Answer, Request, json_response, no_content, progress_stream
from orlop.api.routes import Route
from orlop.base.errors import InvalidInput

if TYPE_CHECKING:
    from orlop.engine.engine import Engine

__all__ = ["ROUTES"]


async def search(engine: Engine, request: Request) -> Answer:
    query = request.query
    limit = query.get("limit")
    if limit and not (limit.isdecimal() and len(limit) < 10):
        raise InvalidInput(f"invalid limit {limit[:60]!r}: a number is wanted")
    remote = engine.images.transfers.remote
    return json_response(
        await remote.search(query.get("term"), int(limit) if limit else None, query.filters())
    )


async def tags(engine: Engine, request: Request) -> Answer:
    auth = find_registry_auth(request.headers)
    return json_response(await engine.images.transfers.remote.tags(_name(request), auth))


async def manifest(engine: Engine, request: Request) -> Answer:
    """The exact bytes; the digest is theirs."""
    found = await engine.images.transfers.remote.manifest(
        _name(request), request.query.get("platform"), find_registry_auth(request.headers)
    )
    headers = (
        ("Content-Type", found.descriptor.media_type),
        ("Docker-Content-Digest", found.descriptor.digest),
    )
    return Response(200, found.data, headers)


async def referrers(engine: Engine, request: Request) -> Answer:
    return json_response(
        await engine.images.transfers.remote.referrers(
            _name(request), request.query.get("artifactType"), find_registry_auth(request.headers)
        )
    )


async def delete(engine: Engine, request: Request) -> Answer:
    await engine.images.transfers.remote.delete(_name(request), find_registry_auth(request.headers))
    return no_content()


async def copy(engine: Engine, request: Request) -> Answer:
    query = request.query
    source, target = query.get("from"), query.get("to")
    if not source or not target:
        raise InvalidInput("a copy needs from and to")
    auth = registry_config(request.headers)
    return await progress_stream(
        engine.images.transfers.remote.copy(source, target, query.get("platform"), auth)
    )


def _name(request: Request) -> str:
    name = request.query.get("name")
    if not name:
        raise InvalidInput("name is missing")
    return name


ROUTES = (
    Route("ImageSearch", "GET", "/images/search", search),
    Route("OrlopRegistryTags", "GET", "/orlop/registry/tags", tags),
    Route("OrlopRegistryManifest", "GET", "/orlop/registry/manifest", manifest),
    Route("OrlopRegistryReferrers", "GET", "/orlop/registry/referrers", referrers),
    Route("OrlopRegistryDelete", "DELETE", "/orlop/registry/manifest", delete, scope="operate"),
    Route("OrlopRegistryCopy", "POST", "/orlop/registry/copy", copy, scope="operate"),
)
