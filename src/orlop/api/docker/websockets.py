"""Attach over WebSocket, for browsers and others that cannot take over a connection.

Spec: Docker Engine API v1.51, ContainerAttachWebsocket.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orlop.aio.hijack import HijackedConnection
from orlop.aio.http_messages import HeaderFields, Hijack
from orlop.aio.websocket import WebSocket
from orlop.api.docker.container_streams import serve_attached
from orlop.api.errors import message_response
from orlop.api.request import Answer, Request
from orlop.api.routes import Route
from orlop.engine.attaching import AttachOptions
from orlop.wire.websocket import BadHandshake, accept_handshake

if TYPE_CHECKING:
    from orlop.engine.engine import Engine

__all__ = ["ROUTES"]

_BINARY_SINCE = (1, 28)
_STREAMS_SINCE = (1, 42)


async def attach(engine: Engine, request: Request) -> Answer:
    """The container's output comes without framing, stdout and stderr in one."""
    container_id = engine.containers.get(request.params["id"]).id
    try:
        fields: HeaderFields = accept_handshake(request.headers)
    except BadHandshake as error:
        refusal = message_response(error.status, str(error))
        refusal.headers = (*refusal.headers, *error.headers)
        return refusal
    options = _options(request)
    stream = await engine.containers.attach(container_id, options)

    async def run(connection: HijackedConnection) -> None:
        client = WebSocket(connection, is_text=request.version < _BINARY_SINCE, is_framed=not stream.has_tty)
        await serve_attached(engine, container_id, client, stream, options)

    return Hijack(run, content_type="", protocol="websocket", reason="Switching Protocols", headers=fields)


def _options(request: Request) -> AttachOptions:
    query = request.query
    # before 1.42 the three were documented and ignored
    takes_all = request.version < _STREAMS_SINCE
    return AttachOptions(
        has_logs=query.get_bool("logs"),
        is_stream=query.get_bool("stream"),
        has_stdin=takes_all or query.get_bool("stdin"),
        has_stdout=takes_all or query.get_bool("stdout"),
        has_stderr=takes_all or query.get_bool("stderr"),
        detach_keys=query.get("detachKeys"),
    )


ROUTES = (Route("ContainerAttachWebsocket", "GET", "/containers/{id}/attach/ws", attach, scope="operate"),)
