"""Images: list, inspect, history, tag, remove, prune, save, load, import, pull, push.

Spec: Docker Engine API v1.51, "Image" and "Distribution".
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orlop.aio.http_messages import Response
from orlop.api.errors import error_message
from orlop.api.query import Query
from orlop.api.registry_auth import find_registry_auth
from orlop.api.request import Answer, ErrorLine, Request, bytes_stream, json_response, progress_stream
from orlop.api.routes import Route
from orlop.base.errors import InvalidInput, OrlopError
from orlop.engine.filters import Filters
from orlop.engine.image_archives import ImportRequest
from orlop.engine.image_filters import LIST_KEYS
from orlop.oci.platform import Platform, parse_platform
from orlop.wire import gojson

if TYPE_CHECKING:
    from orlop.engine.engine import Engine

__all__ = ["ROUTES"]


@dataclass(frozen=True, slots=True)
class _PlatformQuery:
    os: str = gojson.field("os", default="")
    architecture: str = gojson.field("architecture", default="")
    variant: str = gojson.field("variant", default="")


async def list_images(engine: Engine, request: Request) -> Answer:
    query = request.query
    filters = query.filters()
    if query.get("filter") and request.version < (1, 41):  # before there were filters
        filters = Filters({key: filters.get(key) for key in LIST_KEYS} | {"reference": [query.get("filter")]})
    return json_response(
        await engine.images.list(
            filters,
            show_all=query.get_bool("all"),
            with_shared_size=query.get_bool("shared-size"),
            with_manifests=query.get_bool("manifests"),
        )
    )


async def inspect(engine: Engine, request: Request) -> Answer:
    query = request.query
    with_manifests = query.get_bool("manifests")
    platform = _platform(query)
    if with_manifests and platform is not None:
        raise InvalidInput("conflicting options: manifests and platform options cannot both be set")
    return json_response(
        await engine.images.inspect(request.params["name"], platform, with_manifests=with_manifests)
    )


async def history(engine: Engine, request: Request) -> Answer:
    return json_response(await engine.images.history(request.params["name"], _platform(request.query)))


async def tag(engine: Engine, request: Request) -> Answer:
    await engine.images.tag(request.params["name"], request.query.get("repo"), request.query.get("tag"))
    return Response(201)


async def remove(engine: Engine, request: Request) -> Answer:
    query = request.query
    return json_response(
        await engine.images.remove(
            request.params["name"],
            force=query.get_bool("force"),
            prune=not query.get_bool("noprune"),
            platforms=_platforms(query, "platforms"),
        )
    )


async def prune(engine: Engine, request: Request) -> Answer:
    return json_response(await engine.images.prune(request.query.filters()))


async def save(engine: Engine, request: Request) -> Answer:
    names = [request.params["name"]] if "name" in request.params else request.query.get_all("names")
    if not names:
        raise InvalidInput("no images to save: give names")
    platforms = _platforms(request.query, "platform")
    return bytes_stream(await engine.images.archives.save(names, platforms))


async def load(engine: Engine, request: Request) -> Answer:
    """The status is 200 in any case: clients look for the error in the stream."""
    query = request.query
    lines = engine.images.archives.load(
        aiter(request.body), _platforms(query, "platform"), is_quiet=query.get_bool("quiet")
    )
    return await progress_stream(_with_error_line(lines))


async def create(engine: Engine, request: Request) -> Answer:
    """Pull (`fromImage`) or import (`fromSrc`)."""
    query = request.query
    if query.get("fromImage"):
        auth = find_registry_auth(request.headers)
        return await progress_stream(
            engine.images.transfers.pull(
                query.get("fromImage"), query.get("tag"), query.get("platform"), auth
            )
        )
    source = query.get("fromSrc")
    if source != "-":
        raise InvalidInput(
            f"cannot import from {source[:200]!r}",
            hint="download it and import the file, or `-` for a stream",
        )
    wanted = ImportRequest(
        source=source,
        repository=query.get("repo"),
        tag=query.get("tag"),
        message=query.get("message"),
        changes=tuple(filter(None, query.get_all("changes"))),
        platform=_platform(query),
    )
    return await progress_stream(engine.images.archives.import_(aiter(request.body), wanted))


async def push(engine: Engine, request: Request) -> Answer:
    auth, query = find_registry_auth(request.headers), request.query
    return await progress_stream(
        engine.images.transfers.push(request.params["name"], query.get("tag"), auth, _platform(query))
    )


async def inspect_distribution(engine: Engine, request: Request) -> Answer:
    auth = find_registry_auth(request.headers)
    return json_response(await engine.images.transfers.inspect_distribution(request.params["name"], auth))


def _platform(query: Query) -> Platform | None:
    """`linux/arm64`, or the JSON object that newer clients send."""
    text = query.get("platform")
    return _parse(text) if text else None


def _platforms(query: Query, name: str) -> list[Platform]:
    """Every value of a parameter that may repeat."""
    return [_parse(text) for text in query.get_all(name) if text]


def _parse(text: str) -> Platform:
    if not text.startswith("{"):
        return parse_platform(text)
    wanted = gojson.decode(_PlatformQuery, text.encode())
    return parse_platform("/".join(filter(None, (wanted.os, wanted.architecture, wanted.variant))))


async def _with_error_line(lines: AsyncIterator[Any]) -> AsyncIterator[Any]:
    try:
        async for line in lines:
            yield line
    except (OrlopError, OSError) as error:
        yield ErrorLine.of(error_message(error))


ROUTES = (
    Route("ImageList", "GET", "/images/json", list_images),
    Route("ImageGetAll", "GET", "/images/get", save),
    Route("ImageLoad", "POST", "/images/load", load, scope="operate"),
    Route("ImageCreate", "POST", "/images/create", create, scope="operate"),
    Route("ImagePrune", "POST", "/images/prune", prune, since=(1, 25), scope="operate"),
    Route("ImageInspect", "GET", "/images/{name:.*}/json", inspect),
    Route("ImageHistory", "GET", "/images/{name:.*}/history", history),
    Route("ImageGet", "GET", "/images/{name:.*}/get", save),
    Route("ImagePush", "POST", "/images/{name:.*}/push", push, scope="operate"),
    Route("ImageTag", "POST", "/images/{name:.*}/tag", tag, scope="operate"),
    Route("ImageDelete", "DELETE", "/images/{name:.*}", remove, scope="operate"),
    Route("DistributionInspect", "GET", "/distribution/{name:.*}/json", inspect_distribution, since=(1, 30)),
)
