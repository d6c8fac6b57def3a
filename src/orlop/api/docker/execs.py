"""Execs: further processes in a running container.

Spec: Docker Engine API v1.51, "Exec".
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from orlop.aio.hijack import HijackedConnection, relay
from orlop.aio.http_messages import Hijack, Response
from orlop.aio.scope import Background
from orlop.api.docker.containers import stream_type, terminal_size
from orlop.api.request import Answer, Request, created, json_response
from orlop.api.routes import Route
from orlop.base.errors import OrlopError
from orlop.engine.detach import DEFAULT_DETACH_KEYS, DetachFilter, parse_detach_keys
from orlop.engine.execs import Exec
from orlop.engine.requests import ExecConfig, ExecStart
from orlop.wire.stdstream import STDOUT, frame

if TYPE_CHECKING:
    from orlop.engine.engine import Engine

__all__ = ["ROUTES"]


async def create(engine: Engine, request: Request) -> Answer:
    config = await request.json(ExecConfig)
    container = engine.containers.get(request.params["id"])
    return created({"Id": engine.execs.create(container, config, request.params["id"])})


async def start(engine: Engine, request: Request) -> Answer:
    """Detached: answer when it runs. Else the connection becomes its stream, and failures are told in it."""
    wanted = await request.find_json(ExecStart) or ExecStart()
    item = engine.execs.get(request.params["id"])
    engine.execs.check_startable(item)
    if wanted.detach:
        await engine.execs.start(item, wanted)
        return Response(200)

    async def run(client: HijackedConnection) -> None:
        await _run(engine, client, item, wanted)

    return Hijack(run, content_type=stream_type(request, has_tty=item.config.tty))


async def _run(engine: Engine, client: HijackedConnection, item: Exec, wanted: ExecStart) -> None:
    try:
        task = await engine.execs.start(item, wanted)
    except OrlopError as error:
        text = f"{error}\r\n".encode()
        await client.write(text if item.config.tty else frame(STDOUT, text))
        return
    stream = task.stream
    if stream is None:
        return
    config = item.config
    keys = config.detach_keys or (DEFAULT_DETACH_KEYS if config.tty else "")
    watch = DetachFilter(parse_detach_keys(keys)) if keys else None
    async with _as_asked(stream, is_framed=config.tty and not wanted.tty) as backend:
        # clients ask for the exit code as soon as the stream ends
        if await relay(client, backend, input_filter=watch, before_end=item.wait_finished):
            engine.execs.detached(item)


@asynccontextmanager
async def _as_asked(stream: socket.socket, *, is_framed: bool) -> AsyncIterator[socket.socket]:
    """The stream as the client asked for it, closed at the end.

    A terminal's raw output is put in frames for a client that did not say again at the start that it
    wants a terminal (docker-py): dockerd goes by what the start says.
    """
    with stream:
        if not is_framed:
            yield stream
            return
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        with ours, theirs:
            async with Background("exec-frames") as background:
                _ = background.spawn(_frame(stream, theirs))
                _ = background.spawn(_copy(theirs, stream))
                yield ours


async def _frame(source: socket.socket, target: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(source, 1 << 16):
        await loop.sock_sendall(target, frame(STDOUT, data))
    target.shutdown(socket.SHUT_WR)


async def _copy(source: socket.socket, target: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    with suppress(OSError):
        while data := await loop.sock_recv(source, 1 << 16):
            await loop.sock_sendall(target, data)
        target.shutdown(socket.SHUT_WR)


async def inspect(engine: Engine, request: Request) -> Answer:
    return json_response(engine.execs.inspect(request.params["id"]))


async def resize(engine: Engine, request: Request) -> Answer:
    rows, columns = terminal_size(request.query)
    await engine.execs.resize(request.params["id"], rows, columns)
    return Response(200)


ROUTES = (
    Route("ContainerExec", "POST", "/containers/{id}/exec", create, scope="operate"),
    Route("ExecStart", "POST", "/exec/{id}/start", start, scope="operate"),
    Route("ExecResize", "POST", "/exec/{id}/resize", resize, scope="operate"),
    Route("ExecInspect", "GET", "/exec/{id}/json", inspect),
)
