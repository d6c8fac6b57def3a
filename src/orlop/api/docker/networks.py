"""Networks, and the containers on them.

Spec: Docker Engine API v1.51, "Network".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orlop.api.request import Answer, Request, created, json_response, no_content
from orlop.api.routes import Route
from orlop.engine.network_model import ConnectRequest, DisconnectRequest, NetworkCreateRequest

if TYPE_CHECKING:
    from orlop.engine.engine import Engine

__all__ = ["ROUTES"]


async def list_networks(engine: Engine, request: Request) -> Answer:
    return json_response(engine.networks.list(request.query.filters()))


async def inspect(engine: Engine, request: Request) -> Answer:
    return json_response(engine.networks.get(request.params["id"]))


async def create(engine: Engine, request: Request) -> Answer:
    return created(await engine.networks.create(await request.json(NetworkCreateRequest)))


async def remove(engine: Engine, request: Request) -> Answer:
    await engine.networks.remove(request.params["id"])
    return no_content()


async def connect(engine: Engine, request: Request) -> Answer:
    await engine.connections.connect(request.params["id"], await request.json(ConnectRequest))
    return json_response(None)


async def disconnect(engine: Engine, request: Request) -> Answer:
    await engine.connections.disconnect(request.params["id"], await request.json(DisconnectRequest))
    return json_response(None)


async def prune(engine: Engine, request: Request) -> Answer:
    return json_response({"NetworksDeleted": await engine.networks.prune(request.query.filters())})


ROUTES = (
    Route("NetworkList", "GET", "/networks", list_networks),
    Route("NetworkList", "GET", "/networks/", list_networks),  # docker-py's pattern of old
    Route("NetworkCreate", "POST", "/networks/create", create, scope="operate"),
    Route("NetworkPrune", "POST", "/networks/prune", prune, since=(1, 25), scope="operate"),
    Route("NetworkConnect", "POST", "/networks/{id}/connect", connect, scope="operate"),
    Route("NetworkDisconnect", "POST", "/networks/{id}/disconnect", disconnect, scope="operate"),
    Route("NetworkInspect", "GET", "/networks/{id}", inspect),
    Route("NetworkDelete", "DELETE", "/networks/{id}", remove, scope="operate"),
)
