"""Extensions of ours, below `/orlop/images`: layers, differences, pins, mounts, the size budget."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orlop.api.request import Answer, Request, json_response, no_content, progress_stream
from orlop.api.routes import Route
from orlop.base.errors import InvalidInput

if TYPE_CHECKING:
    from orlop.engine.engine import Engine

__all__ = ["ROUTES"]


async def layers(engine: Engine, request: Request) -> Answer:
    with_files = request.query.get_bool("files")
    return json_response(await engine.images.insight.layers(_need(request, "name"), with_files=with_files))


async def attestations(engine: Engine, request: Request) -> Answer:
    return json_response(await engine.images.insight.attestations(_need(request, "name")))


async def diff(engine: Engine, request: Request) -> Answer:
    return json_response(await engine.images.insight.diff(_need(request, "old"), _need(request, "new")))


async def disk(engine: Engine, _request: Request) -> Answer:
    return json_response(await engine.images.disk())


async def check(engine: Engine, request: Request) -> Answer:
    return await progress_stream(engine.repairs.check(repairs=request.query.get_bool("repair")))


async def pin(engine: Engine, request: Request) -> Answer:
    await engine.images.pin(_need(request, "name"), is_pinned=True)
    return no_content()


async def unpin(engine: Engine, request: Request) -> Answer:
    await engine.images.pin(_need(request, "name"), is_pinned=False)
    return no_content()


async def plan_gc(engine: Engine, request: Request) -> Answer:
    return json_response(await engine.budget.plan(request.query.get("max-size")))


async def run_gc(engine: Engine, request: Request) -> Answer:
    return json_response(await engine.budget.run(request.query.get("max-size")))


async def mount(engine: Engine, request: Request) -> Answer:
    return json_response(
        await engine.images.mounts.mount(_need(request, "name"), request.query.get("target"))
    )


async def unmount(engine: Engine, request: Request) -> Answer:
    await engine.images.mounts.unmount(_need(request, "target"))
    return no_content()


async def list_mounts(engine: Engine, _request: Request) -> Answer:
    return json_response(await engine.images.mounts.list())


def _need(request: Request, name: str) -> str:
    value = request.query.get(name)
    if not value:
        raise InvalidInput(f"the parameter {name} is missing")
    return value


ROUTES = (
    Route("OrlopCheck", "POST", "/orlop/check", check, scope="admin"),
    Route("OrlopImageLayers", "GET", "/orlop/images/layers", layers),
    Route("OrlopImageAttestations", "GET", "/orlop/images/attestations", attestations),
    Route("OrlopImageDiff", "GET", "/orlop/images/diff", diff),
    Route("OrlopImageDisk", "GET", "/orlop/images/disk", disk),
    Route("OrlopImagePin", "POST", "/orlop/images/pin", pin, scope="operate"),
    Route("OrlopImageUnpin", "DELETE", "/orlop/images/pin", unpin, scope="operate"),
    Route("OrlopImageGcPlan", "GET", "/orlop/images/gc", plan_gc),
    Route("OrlopImageGc", "POST", "/orlop/images/gc", run_gc, scope="operate"),
    Route("OrlopImageMounts", "GET", "/orlop/images/mounts", list_mounts),
    Route("OrlopImageMount", "POST", "/orlop/images/mounts", mount, scope="admin"),
    Route("OrlopImageUnmount", "DELETE", "/orlop/images/mounts", unmount, scope="admin"),
)
