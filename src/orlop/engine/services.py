"""What the container modules share: the services below the engine, given by the composition root."""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from orlop.aio.scope import Background
from orlop.base.clock import Clock
from orlop.base.ids import ContainerId
from orlop.engine.apisockets import ApiSockets
from orlop.engine.catalog import Catalog
from orlop.engine.endpoints import Endpoints
from orlop.engine.events import EventBus
from orlop.engine.finishing import finish
from orlop.engine.hostconfig import HostDefaults
from orlop.engine.launch import Paths
from orlop.engine.model import Container
from orlop.engine.userns import UserMaps
from orlop.engine.volumes import Volumes
from orlop.images.store import ImageStore
from orlop.oci.imageconfig import RunConfig
from orlop.procs.workers import Workers
from orlop.runtime.contract import Runtime
from orlop.store.leases import Leases
from orlop.store.snapshots import Snapshots

__all__ = ["Services", "container_paths", "emit", "emit_mounts", "emit_unmounts"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Services:
    """One per engine; nothing here is owned by the modules that use it."""

    catalog: Catalog
    runtime: Runtime
    snapshots: Snapshots
    images: ImageStore
    volumes: Volumes
    events: EventBus
    workers: Workers
    leases: Leases
    background: Background
    clock: Clock
    defaults: HostDefaults
    data_root: str
    exec_root: str
    boot_id: str
    apply_changes: Callable[[RunConfig, Sequence[str]], RunConfig]  # Dockerfile instructions of --change
    user_maps: UserMaps = field(default_factory=UserMaps)
    api_sockets: ApiSockets = field(default_factory=ApiSockets)
    endpoints: Endpoints = field(default_factory=Endpoints)

    async def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something to its end even when the caller goes away.

        A client that hangs up half-way through a start leaves a started container, never half of one.
        """
        return await finish(self.background, work)

    def later(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run something in the background; its failure is logged."""
        _ = self.background.spawn(work, name=name)


def container_paths(services: Services, container_id: ContainerId) -> Paths:
    """Where the files of a container are: boot-scoped ones below the exec root."""
    own = os.path.join(services.data_root, "containers", container_id)
    return Paths(
        run_dir=os.path.join(services.exec_root, "containers", container_id),
        log_dir=os.path.join(own, "log"),
        hostname=os.path.join(own, "hostname"),
        hosts=os.path.join(own, "hosts"),
        resolv_conf=os.path.join(own, "resolv.conf"),
    )


def emit(services: Services, container: Container, action: str, **attributes: str) -> None:
    """Publish an event of a container with the attributes that dockerd gives: labels, image, name."""
    record = container.record
    values = {**(record.config.labels or {}), **attributes, "image": record.image_name, "name": record.name}
    services.events.publish("container", action, record.id, values)


def emit_mounts(services: Services, container: Container) -> None:
    """Publish that a container uses its volumes now, with the attributes that dockerd gives."""
    for mount in container.record.mounts:
        point = mount.point
        if point.type == "volume":
            values = {
                "container": container.id,
                "destination": point.destination,
                "driver": point.driver,
                "propagation": point.propagation,
                "read/write": str(point.rw).lower(),
            }
            services.events.publish("volume", "mount", point.name, values)


def emit_unmounts(services: Services, container: Container) -> None:
    """Publish that a container has let go of its volumes."""
    for mount in container.record.mounts:
        if mount.point.type == "volume":
            values = {"container": container.id, "driver": mount.point.driver}
            services.events.publish("volume", "unmount", mount.point.name, values)
