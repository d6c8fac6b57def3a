"""Jobs of workers that write a stream of bytes, or read one: a socket pair between them and the engine."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from orlop.base.errors import InvalidInput, OrlopError
from orlop.engine.services import Services

__all__ = ["bytes_only", "feed", "stream"]

_READ = 256 << 10


async def feed(services: Services, job: str, payload: dict[str, Any], chunks: AsyncIterator[bytes]) -> None:
    """Run a job that reads a socket, and give it the chunks; its error is raised at once."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    try:
        work = services.workers.run(job, payload, fds=[theirs.fileno()])
        task = services.background.spawn(_as_result(work), name=job)
        try:
            await _send_all(ours, chunks, task)
            error = await task
            if error is not None:
                raise error
        finally:
            task.cancel()
    finally:
        ours.close()
        theirs.close()


async def stream(
    services: Services,
    job: str,
    payload: dict[str, Any],
    translated: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> AsyncGenerator[bytes | dict[str, Any], None]:
    """Run a job that writes to a socket: its first report, then its bytes.

    Args:
        services: of the engine.
        job: its name.
        payload: what it is told.
        translated: entered where an early error of the job is raised.
    """
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    loop = asyncio.get_running_loop()
    first: asyncio.Future[dict[str, Any]] = loop.create_future()

    def reported(value: dict[str, Any]) -> None:
        theirs.close()  # the worker has its own copy: its end is now the end of the stream
        if not first.done():
            first.set_result(value)

    try:
        work = services.workers.run(job, payload, fds=[theirs.fileno()], progress=reported)
        task = services.background.spawn(_as_result(work), name=job)
        try:
            waiting: tuple[asyncio.Future[Any], ...] = (task, first)
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if not first.done():
                with translated():
                    raise await task or InvalidInput("the worker gave no answer")
            yield first.result()
            while chunk := await loop.sock_recv(ours, _READ):
                yield chunk
            error = await task
            if error is not None:
                raise error
        finally:
            task.cancel()
    finally:
        first.cancel()
        ours.close()
        theirs.close()


async def bytes_only(items: AsyncIterator[bytes | dict[str, Any]]) -> AsyncIterator[bytes]:
    """A stream without its report; closes it."""
    try:
        async for item in items:
            if isinstance(item, bytes):
                yield item
    finally:
        close = getattr(items, "aclose", None)
        if close is not None:
            await close()


async def _as_result(work: Any) -> OrlopError | None:
    """The error of a job as its value, so that whoever awaits it decides."""
    try:
        await work
    except OrlopError as error:
        return error
    return None


async def _send_all(
    sock: socket.socket, chunks: AsyncIterator[bytes], job: asyncio.Task[OrlopError | None]
) -> None:
    """Send until the end or until the job has ended early."""
    loop = asyncio.get_running_loop()
    async for chunk in chunks:
        sending = asyncio.ensure_future(loop.sock_sendall(sock, chunk))  # noqa: TID251 - awaited right below
        waiting: tuple[asyncio.Future[Any], ...] = (sending, job)
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if job.done():
            sending.cancel()
            return
        await sending
    sock.shutdown(socket.SHUT_WR)
