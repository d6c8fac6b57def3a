"""Builds: `POST /build` in the classic protocol, cancelling, pruning the cache.

Spec: Docker Engine API v1.51, "Image": ImageBuild, BuildCancel, BuildPrune. The body is a tar,
plain or compressed whatever its content type says, read while the answer is on its way.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from orlop.aio.http_messages import Response
from orlop.api.query import Query
from orlop.api.registry_auth import registry_config
from orlop.api.request import Answer, Request, json_response, progress_stream
from orlop.api.routes import Route
from orlop.base.errors import InvalidInput
from orlop.build.executor import Limits
from orlop.engine.build_views import BuildRequest

if TYPE_CHECKING:
    from orlop.engine.engine import Engine

__all__ = ["ROUTES"]

_MAX_ITEMS = 10_000


async def build(engine: Engine, request: Request) -> Answer:
    """Build an image."""
    query = request.query
    if query.get("version", "1") != "1":
        raise InvalidInput(
            "BuildKit is not served at this endpoint",
            hint="build with DOCKER_BUILDKIT=0, or with orlop build",
        )
    if query.get("remote"):
        raise InvalidInput(
            f"a remote context is not supported yet: {query.get('remote')[:200]}",
            hint="fetch it first and send it as the context",
        )
    wanted = _build_request(query, request)
    return await progress_stream(engine.builds.build(wanted, aiter(request.body)))


async def cancel(engine: Engine, request: Request) -> Answer:
    """Stop a build by the id it was given."""
    build_id = request.query.get("id")
    if not build_id:
        raise InvalidInput("build ID not specified")
    engine.builds.cancel(build_id)
    return Response(200)


async def prune(engine: Engine, request: Request) -> Answer:
    """Remove records of the build cache."""
    query = request.query
    keeps = query.get_int("reserved-space") or query.get_int("keep-storage")
    most = query.get_int("max-used-space")
    return json_response(
        await engine.builds.cache.prune(
            query.filters(), removes_all=query.get_bool("all"), keeps_bytes=max(keeps, most)
        )
    )


def _build_request(query: Query, request: Request) -> BuildRequest:
    return BuildRequest(
        tags=tuple(tag for tag in query.get_all("t") if tag),
        dockerfile=query.get("dockerfile") or "Dockerfile",
        target=query.get("target"),
        platform=query.get("platform"),
        build_args=_text_map(query, "buildargs"),
        labels=_text_map(query, "labels"),
        cache_from=tuple(_text_list(query, "cachefrom")),
        extra_hosts=_extra_hosts(query),
        network_mode=query.get("networkmode"),
        ulimits=_ulimits(query),
        shm_size_bytes=query.get_int("shmsize"),
        cgroup_parent=query.get("cgroupparent"),
        limits=Limits(
            memory_bytes=query.get_int("memory"),
            memory_swap_bytes=query.get_int("memswap"),
            cpu_shares=query.get_int("cpushares"),
            cpu_period_us=query.get_int("cpuperiod"),
            cpu_quota_us=query.get_int("cpuquota"),
            cpuset_cpus=query.get("cpusetcpus"),
            cpuset_mems=query.get("cpusetmems"),
        ),
        is_quiet=query.get_bool("q"),
        ignores_cache=query.get_bool("nocache"),
        pulls=query.get_bool("pull"),
        removes=query.get_bool("rm", default=True) or query.get_bool("forcerm"),
        applies_ignore=query.get_bool("dockerignore"),
        build_id=query.get("buildid"),
        auth=registry_config(request.headers),
    )


def _document(query: Query, name: str) -> Any:
    text = query.get(name)
    if not text:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidInput(f"error reading build {name}: invalid JSON") from None


def _text_map(query: Query, name: str) -> dict[str, str]:
    """A JSON object of strings; null values mean "from the daemon's environment", where there is none."""
    found = _document(query, name)
    if found is None:
        return {}
    if not isinstance(found, dict) or len(found) > _MAX_ITEMS:
        raise InvalidInput(f"error reading build {name}: expected an object of strings")
    if not all(isinstance(value, str | None) for value in found.values()):
        raise InvalidInput(f"error reading build {name}: expected an object of strings")
    return {key: value for key, value in found.items() if value is not None}


def _text_list(query: Query, name: str) -> list[str]:
    found = _document(query, name)
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise InvalidInput(f"error reading build {name}: expected a list of strings")
    return found[:_MAX_ITEMS]


def _extra_hosts(query: Query) -> tuple[str, ...]:
    """Repeated `name:ip` (docker CLI), or one JSON object (docker-py)."""
    values = query.get_all("extrahosts")
    if len(values) == 1 and values[0].startswith("{"):
        return tuple(f"{name}:{address}" for name, address in _text_map(query, "extrahosts").items())
    return tuple(value for value in values if value)


def _ulimits(query: Query) -> tuple[tuple[str, int, int], ...]:
    found = _document(query, "ulimits")
    if found is None:
        return ()
    limits = []
    for item in found if isinstance(found, list) else [found]:
        values = (item.get("Name"), item.get("Soft"), item.get("Hard")) if isinstance(item, dict) else ()
        if (
            len(values) != 3
            or not isinstance(values[0], str)
            or not all(isinstance(n, int) for n in values[1:])
        ):
            raise InvalidInput("error reading ulimit settings: expected a list of Name, Soft and Hard")
        limits.append((values[0].lower(), int(values[1] or 0), int(values[2] or 0)))
    return tuple(limits)


ROUTES = (
    Route("ImageBuild", "POST", "/build", build, scope="build"),
    Route("BuildPrune", "POST", "/build/prune", prune, since=(1, 31), scope="build"),
    Route("BuildCancel", "POST", "/build/cancel", cancel, since=(1, 38), scope="build"),
)
