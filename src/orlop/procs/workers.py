"""The engine's end of the workers: run a named job in a child, with progress (asyncio).

One fork per job: about two milliseconds, and nothing of one job can leak into the next.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

from orlop.base.errors import Kind, OrlopError
from orlop.procs.channel import Channel, ChannelBroken, Message, channel_pair, close_all
from orlop.procs.errors import decode_error, encode_error
from orlop.procs.worker import Job
from orlop.procs.zygote import Zygote

__all__ = ["InlineWorkers", "Progress", "WorkerDied", "Workers", "ZygoteWorkers"]

Progress = Callable[[dict[str, Any]], None]


class WorkerDied(OrlopError):
    """The worker ended without a result: killed, out of memory, or crashed."""

    kind: ClassVar[Kind] = Kind.INTERNAL
    code: ClassVar[str] = "worker-died"
    remedy: ClassVar[str | None] = "try again; the log of the engine and dmesg tell whether memory ran out"


class Workers(Protocol):
    """Runs jobs outside the engine's process."""

    async def run(
        self, job: str, payload: dict[str, Any], *, fds: Sequence[int] = (), progress: Progress | None = None
    ) -> dict[str, Any]:
        """Run a job and return its result; the descriptors stay the caller's.

        Cancelling kills the worker at once: jobs leave nothing that a sweep cannot find.

        Raises:
            OrlopError: what the job raised, as its own class where that is loaded.
            WorkerDied: it ended without an answer.
        """


class ZygoteWorkers:
    """Workers forked by the zygote; at most `limit` at a time."""

    def __init__(self, zygote: Zygote, *, limit: int | None = None) -> None:
        self._zygote = zygote
        self._slots = asyncio.Semaphore(limit or 2 * (os.cpu_count() or 1) + 2)

    async def run(
        self, job: str, payload: dict[str, Any], *, fds: Sequence[int] = (), progress: Progress | None = None
    ) -> dict[str, Any]:
        """See `Workers.run`."""
        async with self._slots:
            ours, theirs = channel_pair()
            try:
                child = await self._zygote.spawn(
                    "worker", {"job": job, "payload": payload}, [theirs.fileno(), *fds]
                )
            except BaseException:
                ours.close()
                raise
            finally:
                theirs.close()
            try:
                return await _collect(ours, job, progress)
            finally:
                child.kill()  # harmless after a result: the worker has nothing left to do
                child.close()
                ours.close()


async def _collect(channel: Channel, job: str, progress: Progress | None) -> dict[str, Any]:
    channel.socket.setblocking(False)
    while (message := await _receive(channel)) is not None:
        close_all(message.fds)
        body = message.body
        if "result" in body:
            result: dict[str, Any] = body["result"]
            return result
        if "error" in body:
            raise decode_error(body["error"])
        if progress is not None and "progress" in body:
            progress(body["progress"])
    raise WorkerDied(f"the worker of job {job!r} ended without an answer", hint="see the engine's log")


async def _receive(channel: Channel) -> Message | None:
    loop = asyncio.get_running_loop()
    while True:
        try:
            return channel.receive()
        except BlockingIOError:
            pass
        except ChannelBroken:
            return None
        readable: asyncio.Future[None] = loop.create_future()
        loop.add_reader(channel.fileno(), _settle, readable)
        try:
            await readable
        finally:
            loop.remove_reader(channel.fileno())


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class InlineWorkers:
    """Runs jobs in a thread of this process, for tests: no fork, no confinement."""

    def __init__(self, jobs: Mapping[str, Job]) -> None:
        self._jobs = jobs

    async def run(
        self, job: str, payload: dict[str, Any], *, fds: Sequence[int] = (), progress: Progress | None = None
    ) -> dict[str, Any]:
        """See `Workers.run`; errors make the same round trip as those of real workers."""
        loop = asyncio.get_running_loop()

        def report(value: dict[str, Any]) -> None:
            if progress is not None:
                loop.call_soon_threadsafe(progress, value)

        function = self._jobs[job]
        copies = [os.dup(fd) for fd in fds]
        try:
            return await asyncio.to_thread(function, payload, copies, report)
        except Exception as error:
            raise decode_error(encode_error(error)) from error
        finally:
            close_all(copies)
