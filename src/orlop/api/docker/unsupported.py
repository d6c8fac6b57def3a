"""Operations of the Engine API that are known and not served: 501 with the reason.

Those of a swarm are answered as by a dockerd that is in none, with 503: clients know what to make of that.

The same rows are the page docs/reference/unsupported.md; a house test keeps them equal, and
checks that every operation of the API is either routed or here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from orlop.api.request import Answer, Request
from orlop.api.routes import Handler, Route
from orlop.base.errors import Kind, OrlopError

__all__ = ["UNSUPPORTED", "NotServed", "Unsupported", "unsupported_routes"]


class NotServed(OrlopError):
    """A known operation that this engine does not have."""

    kind = Kind.UNSUPPORTED
    code = "not-served"


@dataclass(frozen=True, slots=True)
class Unsupported:
    """One operation and why it is missing."""

    operation: str
    method: str
    path: str
    reason: str


_SWARM = "Swarm mode is not part of Orlop"
_STARTS_A_SWARM = ("SwarmInit", "SwarmJoin")
_PLUGINS = "managed plugins are not part of Orlop"
_BUILDKIT = "BuildKit's protocol comes later; builds go through POST /build"


def _crud(noun: str, path: str, reason: str, *, update: str = "POST") -> Iterator[Unsupported]:
    yield Unsupported(f"{noun}List", "GET", path, reason)
    yield Unsupported(f"{noun}Create", "POST", f"{path}/create", reason)
    yield Unsupported(f"{noun}Inspect", "GET", f"{path}/{{id}}", reason)
    yield Unsupported(f"{noun}Delete", "DELETE", f"{path}/{{id}}", reason)
    yield Unsupported(f"{noun}Update", update, f"{path}/{{id}}/update", reason)


UNSUPPORTED: tuple[Unsupported, ...] = (
    Unsupported("VolumeUpdate", "PUT", "/volumes/{name}", "cluster volumes belong to Swarm; " + _SWARM),
    Unsupported("Session", "POST", "/session", _BUILDKIT),
    Unsupported("Grpc", "POST", "/grpc", _BUILDKIT),
    Unsupported("CheckpointList", "GET", "/containers/{id}/checkpoints", "checkpoints need CRIU"),
    Unsupported("CheckpointCreate", "POST", "/containers/{id}/checkpoints", "checkpoints need CRIU"),
    Unsupported(
        "CheckpointDelete", "DELETE", "/containers/{id}/checkpoints/{checkpoint}", "checkpoints need CRIU"
    ),
    Unsupported("SwarmInspect", "GET", "/swarm", _SWARM),
    Unsupported("SwarmInit", "POST", "/swarm/init", _SWARM),
    Unsupported("SwarmJoin", "POST", "/swarm/join", _SWARM),
    Unsupported("SwarmLeave", "POST", "/swarm/leave", _SWARM),
    Unsupported("SwarmUpdate", "POST", "/swarm/update", _SWARM),
    Unsupported("SwarmUnlockkey", "GET", "/swarm/unlockkey", _SWARM),
    Unsupported("SwarmUnlock", "POST", "/swarm/unlock", _SWARM),
    Unsupported("NodeList", "GET", "/nodes", _SWARM),
    Unsupported("NodeInspect", "GET", "/nodes/{id}", _SWARM),
    Unsupported("NodeDelete", "DELETE", "/nodes/{id}", _SWARM),
    Unsupported("NodeUpdate", "POST", "/nodes/{id}/update", _SWARM),
    *_crud("Service", "/services", _SWARM),
    Unsupported("ServiceLogs", "GET", "/services/{id}/logs", _SWARM),
    Unsupported("TaskList", "GET", "/tasks", _SWARM),
    Unsupported("TaskInspect", "GET", "/tasks/{id}", _SWARM),
    Unsupported("TaskLogs", "GET", "/tasks/{id}/logs", _SWARM),
    *_crud("Secret", "/secrets", _SWARM),
    *_crud("Config", "/configs", _SWARM),
    Unsupported("PluginList", "GET", "/plugins", _PLUGINS),
    Unsupported("GetPluginPrivileges", "GET", "/plugins/privileges", _PLUGINS),
    Unsupported("PluginPull", "POST", "/plugins/pull", _PLUGINS),
    Unsupported("PluginCreate", "POST", "/plugins/create", _PLUGINS),
    Unsupported("PluginInspect", "GET", "/plugins/{name:.*}/json", _PLUGINS),
    Unsupported("PluginEnable", "POST", "/plugins/{name:.*}/enable", _PLUGINS),
    Unsupported("PluginDisable", "POST", "/plugins/{name:.*}/disable", _PLUGINS),
    Unsupported("PluginUpgrade", "POST", "/plugins/{name:.*}/upgrade", _PLUGINS),
    Unsupported("PluginPush", "POST", "/plugins/{name:.*}/push", _PLUGINS),
    Unsupported("PluginSet", "POST", "/plugins/{name:.*}/set", _PLUGINS),
    Unsupported("PluginDelete", "DELETE", "/plugins/{name:.*}", _PLUGINS),
)


def unsupported_routes() -> tuple[Route, ...]:
    """Routes that explain themselves; tried after all others."""
    return tuple(Route(row.operation, row.method, row.path, _explain(row)) for row in UNSUPPORTED)


def _explain(row: Unsupported) -> Handler:
    async def handler(_engine: object, _request: Request) -> Answer:
        if row.reason == _SWARM and row.operation not in _STARTS_A_SWARM:
            raise NotServed(f"This node is not part of a swarm: {row.reason}", http_status=503)
        raise NotServed(f"{row.operation} is not supported: {row.reason}")

    return handler
