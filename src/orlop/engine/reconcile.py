"""Start is recovery: bring what the rows say and what the machine shows together.

For every container: a supervisor that lives is adopted; an exit record that was written while no engine
ran is taken over; a container that should run and shows neither has ended with the machine
(`reboot`) or was lost. Then restart policies apply, half-done creations and removals are swept.
Everything here may be repeated; nothing waits for a container.
"""

from __future__ import annotations

import os

from orlop.aio.scope import Scope
from orlop.base import failpoints, log
from orlop.base.errors import OrlopError
from orlop.base.ids import ContainerId, is_hex_id
from orlop.engine import restart, staging, volume_mounts
from orlop.engine.lifecycle import Status, is_active
from orlop.engine.model import Container
from orlop.engine.removal import Remover, discard_files
from orlop.engine.running import Runner
from orlop.engine.services import Services, container_paths
from orlop.runtime.contract import Task, TaskStuck
from orlop.runtime.spec import ExitRecord

__all__ = ["Reconciler"]

_LOST_CODE = 137


class Reconciler:
    """Runs once, before the sockets are opened."""

    def __init__(self, services: Services, runner: Runner, remover: Remover) -> None:
        self._services = services
        self._runner = runner
        self._remover = remover
        self._was_active: set[ContainerId] = set()

    async def run(self) -> None:
        """Adopt, take over, mark as lost; then sweep."""
        async with Scope("reconcile") as scope:
            for container in self._services.catalog:
                _ = scope.spawn(self._recover(container), name=container.id[:12])
        failpoints.hit("reconcile.recovered")
        staging.sweep(self._services.exec_root)
        await volume_mounts.sweep(self._services)
        await self._sweep()

    def apply_policies(self) -> None:
        """Start what wants to run and remove what wants to be gone; in the background."""
        for container in self._services.catalog:
            state, host = container.state, container.record.host
            if container.task is not None or state.status in (Status.REMOVING, Status.DEAD):
                continue
            count = state.restart_count if state.boot_id == self._services.boot_id else 0
            was_left = state.restarts_after_exit and not state.was_stopped
            wants = was_left or restart.shall_start_with_engine(
                host.restart_policy,
                state.exit_code,
                count,
                has_run=state.started_ns > 0,
                was_stopped=state.was_stopped,
                was_active=container.id in self._was_active,
            )
            if wants:
                again = was_left or container.id in self._was_active
                self._runner.restart_soon(container, count + again)
            elif host.auto_remove and state.started_ns > 0:
                self._services.later(self._auto_remove(container), "auto-remove")

    async def _auto_remove(self, container: Container) -> None:
        try:
            await self._remover.auto_remove(container)
        except OrlopError as error:
            log.error("container could not be removed", container=container.id, error=error)

    async def _recover(self, container: Container) -> None:
        state = container.state
        if is_active(state.status):
            self._was_active.add(container.id)
        if state.status in (Status.REMOVING, Status.DEAD):
            container.change(status=Status.DEAD)
            return
        found = await self._find(container)
        if isinstance(found, ExitRecord):
            if is_active(state.status) or found.finished_at_ns > state.finished_ns:
                self._was_active.add(container.id)
                self._take_over(container, found)
        elif found is not None:
            self._was_active.add(container.id)
            await self._adopt(container, found)
        elif is_active(state.status):
            self._lost(container)

    async def _find(self, container: Container) -> Task | ExitRecord | None:
        run_dir = container_paths(self._services, container.id).run_dir
        if not _is_directory(run_dir):
            return None
        try:
            return await self._services.runtime.adopt(run_dir)
        except OrlopError as error:
            log.error("container could not be adopted", container=container.id, error=error)
            return None

    async def _adopt(self, container: Container, task: Task) -> None:
        try:
            is_paused = await task.is_paused()
        except TaskStuck:
            is_paused = container.status is Status.PAUSED
        self._runner.adopt(container, task, is_paused=is_paused)
        log.info("adopted a running container", container=container.id, pid=task.pid)

    def _take_over(self, container: Container, record: ExitRecord) -> None:
        """It ended while no engine ran."""
        container.change(
            status=Status.EXITED,
            exit_code=record.exit_code,
            error=record.error,
            pid=0,
            started_ns=record.started_at_ns or container.state.started_ns,
            finished_ns=record.finished_at_ns,
            is_oom_killed=record.is_oom_killed,
        )
        self._services.catalog.save_soon(container)

    def _lost(self, container: Container) -> None:
        rebooted = container.state.boot_id != self._services.boot_id
        now_ns = self._services.clock.now_ns()
        container.change(
            status=Status.EXITED,
            exit_code=_LOST_CODE if not rebooted else 255,
            error="" if rebooted else "the container's supervisor was lost",
            pid=0,
            finished_ns=now_ns,
        )
        self._services.catalog.save_soon(container)
        log.warning("a running container is gone", container=container.id, rebooted=rebooted)

    async def _sweep(self) -> None:
        """What belongs to no row: snapshots of half-made containers, files of half-removed ones."""
        services = self._services
        orphans: set[str] = set()
        for root in (
            os.path.join(services.data_root, "containers"),
            os.path.join(services.exec_root, "containers"),
        ):
            os.makedirs(root, mode=0o710, exist_ok=True)
            orphans |= {name for name in os.listdir(root) if is_hex_id(name) and name not in services.catalog}
        orphans |= {key for key in await self._snapshot_keys() if key not in services.catalog}
        for name in sorted(orphans):
            await self._sweep_one(ContainerId(name))

    async def _snapshot_keys(self) -> list[str]:
        """Keys of containers' snapshots; those of builds are not 64 hex digits."""
        return [key for key in await self._services.snapshots.all_keys() if is_hex_id(key)]

    async def _sweep_one(self, container_id: ContainerId) -> None:
        run_dir = container_paths(self._services, container_id).run_dir
        try:
            if _is_directory(run_dir):
                found = await self._services.runtime.adopt(run_dir)
                if found is not None and not isinstance(found, ExitRecord):
                    log.warning("killing a container that has no row", container=container_id)
                    await found.put_down()
                    await found.wait()
            await discard_files(self._services, container_id)
            log.info("swept what was left of a container", container=container_id)
        except (OrlopError, OSError) as error:
            log.error("could not sweep what is left of a container", container=container_id, error=error)


def _is_directory(path: str) -> bool:
    """A look-up on our own tmpfs: it does not block."""
    return os.path.isdir(path)
