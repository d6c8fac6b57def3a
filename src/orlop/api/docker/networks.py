"""Networks: read only until there is a bridge.

Spec: Docker Engine API v1.51, "Network".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orlop.api.request import Answer, Request, json_response
from orlop.api.routes import Route

if TYPE_CHECKING:
    from orlop.engine.engine import Engine

__all__ = ["ROUTES"]


async def list_networks(engine: Engine, request: Request) -> Answer:
    return json_response(engine.networks.list(request.query.filters()))


async def inspect(engine: Engine, request: Request) -> Answer:
    return json_response(engine.networks.get(request.params["id"]))


async def prune(_engine: Engine, request: Request) -> Answer:
    """Only built-in networks exist, and these are never removed."""
    request.query.filters().check_keys(("label", "label!", "until"))
    return json_response({"NetworksDeleted": None})


ROUTES = (
    Route("NetworkList", "GET", "/networks", list_networks),
    Route("NetworkList", "GET", "/networks/", list_networks),  # docker-py's pattern of old
    Route("NetworkPrune", "POST", "/networks/prune", prune, since=(1, 25), scope="operate"),
    Route("NetworkInspect", "GET", "/networks/{id}", inspect),
)
