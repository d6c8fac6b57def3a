"""What a container may ask of the engine over a socket of its own: roles as data.

A role is a list of operations; every other route answers 403. `own-children` also sees nothing but the
containers that were created over that same socket, and creates only harmless ones: what could reach the
host, another container or the engine is refused, field by field, and an unknown field is refused, too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from orlop.api.request import Answer, Request, created, json_response
from orlop.api.routes import Handler, Route
from orlop.base.errors import Kind, OrlopError
from orlop.engine.apisockets import as_child
from orlop.engine.catalog import NoSuchContainer
from orlop.engine.requests import CreateBody, HostConfig, OrlopConfig
from orlop.engine.summaries import ListOptions

if TYPE_CHECKING:
    from orlop.engine.engine import Engine

__all__ = ["NotAllowed", "check_child", "role_routes"]

_ABOUT = frozenset("SystemPing SystemPingHead SystemVersion SystemInfo".split())
_LOOK = frozenset(
    "ContainerList ContainerInspect ContainerTop ContainerLogs ContainerChanges ContainerStats "
    "ContainerStatsHistory ContainerWait ImageList ImageInspect ImageHistory NetworkList NetworkInspect "
    "VolumeList VolumeInspect SystemEvents SystemDataUsage".split()
)
_BUILD = frozenset("ImageBuild BuildCancel ImageList ImageInspect ImageHistory".split())
_ON_CHILDREN = frozenset(
    "ContainerInspect ContainerTop ContainerLogs ContainerChanges ContainerStats ContainerResize "
    "ContainerStart ContainerStop ContainerRestart ContainerKill ContainerPause ContainerUnpause "
    "ContainerWait ContainerDelete ContainerAttach".split()
)
_SEE_IMAGES = frozenset("ImageList ImageInspect ImageHistory".split())

# fields of HostConfig that a child may set as it likes; of all others only what means "nothing asked"
_FREE = frozenset(
    "auto_remove cap_drop console_size cpu_shares cpu_period cpu_quota nano_cpus cpuset_cpus cpuset_mems dns "
    "dns_options dns_search extra_hosts init memory memory_reservation memory_swap memory_swappiness "
    "readonly_rootfs tmpfs container_id_file".split()
)
_WORDS = {
    "network_mode": ("", "default", "bridge", "none"),
    "ipc_mode": ("", "private", "none"),
    "cgroupns_mode": ("", "private"),
    "isolation": ("", "default"),
}


class NotAllowed(OrlopError):
    """The role of this socket does not include what was asked."""

    kind = Kind.FORBIDDEN
    code = "role"
    remedy = "make the container with another --api-socket role, or ask the engine from outside"


def role_routes(routes: Iterable[Route], role: str, parent: str) -> tuple[Route, ...]:
    """The routes as a role has them.

    Args:
        routes: all of them.
        role: `read-only`, `build` or `own-children`.
        parent: id of the container that is given the socket.
    """
    return tuple(replace(route, handler=_handler(route, role, parent)) for route in routes)


def _handler(route: Route, role: str, parent: str) -> Handler:
    name = route.operation
    match role:
        case "read-only" if name in _ABOUT | _LOOK:
            return route.handler
        case "build" if name == "ImageBuild":
            return _isolated_build(route.handler)
        case "build" if name in _ABOUT | _BUILD:
            return route.handler
        case "own-children" if name in _ABOUT | _SEE_IMAGES:
            return route.handler
        case "own-children" if name in _ON_CHILDREN:
            return _on_child(route.handler, parent)
        case "own-children" if name == "ContainerList":
            return _list_children(parent)
        case "own-children" if name == "ContainerCreate":
            return _create_child(parent)
    return _refuse(name, role)


def _refuse(operation: str, role: str) -> Handler:
    async def handler(_: Engine, __: Request) -> Answer:
        raise NotAllowed(f"{operation} is not allowed to the role {role} of this socket")

    return handler


def _isolated_build(build: Handler) -> Handler:
    async def handler(engine: Engine, request: Request) -> Answer:
        network = request.query.get("networkmode")
        if network not in _WORDS["network_mode"] or request.query.get("cgroupparent"):
            raise NotAllowed("builds over this socket have no network or cgroup of others")
        return await build(engine, request)

    return handler


def _on_child(inner: Handler, parent: str) -> Handler:
    async def handler(engine: Engine, request: Request) -> Answer:
        reference = request.params["id"]
        found = engine.containers.catalog.find(reference)
        if found is None or found.record.orlop.parent != parent:
            raise NoSuchContainer(f"No such container: {reference[:300]}")
        request.params = {**request.params, "id": found.id}  # whatever gets that name meanwhile
        return await inner(engine, request)

    return handler


def _list_children(parent: str) -> Handler:
    async def handler(engine: Engine, request: Request) -> Answer:
        query = request.query
        limit = max(query.get_int("limit"), 0)  # of what is seen here, so not the engine's to apply
        options = ListOptions(query.get_bool("all") or limit > 0, 0, query.filters())
        rows = await engine.containers.list(options, with_size=query.get_bool("size"))
        own = {item.id for item in engine.containers.catalog if item.record.orlop.parent == parent}
        return json_response([row for row in rows if row.id in own][: limit or None])

    return handler


def _create_child(parent: str) -> Handler:
    async def handler(engine: Engine, request: Request) -> Answer:
        body = await request.json(CreateBody)
        check_child(body)
        found = engine.containers.catalog.find(parent)
        if found is None:
            raise NotAllowed("the container that this socket belongs to is gone")
        wanted = body.request(request.query.get("name"), request.query.get("platform"))
        host = as_child(wanted.host, found.record)
        return created(
            await engine.containers.create(replace(wanted, host=host, orlop=OrlopConfig(parent=parent)))
        )

    return handler


def check_child(body: CreateBody) -> None:
    """Refuse whatever could reach beyond the new container.

    Raises:
        NotAllowed: names the field.
    """
    host = body.host()
    for item in fields(HostConfig):
        if item.name not in _FREE and not _is_harmless(item.name, getattr(host, item.name)):
            raise NotAllowed(f"HostConfig.{item.name} is not allowed to the role own-children")
    if body.orlop is not None:
        raise NotAllowed("Orlop is not allowed to the role own-children")
    networking = body.networking_config
    for name in (networking.endpoints_config or {}) if networking else ():
        if name not in _WORDS["network_mode"]:
            raise NotAllowed(f"the network {name[:60]!r} is not allowed to the role own-children")


def _is_harmless(name: str, value: Any) -> bool:
    match name:
        case "masked_paths" | "readonly_paths":  # an empty list would uncover what is masked
            return value is None
        case "pids_limit":
            return value is None or value >= 0
        case "restart_policy":
            return value.name in ("", "no")
        case "log_config":
            return not value.type and not value.config
        case "mounts":
            return all(mount.type == "tmpfs" for mount in value or ())
        case _:
            return value in _WORDS.get(name, ()) or not value
