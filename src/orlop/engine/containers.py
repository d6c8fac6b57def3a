"""The containers of the engine: every verb, by reference, in one place.

A thin front: finds the container, calls the module of the verb. `list` and `inspect` never wait for
a container and take no lock.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

from orlop.base.errors import InvalidInput, NotFound
from orlop.base.ids import SnapshotKey
from orlop.engine import amendments, committing, creation, inspection, lifecycle, metrics, summaries
from orlop.engine.attaching import Attacher, AttachOptions, AttachStream
from orlop.engine.catalog import Catalog
from orlop.engine.extensions import Amendment
from orlop.engine.files import Files
from orlop.engine.filters import Filters
from orlop.engine.launch import resource_spec
from orlop.engine.lifecycle import Event, NotPossible, Status
from orlop.engine.logs import LogOptions, LogStream, clear_logs, open_logs
from orlop.engine.model import Container, State
from orlop.engine.names import check_name
from orlop.engine.removal import Remover
from orlop.engine.requests import CommitRequest, CreateRequest, UpdateRequest
from orlop.engine.resources import fit_resources
from orlop.engine.running import Runner
from orlop.engine.services import Services, container_paths, emit
from orlop.engine.stopping import Stopper
from orlop.engine.summaries import ListOptions
from orlop.engine.system import ContainerCounts
from orlop.engine.updating import updated
from orlop.engine.views import (
    ContainerChange,
    ContainerInspect,
    ContainerSummary,
    CreateResult,
    PathStat,
    PruneResult,
    TopResult,
    UpdateResult,
)
from orlop.images.model import ImageNotFound

__all__ = ["Containers"]

_RENAMING = "Error when allocating new name: "


class Containers:
    """All verbs on containers. References are ids, prefixes or names."""

    def __init__(self, services: Services, runner: Runner, stopper: Stopper, remover: Remover) -> None:
        self._services = services
        self._runner = runner
        self._stopper = stopper
        self._remover = remover
        self._attacher = Attacher(services)
        self._files = Files(services)

    @property
    def catalog(self) -> Catalog:
        """The entries behind the references."""
        return self._services.catalog

    def get(self, reference: str) -> Container:
        """The entry; raises NoSuchContainer."""
        return self._services.catalog.get(reference)

    def counts(self) -> ContainerCounts:
        """How many run, are paused, are stopped."""
        running = paused = total = 0
        for container in self._services.catalog:
            total += 1
            paused += container.status is Status.PAUSED
            running += container.status in (Status.RUNNING, Status.RESTARTING)
        return ContainerCounts(running, paused, total - running - paused)

    def users_of_image(self, image_id: str) -> Sequence[Container]:
        """The containers made from an image."""
        return [container for container in self._services.catalog if container.record.image_id == image_id]

    # --- seeing ---

    async def list(self, options: ListOptions, *, with_size: bool = False) -> list[ContainerSummary]:
        """The rows of `ps`, newest first."""
        wanted = await self._ancestors(options.filters)

        def is_ancestor(container: Container) -> bool:
            record = container.record
            return wanted is None or bool(wanted.intersection((record.image_id, *record.layers)))

        now_ns = self._services.clock.now_ns()
        found = summaries.select(self._services.catalog, options, is_ancestor)
        meant = await self._services.images.find_ids({item.record.image_name for item in found})
        rows = [summaries.summarize(item, now_ns, meant.get(item.record.image_name)) for item in found]
        if with_size:
            rows = [
                replace(row, size_rw=own, size_root_fs=own + below)
                for row, (own, below) in zip(rows, [await self._sizes(item) for item in found], strict=True)
            ]
        return rows

    async def _ancestors(self, filters: Filters) -> set[str] | None:
        """Image ids, or topmost layers, that the `ancestor` filter accepts; None for any."""
        names = filters.get("ancestor")
        if not names:
            return None
        wanted: set[str] = set()
        for name in names:
            try:
                image = await self._services.images.resolve(name)
            except ImageNotFound:
                continue
            wanted.add(image.id)
            if image.diff_ids:
                wanted.add(image.diff_ids[-1])  # whatever is built on it has all its layers
        return wanted

    async def inspect(self, reference: str, *, with_size: bool = False) -> ContainerInspect:
        """Everything about one container."""
        container = self.get(reference)
        view = inspection.inspect(container, container_paths(self._services, container.id))
        if with_size:
            own, below = await self._sizes(container)
            view = replace(view, size_rw=own, size_root_fs=own + below)
        return view

    async def _sizes(self, container: Container) -> tuple[int, int]:
        own = await self._services.snapshots.usage(SnapshotKey(container.id))
        try:
            image = await self._services.images.resolve(container.record.image_id)
        except ImageNotFound:
            return own, 0
        return own, image.size_bytes

    async def top(self, reference: str, arguments: str) -> TopResult:
        """Its processes."""
        container = self.get(reference)
        result = await metrics.top(container, arguments, self._services.clock)
        emit(self._services, container, "top")
        return result

    async def stats_once(self, reference: str, *, one_shot: bool) -> dict[str, Any]:
        """One reading of its counters."""
        return await metrics.stats_once(self.get(reference), one_shot=one_shot)

    def stats_stream(self, reference: str) -> AsyncIterator[dict[str, Any]]:
        """A reading every second."""
        return metrics.stats_stream(self.get(reference))

    async def changes(self, reference: str) -> Sequence[ContainerChange]:
        """What differs from the image."""
        return await self._files.changes(self.get(reference))

    def logs(self, reference: str, options: LogOptions) -> LogStream:
        """What it wrote, and will write when followed."""
        return open_logs(self._services, self.get(reference), options)

    async def clear_logs(self, reference: str) -> None:
        """Remove what the container has logged so far."""
        await clear_logs(self._services, self.get(reference))

    # --- life ---

    async def create(self, request: CreateRequest) -> CreateResult:
        """Make a container that has not run yet."""
        return await self._services.finish(creation.create(self._services, request))

    async def start(self, reference: str) -> None:
        """Start it; returns when its program runs."""
        await self._services.finish(self._runner.start(self.get(reference)))

    async def stop(self, reference: str, *, timeout_s: int | None = None, signal: str = "") -> None:
        """Ask it to end, then insist."""
        await self._services.finish(
            self._stopper.stop(self.get(reference), timeout_s=timeout_s, signal=signal)
        )

    async def restart(self, reference: str, *, timeout_s: int | None = None, signal: str = "") -> None:
        """Stop it when it runs, then start it."""
        await self._services.finish(
            self._stopper.restart(self.get(reference), timeout_s=timeout_s, signal=signal)
        )

    async def kill(self, reference: str, signal: str = "") -> None:
        """Send a signal."""
        try:
            await self._services.finish(self._stopper.kill(self.get(reference), signal))
        except (NotFound, InvalidInput) as error:
            error.message = f"cannot kill container: {reference[:100]}: {error.message}"
            raise

    async def pause(self, reference: str) -> None:
        """Freeze it."""
        await self._services.finish(self._stopper.pause(self.get(reference)))

    async def unpause(self, reference: str) -> None:
        """Let it run again."""
        await self._services.finish(self._stopper.unpause(self.get(reference)))

    def wait(self, reference: str, condition: str = "not-running") -> asyncio.Future[State]:
        """A future of the state then; registered when this returns.

        Args:
            reference: which container.
            condition: `not-running`, `next-exit` or `removed`.
        """
        container = self.get(reference)
        waiter: asyncio.Future[State] = asyncio.get_running_loop().create_future()
        is_up = container.status in (Status.RUNNING, Status.PAUSED, Status.RESTARTING)
        if condition == "removed":
            container.removal_waiters.add(waiter)
            waiter.add_done_callback(container.removal_waiters.discard)
        elif condition == "next-exit" or is_up:
            container.exit_waiters.add(waiter)
            waiter.add_done_callback(container.exit_waiters.discard)
        else:
            waiter.set_result(container.state)
        return waiter

    async def remove(
        self, reference: str, *, force: bool = False, volumes: bool = False, link: bool = False
    ) -> None:
        """Take it away, or with `link` only the link of that name."""
        if link:
            await self._remover.remove_link(reference)
            return
        work = self._remover.remove(self.get(reference), force=force, volumes=volumes)
        await self._services.finish(work)

    async def prune(self, filters: Filters) -> PruneResult:
        """Remove what does not run."""
        return await self._remover.prune(filters)

    async def rename(self, reference: str, name: str) -> None:
        """Give it another name."""
        await self._services.finish(self._rename(self.get(reference), name))

    async def _rename(self, container: Container, name: str) -> None:
        async with container.lock:
            lifecycle.apply(container.status, Event.RENAME, container.name, container.id)
            new = check_name(name if name.startswith("/") else f"/{name}", prefix=_RENAMING)
            if new == container.name:
                raise InvalidInput("Renaming a container with the same name as its current name")
            self._services.catalog.reserve_name(new, container.id, prefix=_RENAMING)
            old = container.name
            try:
                await self._services.catalog.rename(container, replace(container.record, name=new))
            except BaseException:
                self._services.catalog.release_name(new, container.id)
                raise
        self._services.endpoints.rename(container.network)
        emit(self._services, container, "rename", oldName=f"/{old}")

    async def update(self, reference: str, request: UpdateRequest) -> UpdateResult:
        """Change limits and the restart policy, of a running container too."""
        return await self._services.finish(self._update(self.get(reference), request))

    async def amend(self, reference: str, amendment: Amendment) -> Sequence[str]:
        """Change environment, labels, mounts, ports and health check, without a restart; warnings."""
        return await self._services.finish(self._amend(self.get(reference), amendment))

    async def _amend(self, container: Container, amendment: Amendment) -> Sequence[str]:
        async with container.lock:
            lifecycle.apply(container.status, Event.UPDATE, container.name, container.id)
            return await amendments.amend(self._services, container, amendment)

    async def _update(self, container: Container, request: UpdateRequest) -> UpdateResult:
        async with container.lock:
            lifecycle.apply(container.status, Event.UPDATE, container.name, container.id)
            defaults = self._services.defaults
            wanted = updated(container.record.host, request)
            host, warnings = fit_resources(wanted, defaults.support, defaults.processors)
            if container.task is not None:
                resources = resource_spec(host, defaults)
                if resources != resource_spec(container.record.host, defaults):
                    await container.task.update(resources)
            await self._services.catalog.update(container, replace(container.record, host=host))
        emit(self._services, container, "update")
        return UpdateResult(tuple(warnings))

    # --- streams and files ---

    async def attach(self, reference: str, options: AttachOptions) -> AttachStream:
        """Connect to its streams, or to those that it will have."""
        return await self._attacher.attach(self.get(reference), options)

    def detached(self, reference: str) -> None:
        """A client left by the detach keys."""
        container = self._services.catalog.find(reference)
        if container is not None:
            self._attacher.detached(container)

    async def resize(self, reference: str, rows: int, columns: int) -> None:
        """Set the size of its terminal."""
        container = self.get(reference)
        if container.task is None:
            raise NotPossible(f"container {container.id} is not running")
        await container.task.resize(rows, columns)
        emit(self._services, container, "resize", height=str(rows), width=str(columns))

    async def stat_path(self, reference: str, path: str) -> PathStat:
        """What is at a path."""
        return await self._files.stat(self.get(reference), path, reference)

    async def archive(self, reference: str, path: str) -> tuple[PathStat, AsyncIterator[bytes]]:
        """A tar stream of a path."""
        return await self._files.archive(self.get(reference), path, reference)

    async def extract(
        self,
        reference: str,
        path: str,
        chunks: AsyncIterator[bytes],
        *,
        keeps_kinds: bool = False,
        takes_user: bool = False,
    ) -> None:
        """Unpack a tar stream into a directory."""
        container = self.get(reference)
        await self._files.extract(
            container, path, chunks, asked=reference, keeps_kinds=keeps_kinds, takes_user=takes_user
        )

    async def export(self, reference: str) -> AsyncIterator[bytes]:
        """A tar stream of the root."""
        return await self._files.export(self.get(reference))

    async def commit(self, request: CommitRequest) -> str:
        """Make an image of it; returns the image's id."""
        return await committing.commit(self._services, self.get(request.container), request)
