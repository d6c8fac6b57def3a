"""Extensions of ours, below `/orlop/volumes`: archives, copies, snapshots, names, files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orlop.api.request import Answer, Request, bytes_stream, created, json_response
from orlop.api.routes import Route
from orlop.base.errors import InvalidInput

if TYPE_CHECKING:
    from orlop.engine.engine import Engine

__all__ = ["ROUTES"]


async def get_archive(engine: Engine, request: Request) -> Answer:
    path = request.query.get("path") or "/"
    return bytes_stream(await engine.volume_copies.export(request.params["name"], path))


async def put_archive(engine: Engine, request: Request) -> Answer:
    return json_response(await engine.volume_copies.extract(request.params["name"], aiter(request.body)))


async def files(engine: Engine, request: Request) -> Answer:
    path = request.query.get("path") or "/"
    return json_response(await engine.volume_copies.files(request.params["name"], path))


async def clone(engine: Engine, request: Request) -> Answer:
    return created(await engine.volume_copies.clone(request.params["name"], _target(request)))


async def snapshot(engine: Engine, request: Request) -> Answer:
    return created(await engine.volume_copies.snapshot(request.params["name"]))


async def rename(engine: Engine, request: Request) -> Answer:
    return json_response(await engine.volume_copies.rename(request.params["name"], _target(request)))


def _target(request: Request) -> str:
    value = request.query.get("to")
    if not value:
        raise InvalidInput("the parameter to is missing")
    return value


ROUTES = (
    Route("OrlopVolumeArchive", "GET", "/orlop/volumes/{name}/archive", get_archive),
    Route("OrlopVolumeImport", "PUT", "/orlop/volumes/{name}/archive", put_archive, scope="operate"),
    Route("OrlopVolumeFiles", "GET", "/orlop/volumes/{name}/files", files),
    Route("OrlopVolumeClone", "POST", "/orlop/volumes/{name}/clone", clone, scope="operate"),
    Route("OrlopVolumeSnapshot", "POST", "/orlop/volumes/{name}/snapshot", snapshot, scope="operate"),
    Route("OrlopVolumeRename", "POST", "/orlop/volumes/{name}/rename", rename, scope="operate"),
)
