"""Volumes as a whole: archives in and out, copies, snapshots, another name, a look at their files.

A copy is made in a directory that a start sweeps, and gets its name and row when it is complete: there is
no half of a copy. For a rename both rows exist for a moment, told from others by their equal creation
time; whichever has no directory is dropped at the next start (`Volumes.load`).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from orlop.aio import offload
from orlop.base import failpoints, ids
from orlop.base.errors import InvalidInput
from orlop.engine import volume_mounts
from orlop.engine.jobstreams import bytes_only, feed, stream
from orlop.engine.mounts import check_volume_name
from orlop.engine.services import Services
from orlop.engine.trees import remove_tree
from orlop.engine.views import VolumeView
from orlop.engine.volume_options import size_limit
from orlop.engine.volume_rows import Volume, named_labels
from orlop.kernel.process import syncfs

__all__ = ["SNAPSHOT_LABEL", "VolumeCopies"]

SNAPSHOT_LABEL = "orlop.snapshot-of"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class VolumeCopies:
    """One per engine."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def export(self, name: str, path: str = "/") -> AsyncIterator[bytes]:
        """A tar stream of the files; of a whole volume without a directory around them."""
        path = _clean(path)
        if path == "/":
            found = self._stream(name, "files.export", {})
        else:
            found = self._stream(name, "files.archive", {"path": path, "base": os.path.basename(path)})
        await anext(found)
        return bytes_only(found)

    async def extract(self, name: str, chunks: AsyncIterator[bytes]) -> VolumeView:
        """Unpack a tar stream into a volume, made when missing; what fails leaves no new one behind."""
        volumes = self._services.volumes
        is_new = volumes.find(name) is None
        volume = await volumes.ensure(check_volume_name(name))
        try:
            async with self._visit(volume.name) as directory:
                payload = {"root": {"directory": directory}, "path": "/", "keeps_kinds": False}
                await feed(self._services, "files.extract", payload, chunks)
        except BaseException:
            if is_new and not volumes.users(volume.name):
                await volumes.remove(volume.name, force=True)
            raise
        return volumes.view(volume)

    async def files(self, name: str, path: str = "/") -> list[dict[str, Any]]:
        """What is in a directory of a volume."""
        async with self._visit(name) as directory:
            payload = {"root": {"directory": directory}, "path": _clean(path)}
            answer = await self._services.workers.run("files.list", payload)
        found: list[dict[str, Any]] = answer["entries"]
        return found

    async def clone(self, source: str, target: str, labels: dict[str, str] | None = None) -> VolumeView:
        """A new volume with the same files, labels and size; blocks are shared where that is possible.

        What is mounted in the place of the source is copied, its options are not. Files that are written
        meanwhile may be torn: pause their container for a copy that is of one moment.
        """
        volumes = self._services.volumes
        check_volume_name(target)
        volumes.check_free(target)
        original = volumes.get(source)
        size = (original.options or {}).get("size")
        wanted = replace(
            original,
            name=target,
            is_anonymous=False,
            created_ns=self._services.clock.now_ns(),
            labels={**(named_labels(original.labels) or {}), **(labels or {})} or None,
            options={"size": size} if size else None,
        )
        draft = volumes.new_draft()
        try:
            async with self._visit(source) as directory:
                await self._copy(directory, draft, wanted)
            await volumes.publish(draft, wanted)
        except BaseException:
            await asyncio.shield(remove_tree(self._services.workers, draft))
            raise
        return volumes.view(wanted)

    async def snapshot(self, source: str) -> VolumeView:
        """A clone that is named after its source and the present time (UTC)."""
        now = datetime.fromtimestamp(self._services.clock.now_ns() / 1e9, UTC)
        name = f"{source}-{now:%Y%m%dT%H%M%S}Z"
        if self._services.volumes.find(name) is not None:
            name = f"{name}-{ids.new_token()[:6]}"
        return await self.clone(source, name, {SNAPSHOT_LABEL: source})

    async def rename(self, old: str, new: str) -> VolumeView:
        """Give a volume that nobody refers to another name."""
        volume = await self._services.volumes.rename(old, check_volume_name(new))
        return self._services.volumes.view(volume)

    async def _copy(self, directory: str, draft: str, wanted: Volume) -> None:
        data = os.path.join(draft, "_data")
        await self._services.volumes.limit(data, wanted.name, size_limit(wanted.options))
        fds = [os.open(path, _DIRECTORY) for path in (directory, data)]
        try:
            await self._services.workers.run("trees.copy", {}, fds=fds)
            await offload.thread(syncfs, fds[1])  # durable before it gets its name
        finally:
            for fd in fds:
                os.close(fd)
        failpoints.hit("volume.clone.copied")

    async def _stream(
        self, name: str, job: str, payload: dict[str, Any]
    ) -> AsyncIterator[bytes | dict[str, Any]]:
        async with self._visit(name) as directory:
            payload = {**payload, "root": {"directory": directory}}
            async with aclosing(stream(self._services, job, payload)) as found:
                async for item in found:
                    yield item

    @asynccontextmanager
    async def _visit(self, name: str) -> AsyncIterator[str]:
        """The directory of a volume, mounted if it has to be; nobody removes or renames it meanwhile."""
        volumes = self._services.volumes
        volumes.visit(volumes.get(name).name)
        try:
            await volume_mounts.ensure(self._services, name)
            yield volumes.path(name)
        finally:
            volumes.leave(name)
            await volume_mounts.release_volume(self._services, name)


def _clean(path: str) -> str:
    if "\0" in path or len(path) > 4095:
        raise InvalidInput("invalid path")
    return os.path.normpath("/" + path.lstrip("/"))
