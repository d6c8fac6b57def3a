"""From engine to engine, below `/orlop`: which layers are here, and archives without those that are there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from orlop.api.request import Answer, Request, bytes_stream, json_response
from orlop.api.routes import Route
from orlop.base.errors import InvalidInput
from orlop.oci.digest import Digest, parse_digest
from orlop.wire import gojson

if TYPE_CHECKING:
    from orlop.engine.engine import Engine

__all__ = ["ROUTES"]

_MAX_LAYERS = 10_000


@dataclass(frozen=True, slots=True)
class LayersBody:
    """Digests of uncompressed layers."""

    layers: tuple[str, ...] = gojson.field("Layers", default=())


@dataclass(frozen=True, slots=True)
class ExportBody:
    """Images, and the layers that their reader has."""

    names: tuple[str, ...] = gojson.field("Names", default=())
    without: tuple[str, ...] = gojson.field("Without", default=())


async def layers_of(engine: Engine, request: Request) -> Answer:
    body = await request.json(ExportBody)
    return json_response(LayersBody(tuple(await engine.images.archives.layers_of(body.names))))


async def missing(engine: Engine, request: Request) -> Answer:
    body = await request.json(LayersBody)
    return json_response(
        LayersBody(tuple(await engine.images.archives.missing_layers(_digests(body.layers))))
    )


async def export(engine: Engine, request: Request) -> Answer:
    body = await request.json(ExportBody)
    return bytes_stream(await engine.images.archives.save(body.names, without=_digests(body.without)))


def _digests(texts: tuple[str, ...]) -> list[Digest]:
    if len(texts) > _MAX_LAYERS:
        raise InvalidInput(f"more than {_MAX_LAYERS} layers are named")
    return [parse_digest(text) for text in texts]


ROUTES = (
    Route("OrlopLayersOf", "POST", "/orlop/layers/of", layers_of),
    Route("OrlopLayersMissing", "POST", "/orlop/layers/missing", missing),
    Route("OrlopImageExport", "POST", "/orlop/images/export", export),
)
