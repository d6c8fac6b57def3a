"""One build on its way: read, resolve, lower, solve, export, tell."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass

from orlop.aio.scope import Background
from orlop.base import failpoints
from orlop.base.errors import InvalidInput, NotFound
from orlop.base.ids import LeaseId
from orlop.build.cache import Pins
from orlop.build.classictext import ClassicText, StepView, TextStream
from orlop.build.context import Context, spool_context
from orlop.build.dockerfile.draft import BaseImage
from orlop.build.dockerfile.errors import DockerfileError
from orlop.build.dockerfile.lower import lower, read_dockerfile
from orlop.build.dockerfile.options import BaseRequest, BasesNeeded, FrontendOptions, Lowered
from orlop.build.export import config_bytes, parse_epoch
from orlop.build.graph import Edge, NetworkMode
from orlop.build.results import LayersResult
from orlop.build.runner import BuildFailed, BuildTools, RunOptions, solve
from orlop.build.solver import Solver
from orlop.engine.auth import find_auth
from orlop.engine.build_cache import BuildCacheService
from orlop.engine.build_views import BuildRequest
from orlop.engine.events import EventBus
from orlop.engine.image_transfers import ImageTransfers
from orlop.images.model import Image
from orlop.images.store import ImageStore
from orlop.oci.digest import Digest, digest_of
from orlop.oci.platform import Platform, host_platform, parse_platform
from orlop.oci.reference import Reference, parse_reference
from orlop.store.leases import Leases

__all__ = ["BuildRun", "BuildServices"]

_NETWORKS = {
    "": NetworkMode.DEFAULT,
    "default": NetworkMode.DEFAULT,
    "bridge": NetworkMode.DEFAULT,
    "none": NetworkMode.NONE,
    "host": NetworkMode.HOST,
}


@dataclass(frozen=True, slots=True)
class BuildServices:
    """What every build of an engine uses."""

    tools: BuildTools
    images: ImageStore
    transfers: ImageTransfers
    leases: Leases
    events: EventBus
    background: Background
    listing: BuildCacheService


class BuildRun:
    """One build; use it once."""

    def __init__(self, services: BuildServices, request: BuildRequest, stream: TextStream) -> None:
        self._services = services
        self._request = request
        self._told = stream
        self._stream = TextStream() if request.is_quiet else stream
        self._options = _frontend_options(request)
        self._names = tuple(dict.fromkeys(_tag_name(tag) for tag in request.tags))
        self._epoch_ns = parse_epoch(request.build_args.get("SOURCE_DATE_EPOCH", ""))
        self._stack = AsyncExitStack()
        self._bases: dict[BaseRequest, BaseImage] = {}
        self._base_images: list[Image] = []
        self._lease_lock = asyncio.Lock()
        self._lease_id: LeaseId | None = None
        self._is_first_told = False
        self._allowed: list[tuple[Digest, ...]] | None = None
        self._shown: list[str] = []

    async def run(self, body: AsyncIterator[bytes]) -> None:
        """Everything from the context to the named image; messages go to the stream.

        Raises:
            BuildFailed: a step failed.
            OrlopError: the request, the context or the Dockerfile cannot be used.
        """
        tools = self._services.tools
        async with self._stack as stack:
            context = await stack.enter_async_context(spool_context(tools.data_root, body, tools.workers))
            pins = stack.enter_context(tools.cache.pins())
            text = await context.read_dockerfile(
                self._request.dockerfile, applies_ignore=self._request.applies_ignore
            )
            lowered = await self._lower(text)
            for warning in lowered.warnings:
                self._stream.say(f"[WARNING]: {warning}\n")
            await self._load_cache_sources()
            solver = await self._solve(lowered, context, pins)
            layers = _layers_of(solver, lowered.definition.target)
            image_id = await self._export(config_bytes(lowered.draft, layers.layers, self._epoch_ns))
            keys = tuple(pins.keys)
        # nobody waits for the bookkeeping
        self._services.background.start(self._book(keys, [*self._shown, image_id]), name="build-cache")
        self._tell_success(lowered, image_id)

    async def _book(self, keys: Sequence[str], shown: Sequence[str]) -> None:
        await self._services.tools.cache.touch(keys, shown)
        if self._lease_id is not None:  # something was made
            await self._services.listing.trim()

    def _tell_success(self, lowered: Lowered, image_id: Digest) -> None:
        """The lines that clients look for."""
        if self._request.is_quiet:
            self._told.say(f"{image_id}\n")
            return
        if lowered.unused_args:
            listed = " ".join(lowered.unused_args)
            self._told.say(f"[Warning] One or more build-args [{listed}] were not consumed\n")
        self._told.add({"aux": {"ID": image_id}})
        self._told.say(f"Successfully built {_short(image_id)}\n")
        for name in self._names:
            self._told.say(f"Successfully tagged {name.familiar}\n")

    # --- lowering ---

    async def _lower(self, text: bytes) -> Lowered:
        dockerfile = read_dockerfile(text)
        while True:
            try:
                return lower(dockerfile, self._options, self._bases)
            except BasesNeeded as needed:
                for request in needed.requests:
                    self._bases[request] = await self._base(request, needed)

    async def _base(self, request: BaseRequest, needed: BasesNeeded) -> BaseImage:
        wanted = request.platform or self._request.platform
        platform = parse_platform(wanted) if wanted else None
        images = self._services.images
        image = None if self._request.pulls else await images.find(request.reference, platform)
        if image is not None and platform and not image.config.platform.runs_on(platform):
            image = None
        if image is None:
            if not self._is_first_told:
                self._stream.say(f"Step 1/{needed.step_count} : {needed.first_step}\n")
                self._is_first_told = True
            reference = parse_reference(request.reference).with_default_tag()
            await self._pull(reference, wanted)
            image = await images.find(str(reference), platform)
        if image is None:
            raise NotFound(f"No such image: {request.reference}")
        if not image.config.platform.runs_on(self._options.host):
            raise InvalidInput(
                f"image {request.reference} is for {image.config.platform}, "
                f"this machine is {self._options.host}"
            )
        await images.uses.touch(image.id)
        self._base_images.append(image)
        return BaseImage(request.reference, image.config)

    async def _pull(self, reference: Reference, platform: str) -> None:
        auth = find_auth(self._request.auth, reference.domain)
        messages = self._services.transfers.pull(str(reference), "", platform, auth)
        async with aclosing(messages) as source:  # type: ignore[type-var]  # it is a generator
            async for message in source:
                self._stream.add(message)
                await self._stream.drain()

    # --- solving ---

    async def _load_cache_sources(self) -> None:
        """With --cache-from, only what is in those images counts as cached."""
        if not self._request.cache_from:
            return
        found = [await self._services.images.find(name) for name in self._request.cache_from]
        self._allowed = [image.diff_ids for image in found if image is not None]

    def _allows(self, result: LayersResult) -> bool:
        ids = result.diff_ids
        return self._allowed is None or any(ids == allowed[: len(ids)] for allowed in self._allowed)

    async def _lease(self) -> LeaseId:
        """Taken when the first layer is made; the images that the build stands on are held, too."""
        async with self._lease_lock:
            if self._lease_id is None:
                self._lease_id = await self._stack.enter_async_context(self._services.leases.hold("build"))
                for image in self._base_images:
                    await self._services.images.hold(image.id, self._lease_id)
            return self._lease_id

    async def _solve(self, lowered: Lowered, context: Context, pins: Pins) -> Solver:
        holder: list[Solver] = []

        async def view(index: int) -> StepView | None:
            return await self._view(lowered, index, holder[0]) if holder else None

        text = ClassicText(
            lowered.steps,
            self._stream,
            view,
            removes=self._request.removes,
            is_first_told=self._is_first_told,
        )
        options = RunOptions(
            platform=self._options.platform,
            limits=self._request.limits,
            epoch_ns=self._epoch_ns,
            allows=self._allows,
        )
        teller = self._services.background.spawn(text.follow(), name="build-text")
        try:
            solver = await solve(
                lowered.definition,
                self._services.tools,
                options,
                context=context,
                lease=self._lease,
                pins=pins,
                observer=text,
                on_start=holder.append,
            )
        except BuildFailed as failure:
            teller.cancel()
            await asyncio.wait([teller])
            await text.advance()
            text.fail(failure.vertex)
            raise
        finally:
            teller.cancel()
            await asyncio.wait([teller])
        await text.finish()
        return solver

    async def _view(self, lowered: Lowered, index: int, solver: Solver) -> StepView | None:
        step = lowered.steps[index]
        base = step.draft.base
        if step.is_from and not step.draft.history:
            return StepView(_hex(base.config.digest) if base else "", is_cached=False)
        result = _find_layers(solver, step.edge)
        if result is None:
            return None
        image_id = digest_of(config_bytes(step.draft, result.layers, self._epoch_ns))
        self._shown.append(image_id)
        if step.makes_layer and step.edge is not None:
            return StepView(_hex(image_id), solver.is_cached(step.edge.vertex))
        is_cached = (
            not self._request.ignores_cache
            and self._allows(result)
            and bool(await self._services.tools.cache.known_steps([image_id]))
        )
        return StepView(_hex(image_id), is_cached)

    # --- export ---

    async def _export(self, config: bytes) -> Digest:
        """Store the image, or only name it when it is there already."""
        image_id = digest_of(config)
        images = self._services.images
        existing = await images.find(image_id)
        if existing is None:
            lease = await self._lease()
            failpoints.hit("build.export.before-image")
            await images.put(config, lease=lease, names=self._names)
        else:
            for name in self._names:
                if name not in existing.tags:
                    await images.tag(image_id, name)
        for name in self._names:
            self._services.events.publish("image", "tag", image_id, {"name": name.familiar})
        return image_id


def _find_layers(solver: Solver, edge: Edge | None) -> LayersResult | None:
    if edge is None:
        return LayersResult()
    result = solver.result_of(edge.vertex)
    return result if isinstance(result, LayersResult) else None


def _layers_of(solver: Solver, edge: Edge | None) -> LayersResult:
    result = _find_layers(solver, edge)
    assert result is not None, "a solved target has a result"
    return result


def _tag_name(text: str) -> Reference:
    name = parse_reference(text)
    if name.digest is not None:
        raise InvalidInput("build tag cannot contain a digest")
    return name.with_default_tag()


def _frontend_options(request: BuildRequest) -> FrontendOptions:
    host = host_platform()
    platform = host
    if request.platform:
        platform = parse_platform(request.platform)
        _check_platform(platform, host)
    if request.network_mode not in _NETWORKS:
        raise NotFound(f"network {request.network_mode[:200]} not found")
    return FrontendOptions(
        build_args=request.build_args,
        labels=request.labels,
        target=request.target,
        platform=platform,
        host=host,
        ignores_cache=request.ignores_cache,
        network=_NETWORKS[request.network_mode],
        extra_hosts=tuple(_host_entry(entry) for entry in request.extra_hosts),
        ulimits=request.ulimits,
        shm_size_bytes=request.shm_size_bytes,
        cgroup_parent=request.cgroup_parent,
    )


def _check_platform(platform: Platform, host: Platform) -> None:
    if not platform.runs_on(host):
        raise DockerfileError(
            f"platform {platform} cannot be built here: this machine is {host}",
            hint="building for another architecture needs emulation, which is not available",
        )


def _host_entry(entry: str) -> tuple[str, str]:
    name, separator, address = entry.partition("=") if "=" in entry else entry.partition(":")
    if not separator or not name or not address or any(c.isspace() for c in entry):
        raise InvalidInput(f"bad format for add-host: {entry[:200]!r}")
    return name, address


def _hex(digest: Digest) -> str:
    return digest.partition(":")[2]


def _short(digest: Digest) -> str:
    return _hex(digest)[:12]
