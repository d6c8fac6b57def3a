"""What the options of a volume mount in its place: there while a container that uses it runs.

Nothing is counted. Who uses a volume is read from the containers in memory, whether it is mounted from
the kernel; so a crash needs no more than `sweep`. The engine's mount namespace outlives it as long as a
container runs (docs/decisions/0002-mount-namespace.md): mounts in use are found again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterable

from orlop.aio import offload
from orlop.base import failpoints, log
from orlop.base.errors import OrlopError
from orlop.engine.model import Container
from orlop.engine.services import Services
from orlop.engine.volume_options import LocalMount, local_mount
from orlop.kernel import mount
from orlop.kernel.mountpoint import is_mounted, unmount

__all__ = ["VolumeMountFailed", "acquire", "ensure", "release", "release_volume", "sweep"]


class VolumeMountFailed(OrlopError):
    """What the options of a volume ask for cannot be mounted."""

    code = "volume-mount-failed"


async def acquire(services: Services, container: Container) -> None:
    """Before a start: mount what the volumes of the container want.

    Raises:
        VolumeMountFailed: with dockerd's text.
    """
    for name in _volumes_of(container):
        await ensure(services, name)


async def ensure(services: Services, name: str) -> None:
    """Mount what a volume wants, unless it is there; whoever calls counts as a user. Raises as `acquire`."""
    volume = services.volumes.find(name)
    wanted = local_mount(volume.options) if volume else None
    if wanted is None:
        return
    path = services.volumes.path(name)
    async with services.volumes.mount_locks.hold(name):
        if not await offload.thread(is_mounted, path):
            await offload.thread(_mount, wanted, path)
            failpoints.hit("volume.mount.made")


async def release(services: Services, container: Container, *, has_failed: bool = False) -> None:
    """After an exit or a failed start: unmount what no running container uses any more."""
    for name in _volumes_of(container):
        await release_volume(services, name, container if has_failed else None)


async def sweep(services: Services) -> None:
    """At start, with running containers adopted: unmount what nobody uses."""
    for name in services.volumes.names():
        await release_volume(services, name)


async def release_volume(services: Services, name: str, failed: Container | None = None) -> None:
    """Unmount a volume that nobody uses; `failed` is a container that does not count."""
    volume = services.volumes.find(name)
    if volume is None or local_mount(volume.options) is None:
        return
    async with services.volumes.mount_locks.hold(name):
        if services.volumes.is_visited(name):
            return
        if any(item is not failed and name in _volumes_of(item) for item in _active(services)):
            return
        try:
            await offload.thread(unmount, services.volumes.path(name))
        except OSError as error:
            log.warning("a volume could not be unmounted", volume=name, error=error)


def _active(services: Services) -> Iterable[Container]:
    return (item for item in services.catalog if item.task is not None or item.is_starting)


def _volumes_of(container: Container) -> list[str]:
    points = (item.point for item in container.record.all_mounts)
    return list(dict.fromkeys(point.name for point in points if point.type == "volume"))


def _mount(wanted: LocalMount, path: str) -> None:
    data = wanted.data
    try:
        if wanted.host:
            data = wanted.with_address(_address_of(wanted.host))
        recursion = wanted.flags & mount.MS_REC
        rest = wanted.flags & ~(mount.MS_BIND | mount.MS_REC)
        if not wanted.flags & mount.MS_BIND:
            mount.mount(wanted.device, path, wanted.kind, rest, data or None)
        else:
            mount.mount(wanted.device, path, None, mount.MS_BIND | recursion)
            if rest:  # the kernel takes no other flag with the first call
                mount.mount(None, path, None, mount.MS_BIND | mount.MS_REMOUNT | rest)
        if wanted.propagation:
            mount.mount(None, path, None, wanted.propagation)
    except OSError as error:
        with contextlib.suppress(OSError):
            unmount(path)
        flags = f", flags: 0x{wanted.flags:x}" if wanted.flags else ""
        words = f", data: {data}" if data else ""
        reason = os.strerror(error.errno or 0).lower()
        text = (
            f"error while mounting volume '{path}': failed to mount local volume: "
            f"mount {wanted.device}:{path}{flags}{words}: {reason}"
        )
        raise VolumeMountFailed(
            wanted.without_secrets(text), hint="`docker volume inspect` shows the options of the volume"
        ) from None


def _address_of(host: str) -> str:
    try:
        return str(socket.getaddrinfo(host, None, proto=socket.IPPROTO_TCP)[0][4][0])
    except OSError as error:
        raise OSError(
            errno.EHOSTUNREACH, f"error resolving passed in network volume address: {error}"
        ) from None
