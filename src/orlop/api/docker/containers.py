"""Containers: list, life, logs, statistics, prune. Streams and files lie in modules of their own.

Spec: Docker Engine API v1.51, "Container".
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import TYPE_CHECKING

from orlop.aio.http_messages import MULTIPLEXED_STREAM, RAW_STREAM, Response, StreamResponse
from orlop.api.query import Query
from orlop.api.request import Answer, Request, created, json_lines, json_response, no_content
from orlop.api.routes import Route
from orlop.base.clock import SystemClock
from orlop.base.errors import InvalidInput
from orlop.engine.extensions import UpdateBody
from orlop.engine.filters import parse_timestamp_ns
from orlop.engine.logs import LogOptions
from orlop.engine.model import State
from orlop.engine.requests import CreateBody
from orlop.engine.summaries import ListOptions
from orlop.engine.views import WaitResult
from orlop.wire import gojson

if TYPE_CHECKING:
    from orlop.engine.engine import Engine

__all__ = ["ROUTES", "stream_type", "terminal_size"]

_MAX_TERMINAL = 65535  # struct winsize

_CONDITIONS = ("not-running", "next-exit", "removed")
_JSON = (("Content-Type", "application/json"),)


def stream_type(request: Request, *, has_tty: bool) -> str:
    """The content type of a log or attach stream."""
    return MULTIPLEXED_STREAM if not has_tty and request.version >= (1, 42) else RAW_STREAM


async def list_containers(engine: Engine, request: Request) -> Answer:
    query = request.query
    options = ListOptions(query.get_bool("all"), max(query.get_int("limit"), 0), query.filters())
    return json_response(await engine.containers.list(options, with_size=query.get_bool("size")))


async def create(engine: Engine, request: Request) -> Answer:
    body = await request.json(CreateBody)
    wanted = body.request(request.query.get("name"), request.query.get("platform"))
    return created(await engine.containers.create(wanted))


async def inspect(engine: Engine, request: Request) -> Answer:
    with_size = request.query.get_bool("size")
    return json_response(await engine.containers.inspect(request.params["id"], with_size=with_size))


async def top(engine: Engine, request: Request) -> Answer:
    return json_response(await engine.containers.top(request.params["id"], request.query.get("ps_args")))


async def logs(engine: Engine, request: Request) -> Answer:
    query = request.query
    options = LogOptions(
        follow=query.get_bool("follow"),
        has_stdout=query.get_bool("stdout"),
        has_stderr=query.get_bool("stderr"),
        since_ns=_time(query, "since"),
        until_ns=_time(query, "until"),
        has_timestamps=query.get_bool("timestamps"),
        tail=_tail(query.get("tail")),
        has_details=query.get_bool("details"),
        contains=query.get("grep"),  # ours: dockerd has no such parameter
    )
    engine.containers.get(request.params["id"])
    if not options.has_stdout and not options.has_stderr:
        raise InvalidInput("Bad parameters: you must choose at least one stream")
    stream = engine.containers.logs(request.params["id"], options)
    content_type = stream_type(request, has_tty=stream.has_tty)
    return StreamResponse(stream.chunks, headers=(("Content-Type", content_type),))


async def clear_logs(engine: Engine, request: Request) -> Answer:
    """An extension: dockerd cannot do this."""
    await engine.containers.clear_logs(request.params["id"])
    return no_content()


def _time(query: Query, name: str) -> int:
    text = query.get(name)
    return parse_timestamp_ns(text, SystemClock().now_ns()) if text and text != "0" else 0


def _tail(text: str) -> int | None:
    """`all`, nonsense and negative numbers mean everything, as in dockerd."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None


async def changes(engine: Engine, request: Request) -> Answer:
    return json_response(await engine.containers.changes(request.params["id"]))


async def stats(engine: Engine, request: Request) -> Answer:
    query, name = request.query, request.params["id"]
    if not query.get_bool("stream", default=True):
        return json_response(await engine.containers.stats_once(name, one_shot=query.get_bool("one-shot")))
    if query.get_bool("one-shot"):
        raise InvalidInput("cannot have stream=true and one-shot=true")
    return json_lines(engine.containers.stats_stream(name))


async def stats_history(engine: Engine, request: Request) -> Answer:
    return json_response(engine.history.view(request.params["id"]))


async def resize(engine: Engine, request: Request) -> Answer:
    rows, columns = terminal_size(request.query)
    await engine.containers.resize(request.params["id"], rows, columns)
    return Response(200)


def terminal_size(query: Query) -> tuple[int, int]:
    """Rows and columns of a resize request.

    Raises:
        InvalidInput: missing, no number, or more than a terminal takes; the text is Go's.
    """
    sizes = []
    for name in ("h", "w"):
        text = query.get(name)
        if not text.isascii() or not text.isdecimal() or len(text) > 10:
            raise InvalidInput(f'strconv.Atoi: parsing "{text[:60]}": invalid syntax')
        if int(text) > _MAX_TERMINAL:
            raise InvalidInput(f'strconv.Atoi: parsing "{text}": value out of range')
        sizes.append(int(text))
    return sizes[0], sizes[1]


async def start(engine: Engine, request: Request) -> Answer:
    await engine.containers.start(request.params["id"])
    return no_content()


async def stop(engine: Engine, request: Request) -> Answer:
    query = request.query
    await engine.containers.stop(
        request.params["id"], timeout_s=query.find_int("t"), signal=query.get("signal")
    )
    return no_content()


async def restart(engine: Engine, request: Request) -> Answer:
    query = request.query
    await engine.containers.restart(
        request.params["id"], timeout_s=query.find_int("t"), signal=query.get("signal")
    )
    return no_content()


async def kill(engine: Engine, request: Request) -> Answer:
    await engine.containers.kill(request.params["id"], request.query.get("signal"))
    return no_content()


async def pause(engine: Engine, request: Request) -> Answer:
    await engine.containers.pause(request.params["id"])
    return no_content()


async def unpause(engine: Engine, request: Request) -> Answer:
    await engine.containers.unpause(request.params["id"])
    return no_content()


async def rename(engine: Engine, request: Request) -> Answer:
    name = request.query.get("name")
    if not name:
        raise InvalidInput("Neither old nor new names may be empty")
    await engine.containers.rename(request.params["id"], name)
    return no_content()


async def update(engine: Engine, request: Request) -> Answer:
    wanted, name = await request.json(UpdateBody), request.params["id"]
    amendment = wanted.orlop
    warnings = await engine.containers.amend(name, amendment) if amendment else []
    result = await engine.containers.update(name, wanted)
    if amendment and amendment.restart and engine.containers.get(name).task is not None:
        await engine.containers.restart(name, timeout_s=amendment.timeout)
    return json_response(replace(result, warnings=(*warnings, *result.warnings)))


async def wait(engine: Engine, request: Request) -> Answer:
    """The head is sent at once: clients start the container only when they see it."""
    condition = request.query.get("condition") or "not-running"
    if condition not in _CONDITIONS:
        raise InvalidInput(f'invalid condition: "{condition[:60]}"')
    waiter = engine.containers.wait(request.params["id"], condition)
    return StreamResponse(_answer(waiter, shows_error=condition != "removed"), headers=_JSON)


async def _answer(waiter: asyncio.Future[State], *, shows_error: bool) -> AsyncIterator[bytes]:
    """A removal has no error of the start that came before it: docker run has told it already."""
    try:
        state = await waiter
    finally:
        waiter.cancel()
    error = {"Message": state.error} if state.error and shows_error else None
    yield gojson.encode(WaitResult(state.exit_code, error))


async def remove(engine: Engine, request: Request) -> Answer:
    query = request.query
    await engine.containers.remove(
        request.params["id"],
        force=query.get_bool("force"),
        volumes=query.get_bool("v"),
        link=query.get_bool("link"),
    )
    return no_content()


async def prune(engine: Engine, request: Request) -> Answer:
    return json_response(await engine.containers.prune(request.query.filters()))


ROUTES = (
    Route("ContainerList", "GET", "/containers/json", list_containers),
    Route("ContainerCreate", "POST", "/containers/create", create, scope="operate"),
    Route("ContainerPrune", "POST", "/containers/prune", prune, since=(1, 25), scope="operate"),
    Route("ContainerInspect", "GET", "/containers/{id}/json", inspect),
    Route("ContainerTop", "GET", "/containers/{id}/top", top),
    Route("ContainerLogs", "GET", "/containers/{id}/logs", logs),
    Route("ContainerLogsClear", "DELETE", "/containers/{id}/logs", clear_logs, scope="operate"),
    Route("ContainerChanges", "GET", "/containers/{id}/changes", changes),
    Route("ContainerStats", "GET", "/containers/{id}/stats", stats),
    Route("ContainerStatsHistory", "GET", "/containers/{id}/stats/history", stats_history),  # ours
    Route("ContainerResize", "POST", "/containers/{id}/resize", resize, scope="operate"),
    Route("ContainerStart", "POST", "/containers/{id}/start", start, scope="operate"),
    Route("ContainerStop", "POST", "/containers/{id}/stop", stop, scope="operate"),
    Route("ContainerRestart", "POST", "/containers/{id}/restart", restart, scope="operate"),
    Route("ContainerKill", "POST", "/containers/{id}/kill", kill, scope="operate"),
    Route("ContainerPause", "POST", "/containers/{id}/pause", pause, scope="operate"),
    Route("ContainerUnpause", "POST", "/containers/{id}/unpause", unpause, scope="operate"),
    Route("ContainerRename", "POST", "/containers/{id}/rename", rename, scope="operate"),
    Route("ContainerUpdate", "POST", "/containers/{id}/update", update, scope="operate"),
    Route("ContainerWait", "POST", "/containers/{id}/wait", wait),
    Route("ContainerDelete", "DELETE", "/containers/{id}", remove, scope="operate"),
    # a link's name has a slash: `rm --link web/db`
    Route("ContainerDeleteLink", "DELETE", "/containers/{id:.*}", remove, scope="operate"),
)
