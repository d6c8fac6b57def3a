"""Remove containers: the row goes first, then what belonged to it.

Once the row is gone the container is unreachable and its name is free; the bytes follow in the
background, and what a crash leaves of them has no row and is swept by the next reconciliation.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import replace

from orlop.aio.scope import Scope
from orlop.base import failpoints, log
from orlop.base.errors import InvalidInput, NotFound, OrlopError
from orlop.base.ids import ContainerId, SnapshotKey
from orlop.engine.filters import Filters, parse_timestamp_ns
from orlop.engine.lifecycle import Event, Status
from orlop.engine.model import Container, MountRecord
from orlop.engine.running import Runner
from orlop.engine.services import Services, container_paths, emit
from orlop.engine.stopping import Stopper
from orlop.engine.trees import remove_tree
from orlop.engine.views import PruneResult
from orlop.engine.volumes import NoSuchVolume, VolumeInUse

__all__ = ["Remover", "discard_files"]

_PRUNED_AT_ONCE = 8


class Remover:
    """Takes containers apart."""

    def __init__(self, services: Services, runner: Runner, stopper: Stopper) -> None:
        self._services = services
        self._runner = runner
        self._stopper = stopper

    async def remove(self, container: Container, *, force: bool = False, volumes: bool = False) -> None:
        """Take a container away; a running one only by force.

        Returns when it is unreachable; its bytes are deleted in the background.

        Raises:
            NotPossible: it runs, or is being removed; with dockerd's texts.
        """
        self._runner.fire(container, Event.FORCE_REMOVE if force else Event.REMOVE)
        try:
            if container.task is not None:
                await self._stopper.kill_hard(container, container.task)
            async with container.lock:  # a start or a copy in progress ends first
                failpoints.hit("container.remove.before-row")
                await self._services.catalog.remove(container)
        except BaseException:
            if container.status is Status.REMOVING and container.id in self._services.catalog:
                self._runner.fire(container, Event.REMOVE_FAILED)
            raise
        failpoints.hit("container.remove.row-gone")
        self._runner.removed(container)
        for attachment in container.attachments:
            attachment.socket.close()
        container.attachments = []
        container.wake_exit_waiters()
        container.wake_removal_waiters()
        emit(self._services, container, "destroy")
        self._services.later(self._discard(container, takes_volumes=volumes), f"discard {container.id[:12]}")

    async def auto_remove(self, container: Container) -> None:
        """`--rm`: with its anonymous volumes, as dockerd does."""
        await self.remove(container, volumes=True)

    async def prune(self, filters: Filters) -> PruneResult:
        """Remove what does not run."""
        filters.check_keys(("label", "label!", "until"))
        now_ns = self._services.clock.now_ns()
        if len(filters.get("until")) > 1:
            raise InvalidInput("more than one until filter specified")
        limits = [parse_timestamp_ns(text, now_ns) for text in filters.get("until")]
        chosen = [
            container
            for container in self._services.catalog
            if container.status in (Status.CREATED, Status.EXITED, Status.DEAD)
            and all(container.record.created_ns <= limit for limit in limits)
            and filters.matches_labels("label", container.record.config.labels)
            and filters.excludes_labels("label!", container.record.config.labels)
        ]
        slots = asyncio.Semaphore(_PRUNED_AT_ONCE)
        async with Scope("prune") as scope:
            tasks = [scope.spawn(self._prune_one(container, slots)) for container in chosen]
        sizes = [task.result() for task in tasks]
        removed = [item.id for item, size in zip(chosen, sizes, strict=True) if size is not None]
        freed = sum(size or 0 for size in sizes)
        self._services.events.publish("container", "prune", "", {"reclaimed": str(freed)})
        return PruneResult(tuple(removed) or None, freed)

    async def _prune_one(self, container: Container, slots: asyncio.Semaphore) -> int | None:
        """The bytes it took, or None when it could not be removed."""
        async with slots:
            try:
                size = await self._services.snapshots.usage(SnapshotKey(container.id))
                await self.remove(container)
            except OrlopError as error:
                log.warning("container could not be pruned", container=container.id, error=error)
                return None
        return size

    async def remove_link(self, reference: str) -> None:
        """`rm --link parent/alias`: forget the link, keep both containers."""
        parent, _, alias = reference.strip("/").rpartition("/")
        if not parent:
            self._services.catalog.get(reference)
            raise InvalidInput("Conflict, cannot remove the default link name of the container")
        container = self._services.catalog.get(parent)
        links = container.record.host.links or ()
        kept = tuple(link for link in links if link.rpartition("/")[2].rpartition(":")[2] != alias)
        if len(kept) == len(links):
            raise NotFound(f"No such container: {reference[:300]}")
        async with container.lock:
            host = replace(container.record.host, links=kept)
            await self._services.catalog.update(container, replace(container.record, host=host))

    async def _discard(self, container: Container, *, takes_volumes: bool) -> None:
        await self._services.api_sockets.ended(container)
        await discard_files(self._services, container.id)
        if takes_volumes:
            await self._drop_volumes(container.record.all_mounts)

    async def _drop_volumes(self, mounts: tuple[MountRecord, ...]) -> None:
        for mount in mounts:
            if not mount.is_anonymous:
                continue
            try:
                await self._services.volumes.remove(mount.point.name)
            except (VolumeInUse, NoSuchVolume):
                continue


async def discard_files(services: Services, container_id: ContainerId) -> None:
    """Delete what belonged to a container that has no row (any more); may be repeated."""
    paths = container_paths(services, container_id)
    with contextlib.suppress(NotFound):
        await services.snapshots.discard(SnapshotKey(container_id))
    sockets = services.api_sockets.leftovers(container_id)
    for path in (paths.run_dir, os.path.dirname(paths.log_dir), *sockets):
        await remove_tree(services.workers, path)
