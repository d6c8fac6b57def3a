"""The runner: carries out what the solver asks for, as many things at a time as it asks.

It owns the order of durable steps: a layer is committed and held by the build's lease, then the
cache record that names it is written. Cancelling the task stops every step; executors and
stages leave nothing behind.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from orlop.aio import offload
from orlop.aio.scope import Scope
from orlop.base import failpoints, ids, trace
from orlop.base.clock import Clock
from orlop.base.errors import Kind, OrlopError
from orlop.base.ids import LeaseId
from orlop.build import graph as g
from orlop.build import solver as s
from orlop.build.cache import BuildCache, Pins
from orlop.build.cachekey import Selection, cache_map, content_key
from orlop.build.context import Context
from orlop.build.executor import CommandFailed, ExecRequest, Executor, Limits, Overlay
from orlop.build.opjson import encode_file_op, encode_selection
from orlop.build.results import BuiltLayer, ContextResult, LayersResult, Result
from orlop.oci.digest import Digest
from orlop.oci.platform import Platform
from orlop.procs.workers import Workers
from orlop.store.layerfile import TAR_OFFSET
from orlop.store.layers import LayerStore
from orlop.store.snapshots import Snapshots

__all__ = ["BuildFailed", "BuildTools", "LeaseSource", "Observer", "RunOptions", "solve"]

T = TypeVar("T")

LeaseSource = Callable[[], Awaitable[LeaseId]]
"""Gives the build's lease, taken when the first layer is made: cached builds need none."""

_NETWORKS = {g.NetworkMode.DEFAULT: "default", g.NetworkMode.HOST: "host", g.NetworkMode.NONE: "none"}
_SCRATCH_FLAGS = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC


class BuildFailed(OrlopError):
    """A step failed; `cause` is why, `vertex` which, `line` where it stands."""

    code = "build-failed"

    def __init__(self, cause: OrlopError, vertex: g.Vertex) -> None:
        super().__init__(cause.message, hint=cause.hint, line=vertex.line, step=vertex.name[:200])
        self.cause = cause
        self.vertex = vertex


class Unsupported(OrlopError):
    """The Dockerfile asks for something that this version does not have."""

    kind = Kind.UNSUPPORTED
    code = "unsupported-build-step"


class Observer(Protocol):
    """Told what happens, in the event loop."""

    def started(self, vertex: g.Vertex, token: str) -> None:
        """An operation runs now; `token` is 64 hex digits that name its run."""

    async def output(self, vertex: g.Vertex, stream: int, data: bytes) -> None:
        """The process of an operation has written something; may wait for a slow client."""

    def finished(self, vertex: g.VertexId) -> None:
        """The result of a vertex is known."""


@dataclass(frozen=True, slots=True)
class BuildTools:
    """Services that steps are carried out with; one set per engine."""

    cache: BuildCache
    layers: LayerStore
    snapshots: Snapshots
    workers: Workers
    executor: Executor
    clock: Clock
    data_root: str


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Choices of one build that do not change the graph.

    `allows` says whether a cached result may be used (`--cache-from` narrows it down).
    """

    platform: Platform
    limits: Limits = field(default_factory=Limits)
    epoch_ns: int | None = None
    allows: Callable[[LayersResult], bool] = lambda _result: True


async def solve(
    definition: g.Definition,
    tools: BuildTools,
    options: RunOptions,
    *,
    context: Context | None,
    lease: LeaseSource,
    pins: Pins,
    observer: Observer,
    on_start: Callable[[s.Solver], object] = lambda _solver: None,
) -> s.Solver:
    """Solve the definition; the solver knows all results afterwards.

    Layers made on the way are held by the lease, cached ones by `pins`.

    Raises:
        BuildFailed: a step failed; the others were stopped.
    """
    runner = _Runner(definition, tools, options, context, lease, pins, observer)
    on_start(runner.solver)
    return await runner.run()


class _Runner:
    def __init__(
        self,
        definition: g.Definition,
        tools: BuildTools,
        options: RunOptions,
        context: Context | None,
        lease: LeaseSource,
        pins: Pins,
        observer: Observer,
    ) -> None:
        self._vertices = definition.vertices
        self._tools = tools
        self._options = options
        self._context = context
        self._lease = lease
        self._pins = pins
        self._observer = observer
        self.solver = s.Solver(definition, options.platform, on_done=observer.finished)
        self._events: asyncio.Queue[s.Event] = asyncio.Queue()

    async def run(self) -> s.Solver:
        async with Scope("build") as scope:  # the first failure stops everything else and is raised
            commands = self.solver.start()
            while True:
                for command in commands:
                    scope.start(self._carry_out(command), name=type(command).__name__)
                if self.solver.is_done:
                    break
                commands = self.solver.handle(await self._events.get())
        return self.solver

    async def _carry_out(self, command: s.Command) -> None:
        match command:
            case s.Query():
                self._events.put_nowait(s.Queried(command.vertex, await self._query(command)))
            case s.Hash():
                key = await self._blaming(command.vertex, self._hash(command))
                self._events.put_nowait(s.Hashed(command.vertex, command.input, key))
            case s.Run():
                with trace.span("build.step", step=self._vertices[command.vertex].name):
                    result = await self._blaming(command.vertex, self._run(command))
                self._events.put_nowait(s.Ran(command.vertex, result))
            case s.Save():
                await self._save(command)
            case s.Link():
                await self._tools.cache.link(command.digest, command.inputs, command.key)

    async def _blaming(self, vertex: g.VertexId, work: Awaitable[T]) -> T:
        """Say which step failed."""
        try:
            return await work
        except OrlopError as error:
            raise BuildFailed(error, self._vertices[vertex]) from error

    # --- cache ---

    async def _query(self, command: s.Query) -> tuple[s.Match, ...]:
        found = await self._tools.cache.query(command.digest, command.inputs, self._pins)
        allows = self._options.allows
        return tuple(match for match in found if match.result is None or allows(match.result))

    async def _hash(self, command: s.Hash) -> str:
        vertex = self._vertices[command.vertex]
        identity = cache_map(vertex.op, len(vertex.inputs), self._options.platform)
        selections = identity.dependencies[command.input].selections
        if isinstance(command.result, ContextResult):
            assert self._context is not None, "a build without a context does not copy from it"
            return content_key(await self._context.digests(selections))
        return content_key(await self._hash_layers(command.result, selections))

    async def _hash_layers(self, result: LayersResult, selections: Sequence[Selection]) -> list[str]:
        job = {"tree": await self._tree(result), "selections": [encode_selection(one) for one in selections]}
        digests: list[str] = (await self._tools.workers.run("build.digests", job))["digests"]
        return digests

    async def _save(self, command: s.Save) -> None:
        vertex = self._vertices[command.vertex]
        below = {diff_id for edge in vertex.inputs for diff_id in self._diff_ids(edge)}
        added = [diff_id for diff_id in command.result.diff_ids if diff_id not in below]
        self._pins.add(command.key)
        await self._tools.cache.save(
            command.digest, command.inputs, command.key, command.result, added, vertex.name
        )

    def _diff_ids(self, edge: g.Edge) -> tuple[Digest, ...]:
        result = self.solver.result_of(edge.vertex)
        return result.diff_ids if isinstance(result, LayersResult) else ()

    # --- operations ---

    async def _run(self, command: s.Run) -> LayersResult:
        vertex = self._vertices[command.vertex]
        match vertex.op:
            case g.FileOp() as operation:
                return await self._run_files(vertex, operation, command.inputs)
            case g.ExecOp() as operation:
                return await self._run_process(vertex, operation, command.inputs)
            case g.MergeOp():
                layers = [layer for result in command.inputs for layer in _layers(result).layers]
                return LayersResult(tuple(layers))
            case g.SourceOp() as operation:
                raise Unsupported(
                    f"ADD of a remote source is not supported yet: {operation.identifier[:300]}",
                    hint="fetch the file first and COPY it from the context",
                )

    async def _run_files(
        self, vertex: g.Vertex, operation: g.FileOp, inputs: Sequence[Result]
    ) -> LayersResult:
        first = operation.actions[0].input
        base = _layers(inputs[first]) if first >= 0 else LayersResult()
        self._observer.started(vertex, ids.new_hex_id())
        async with self._tools.layers.stage(await self._lease()) as staged:
            fds = [staged.fd]
            scratch = await offload.thread(os.open, self._tools.data_root, _SCRATCH_FLAGS, 0o600)
            try:
                fds.append(scratch)
                trees = [await self._input_tree(result, fds) for result in inputs]
                job = {
                    "operation": encode_file_op(operation),
                    "base": await self._tree(base),
                    "inputs": trees,
                    "out": 0,
                    "scratch": 1,
                    "offset": TAR_OFFSET,
                }
                await self._tools.workers.run("build.layer", job, fds=fds)
            finally:
                os.close(scratch)
            failpoints.hit("build.step.before-commit")
            info = await staged.commit()
        return base.plus(BuiltLayer(info.diff_id, self._now_ns()))

    async def _input_tree(self, result: Result, fds: list[int]) -> dict[str, Any]:
        if isinstance(result, LayersResult):
            return await self._tree(result)
        assert self._context is not None
        fds.append(self._context.fd)
        return self._context.tree(len(fds) - 1)

    async def _tree(self, result: LayersResult) -> dict[str, Any]:
        """How a job's payload names a root: its layers, mounted."""
        if not result.layers:
            return {"kind": "empty"}
        view = await self._tools.snapshots.view(result.diff_ids)
        return {"kind": "root", "lowers": view.lowers}

    async def _run_process(
        self, vertex: g.Vertex, operation: g.ExecOp, inputs: Sequence[Result]
    ) -> LayersResult:
        root = _root(operation, inputs)
        token = ids.new_hex_id()
        self._observer.started(vertex, token)
        request = _exec_request(token, operation, inputs, self._options.limits)

        async def output(stream: int, data: bytes) -> None:
            await self._observer.output(vertex, stream, data)

        try:
            diff_id = await self._tools.executor.run(request, await self._lease(), output)
        except CommandFailed as error:
            raise CommandFailed(_shown(operation), error.exit_code) from None
        return root.plus(BuiltLayer(diff_id, self._now_ns()))

    def _now_ns(self) -> int:
        return self._tools.clock.now_ns() if self._options.epoch_ns is None else self._options.epoch_ns


def _layers(result: Result) -> LayersResult:
    assert isinstance(result, LayersResult), "the context is only copied from"
    return result


def _root(operation: g.ExecOp, inputs: Sequence[Result]) -> LayersResult:
    (mount,) = [mount for mount in operation.mounts if mount.target == "/"]
    return _layers(inputs[mount.input]) if mount.input >= 0 else LayersResult()


def _exec_request(token: str, operation: g.ExecOp, inputs: Sequence[Result], limits: Limits) -> ExecRequest:
    present = {entry.partition("=")[0] for entry in operation.env}
    proxies = [f"{name}={value}" for name, value in operation.proxy_env if name not in present]
    overlays = tuple(
        Overlay(mount.target, _layers(inputs[mount.input]).diff_ids)
        for mount in operation.mounts
        if mount.target != "/" and mount.input >= 0
    )
    shm = [mount.tmpfs_size_bytes for mount in operation.mounts if mount.target == "/dev/shm"]
    return ExecRequest(
        key=token,
        layers=_root(operation, inputs).diff_ids,
        args=operation.args,
        env=(*operation.env, *proxies),
        cwd=operation.cwd,
        user=operation.user,
        hostname=operation.hostname,
        network=_NETWORKS[operation.network],
        extra_hosts=operation.extra_hosts,
        overlays=overlays,
        shm_size_bytes=shm[0] if shm else 0,
        ulimits=operation.ulimits,
        cgroup_parent=operation.cgroup_parent,
        limits=limits,
    )


def _shown(operation: g.ExecOp) -> str:
    return " ".join(operation.args)
