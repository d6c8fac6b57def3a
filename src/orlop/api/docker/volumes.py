"""Volumes of the local driver.

Spec: Docker Engine API v1.51, "Volume".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orlop.api.request import Answer, Request, created, json_response, no_content
from orlop.api.routes import Route
from orlop.engine.requests import VolumeCreateRequest

if TYPE_CHECKING:
    from orlop.engine.engine import Engine

__all__ = ["ROUTES"]


async def list_volumes(engine: Engine, request: Request) -> Answer:
    return json_response(engine.volumes.list(request.query.filters()))


async def create(engine: Engine, request: Request) -> Answer:
    wanted = await request.find_json(VolumeCreateRequest) or VolumeCreateRequest()
    return created(await engine.volumes.create(wanted))


async def inspect(engine: Engine, request: Request) -> Answer:
    volumes = engine.volumes
    return json_response(volumes.view(volumes.get(request.params["name"])))


async def remove(engine: Engine, request: Request) -> Answer:
    await engine.volumes.remove(request.params["name"], force=request.query.get_bool("force"))
    return no_content()


async def prune(engine: Engine, request: Request) -> Answer:
    names, freed = await engine.volumes.prune(request.query.filters())
    return json_response({"VolumesDeleted": names, "SpaceReclaimed": freed})


ROUTES = (
    Route("VolumeList", "GET", "/volumes", list_volumes),
    Route("VolumeCreate", "POST", "/volumes/create", create, scope="operate"),
    Route("VolumePrune", "POST", "/volumes/prune", prune, since=(1, 25), scope="operate"),
    Route("VolumeInspect", "GET", "/volumes/{name}", inspect),
    Route("VolumeDelete", "DELETE", "/volumes/{name}", remove, scope="operate"),
)
