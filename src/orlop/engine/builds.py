"""Builds: a context and a Dockerfile become an image, told in the classic builder's words.

Flow: spool the context, read the Dockerfile, resolve images (pulling what is missing), lower to
a graph, solve it, write the config, name the image. A build that is cached to the end writes
nothing but what it used. Ending the stream cancels everything and leaves nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any, ClassVar

from orlop.base.errors import Kind, OrlopError
from orlop.build.classictext import TextStream
from orlop.build.contenthash import SourceMissing
from orlop.build.context import sweep_contexts
from orlop.build.executor import CommandFailed
from orlop.build.runner import BuildFailed
from orlop.engine.build_cache import BuildCacheService
from orlop.engine.build_executor import RuntimeExecutor
from orlop.engine.build_run import BuildRun, BuildServices
from orlop.engine.build_views import BuildRequest

__all__ = ["Builds"]

Message = dict[str, object]


class BuildCancelled(OrlopError):
    """Somebody asked for the end of this build."""

    kind: ClassVar[Kind] = Kind.CANCELLED
    code: ClassVar[str] = "build-cancelled"


class Builds:
    """The build service; one per engine. `cache` lists and prunes what builds have left."""

    def __init__(
        self, services: BuildServices, *, cache: BuildCacheService, executor: RuntimeExecutor
    ) -> None:
        self._services = services
        self._executor = executor
        self._running: dict[str, asyncio.Task[None]] = {}
        self.cache = cache

    async def build(self, request: BuildRequest, body: AsyncIterator[bytes]) -> AsyncIterator[Message]:
        """Build; messages of Docker's progress stream as they come.

        An error before the first message is the request's; a later one belongs into the stream.
        Closing the iterator stops the build and waits until nothing of it is left.
        """
        stream = TextStream()
        run = BuildRun(self._services, request, stream)
        failures: list[OrlopError] = []
        task = self._services.background.spawn(_collect(run.run(body), failures), name="build")
        task.add_done_callback(lambda _task: stream.end())
        if request.build_id:
            self._running[request.build_id] = task
        try:
            while (message := await stream.take()) is not None:
                yield message
            await _end_of(task)
            for failure in failures:
                if not isinstance(failure, BuildFailed):
                    raise failure
                yield _failure_message(failure)
        finally:
            self._running.pop(request.build_id, None)
            task.cancel()
            await asyncio.wait([task])

    def cancel(self, build_id: str) -> None:
        """Stop a build that gave an id; fine when there is none."""
        task = self._running.get(build_id)
        if task is not None:
            task.cancel()

    async def recover(self) -> None:
        """Sweep what an engine that is gone has left of its builds; before any build starts."""
        sweep_contexts(self._services.tools.data_root)
        await self._executor.recover()


async def _collect(work: Coroutine[Any, Any, None], failures: list[OrlopError]) -> None:
    """What the user did wrong is the stream's business, not the log's."""
    try:
        await work
    except OrlopError as error:
        failures.append(error)


async def _end_of(task: asyncio.Task[None]) -> None:
    try:
        await task
    except asyncio.CancelledError:
        current = asyncio.current_task()
        if current is not None and current.cancelling():
            raise
        raise BuildCancelled("the build was cancelled") from None


def _failure_message(failure: BuildFailed) -> Message:
    """The last line of a stream. docker-py's users look at `errorDetail.code`."""
    cause = failure.cause
    text = str(cause)
    if isinstance(cause, SourceMissing):
        name = failure.vertex.name.partition(" ")[0].upper()
        text = f"{name} failed: {text}"
    code = cause.exit_code if isinstance(cause, CommandFailed) else 0
    detail: Message = {"code": code, "message": text} if code else {"message": text}
    return {"errorDetail": detail, "error": text}
