"""Attach, copy in and out, export, commit.

Spec: Docker Engine API v1.51, ContainerAttach, ContainerArchive, ContainerExport, ImageCommit.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from orlop.aio.hijack import ClientStream, HijackedConnection, relay
from orlop.aio.http_messages import Hijack, Response
from orlop.api.docker.containers import stream_type
from orlop.api.query import Query
from orlop.api.request import Answer, Request, bytes_stream, created
from orlop.api.routes import Route
from orlop.base.errors import InvalidInput
from orlop.base.ids import ContainerId
from orlop.engine.attaching import AttachOptions, AttachStream
from orlop.engine.logs import LogOptions
from orlop.engine.requests import CommitRequest, ContainerConfig
from orlop.engine.views import PathStat
from orlop.wire import gojson

if TYPE_CHECKING:
    from orlop.engine.engine import Engine

__all__ = ["ROUTES", "serve_attached"]


async def attach(engine: Engine, request: Request) -> Answer:
    """The stream is connected before the head is sent: what the container writes later is not missed."""
    query, name = request.query, request.params["id"]
    options = AttachOptions(
        has_logs=query.get_bool("logs"),
        is_stream=query.get_bool("stream"),
        has_stdin=query.get_bool("stdin"),
        has_stdout=query.get_bool("stdout"),
        has_stderr=query.get_bool("stderr"),
        detach_keys=query.get("detachKeys"),
    )
    container_id = engine.containers.get(name).id
    stream = await engine.containers.attach(container_id, options)

    async def run(client: HijackedConnection) -> None:
        await serve_attached(engine, container_id, client, stream, options)

    return Hijack(run, content_type=stream_type(request, has_tty=stream.has_tty))


async def serve_attached(
    engine: Engine,
    container_id: ContainerId,
    client: ClientStream,
    stream: AttachStream,
    options: AttachOptions,
) -> None:
    """Send the log so far where it was asked for, then pump until either side ends. Closes `stream`."""
    try:
        if options.has_logs:
            past = LogOptions(
                has_stdout=options.has_stdout,
                has_stderr=options.has_stderr,
                until_ns=stream.logs_until_ns,
            )
            async for chunk in engine.containers.logs(container_id, past).chunks:
                await client.write(chunk)
        if stream.socket is None:
            await client.write_eof()
        elif await relay(client, stream.socket, input_filter=stream.input_filter):
            engine.containers.detached(container_id)
    finally:
        stream.close()


def _path(query: Query) -> str:
    path = query.get("path")
    if not path:
        raise InvalidInput("bad parameter: path cannot be empty")
    return path


def _stat_header(stat: PathStat) -> tuple[str, str]:
    return ("X-Docker-Container-Path-Stat", base64.b64encode(gojson.encode(stat).strip()).decode("ascii"))


async def stat_archive(engine: Engine, request: Request) -> Answer:
    stat = await engine.containers.stat_path(request.params["id"], _path(request.query))
    return Response(200, headers=(_stat_header(stat),))


async def get_archive(engine: Engine, request: Request) -> Answer:
    stat, chunks = await engine.containers.archive(request.params["id"], _path(request.query))
    answer = bytes_stream(chunks)
    answer.headers = (*answer.headers, _stat_header(stat))
    return answer


async def put_archive(engine: Engine, request: Request) -> Answer:
    query = request.query
    await engine.containers.extract(
        request.params["id"],
        _path(query),
        aiter(request.body),
        keeps_kinds=query.get_bool("noOverwriteDirNonDir"),
        takes_user=query.get_bool("copyUIDGID"),
    )
    return Response(200)


async def export(engine: Engine, request: Request) -> Answer:
    return bytes_stream(await engine.containers.export(request.params["id"]), "application/octet-stream")


async def commit(engine: Engine, request: Request) -> Answer:
    query = request.query
    wanted = CommitRequest(
        container=query.get("container"),
        repository=query.get("repo"),
        tag=query.get("tag"),
        comment=query.get("comment"),
        author=query.get("author"),
        is_paused=query.get_bool("pause", default=True),
        changes=tuple(line for text in query.get_all("changes") for line in text.splitlines()),
        config=await request.find_json(ContainerConfig),
    )
    return created({"Id": await engine.containers.commit(wanted)})


ROUTES = (
    Route("ContainerAttach", "POST", "/containers/{id}/attach", attach, scope="operate"),
    Route("ContainerArchiveInfo", "HEAD", "/containers/{id}/archive", stat_archive),
    Route("ContainerArchive", "GET", "/containers/{id}/archive", get_archive),
    Route("PutContainerArchive", "PUT", "/containers/{id}/archive", put_archive, scope="operate"),
    Route("ContainerExport", "GET", "/containers/{id}/export", export),
    Route("ImageCommit", "POST", "/commit", commit, scope="operate"),
)
