"""Images as read-only directories of the host, for people and scanners.

The engine has a mount namespace of its own; a worker carries the merged tree over into the one that the
engine was started in and attaches it there. A mounted image counts as held: its layers stay until it is
unmounted.
What is mounted is remembered in a file of the run dir, so that an engine started anew can unmount it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from orlop.aio import offload
from orlop.base.errors import InvalidInput, Kind, NotFound, OrlopError
from orlop.base.ids import LeaseId
from orlop.images.model import short_id
from orlop.images.store import ImageStore
from orlop.kernel.filesystems import overlay_fd
from orlop.oci.digest import Digest
from orlop.procs.workers import Workers
from orlop.store.leases import Leases

__all__ = ["ImageMount", "ImageMounts"]

_TTL_S = 10 * 365 * 86_400.0  # until it is unmounted
_READ_ONLY = 0x1 | 0x2 | 0x4  # MOUNT_ATTR_RDONLY, NOSUID, NODEV


class NotMounted(NotFound):
    """No image is mounted there."""

    code = "image-not-mounted"


class AlreadyMounted(OrlopError):
    """Something of ours is mounted there already."""

    kind = Kind.CONFLICT
    code = "image-already-mounted"


@dataclass(frozen=True, slots=True)
class ImageMount:
    """One mounted image."""

    target: str
    image: str
    name: str
    lease: str = ""


class LayerTrees(Protocol):
    """The layer store, as far as it is asked here."""

    async def mount(self, diff_id: Digest) -> str:
        """The directory that shows the layer's tree, in the engine's namespace."""


class ImageMounts:
    """Mounts and unmounts; one per engine."""

    def __init__(
        self,
        store: ImageStore,
        layers: LayerTrees,
        leases: Leases,
        workers: Workers,
        exec_root: str,
        outside: int,
    ) -> None:
        """`outside` is the mount namespace in which people look for their files; it stays the caller's."""
        self._outside = outside
        self._store = store
        self._layers = layers
        self._leases = leases
        self._workers = workers
        self._root = os.path.join(exec_root, "images")
        self._list_path = os.path.join(exec_root, "image-mounts.json")
        self._mounts = {item.target: item for item in _read(self._list_path)}

    async def list(self) -> Sequence[ImageMount]:
        """What is mounted, by target."""
        return [self._mounts[target] for target in sorted(self._mounts)]

    async def mount(self, name: str, target: str = "") -> ImageMount:
        """Show an image at `target`, an existing directory of the host; one below the run dir by default.

        Raises:
            ImageNotFound, AlreadyMounted, InvalidInput: as named.
            OSError: the directory does not exist, or the kernel refuses.
        """
        image = await self._store.resolve(name)
        target = target or self._default_target(image.id)
        if not _is_plain(target):
            raise InvalidInput(f"the directory {target[:200]!r} must be an absolute path without . and ..")
        if target in self._mounts:
            raise AlreadyMounted(f"an image is mounted at {target} already", hint="unmount it first")
        lease = await self._leases.create(f"mount of {name} at {target}", _TTL_S)
        try:
            await self._store.hold(image.id, lease)
            await self._attach([await self._layers.mount(layer) for layer in image.diff_ids], target)
        except BaseException:
            await self._leases.release(lease)
            raise
        made = ImageMount(target, image.id, name, lease)
        self._mounts[target] = made
        self._save()
        return made

    async def unmount(self, target: str) -> None:
        """Take the directory away from the host; who still uses the tree keeps it. Raises NotMounted."""
        found = self._mounts.get(target)
        if found is None:
            image = await self._store.find(target)
            matches = [item for item in self._mounts.values() if image is not None and item.image == image.id]
            if len(matches) != 1:
                raise NotMounted(
                    f"no image is mounted at {target[:200]}", hint="`orlop image mount` lists what is"
                )
            found = matches[0]
        await self._in_host("images.detach", found.target, [])
        del self._mounts[found.target]
        self._save()
        await self._leases.release(LeaseId(found.lease))
        if os.path.dirname(found.target) == self._root:
            os.rmdir(found.target)

    async def _attach(self, trees: Sequence[str], target: str) -> None:
        if not trees:
            raise InvalidInput("the image has no layers: there is nothing to mount")
        fd = await offload.thread(_merge, trees)
        try:
            await self._in_host("images.attach", target, [fd])
        finally:
            os.close(fd)

    async def _in_host(self, job: str, target: str, fds: Sequence[int]) -> None:
        await self._workers.run(job, {"target": target}, fds=[self._outside, *fds])

    def _default_target(self, image_id: Digest) -> str:
        os.makedirs(self._root, mode=0o700, exist_ok=True)
        target = os.path.join(self._root, short_id(image_id))
        os.makedirs(target, mode=0o755, exist_ok=True)
        return target

    def _save(self) -> None:
        rows = [[item.target, item.image, item.name, item.lease] for item in self._mounts.values()]
        fresh = f"{self._list_path}.new"
        with open(fresh, "w", encoding="utf-8") as file:
            json.dump(rows, file)
        os.rename(fresh, self._list_path)


def _is_plain(path: str) -> bool:
    return path.startswith("/") and os.path.normpath(path) == path and "\0" not in path


def _merge(trees: Sequence[str]) -> int:
    """A detached read-only tree of layers, topmost first."""
    lowers: list[str | bytes] = list(dict.fromkeys(reversed(trees)))
    return overlay_fd(lowers, attributes=_READ_ONLY)


def _read(path: str) -> list[ImageMount]:
    try:
        with open(path, encoding="utf-8") as file:
            return [ImageMount(*row) for row in json.load(file)]
    except (FileNotFoundError, ValueError, TypeError):
        return []
