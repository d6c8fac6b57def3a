"""`docker cp`, `export` and `diff`: the engine's side; workers do what touches a path in a container."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

from orlop.base.clock import format_rfc3339_nano
from orlop.base.errors import InvalidInput, Kind, NotFound, OrlopError
from orlop.base.ids import SnapshotKey
from orlop.engine import volume_mounts
from orlop.engine.jobstreams import bytes_only, feed, stream
from orlop.engine.launch import MOUNT_STUBS
from orlop.engine.model import Container, Record
from orlop.engine.rootview import view_mounts
from orlop.engine.services import Services, emit
from orlop.engine.staging import staged
from orlop.engine.starting import prepare_root, workspace_of
from orlop.engine.views import ContainerChange, PathStat

__all__ = ["Files", "go_file_mode"]

# Go's os.FileMode bits
_GO_BITS = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
    stat.S_IFCHR: (1 << 26) | (1 << 21),
}


class ReadOnlyRoot(OrlopError):
    """The container's root may not be written."""

    kind = Kind.FORBIDDEN
    code = "read-only-root"


def go_file_mode(mode: int) -> int:
    """A mode of stat(2) as Go's os.FileMode."""
    out = (mode & 0o777) | _GO_BITS.get(stat.S_IFMT(mode), 0)
    for bit, go_bit in ((stat.S_ISUID, 1 << 23), (stat.S_ISGID, 1 << 22), (stat.S_ISVTX, 1 << 20)):
        if mode & bit:
            out |= go_bit
    return out


class Files:
    """Looks into containers and copies in and out."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def stat(self, container: Container, path: str, asked: str) -> PathStat:
        """What is at a path; `asked` is how the client named the container.

        Raises:
            NotFound: with dockerd's text.
        """
        async with self._view(container) as view:
            with _translated(asked, path):
                facts = await self._services.workers.run(
                    "files.stat", {"root": view, "path": _absolute(path)}
                )
        return _path_stat(facts)

    async def archive(
        self, container: Container, path: str, asked: str
    ) -> tuple[PathStat, AsyncIterator[bytes]]:
        """The stat of a path, and a tar stream of it, which the caller closes (`aclose`)."""
        absolute = _absolute(path)
        base = absolute.rstrip("/").rpartition("/")[2] or "/"
        stream = self._stream(container, "files.archive", {"path": absolute, "base": base}, path, asked=asked)
        facts = await anext(stream)
        assert isinstance(facts, dict), "the stat comes first"
        emit(self._services, container, "archive-path")
        return _path_stat(facts), bytes_only(stream)

    async def export(self, container: Container) -> AsyncIterator[bytes]:
        """A tar stream of the root without what is mounted in it."""
        stream = self._stream(container, "files.export", {}, "/", own_root=True)
        await anext(stream)
        emit(self._services, container, "export")
        return bytes_only(stream)

    async def extract(
        self,
        container: Container,
        path: str,
        chunks: AsyncIterator[bytes],
        *,
        asked: str,
        keeps_kinds: bool,
        takes_user: bool,
    ) -> None:
        """Unpack a tar stream into a directory of the container."""
        if container.record.host.readonly_rootfs and not self._is_in_volume(container, path):
            raise ReadOnlyRoot("container rootfs is marked read-only")
        payload: dict[str, Any] = {"path": _absolute(path), "keeps_kinds": keeps_kinds}
        if takes_user and container.record.config.user:  # without one, owners are as in the archive
            payload["user"] = container.record.config.user
        async with self._view(container) as view:
            payload["root"] = view
            with _translated(asked, path):
                await feed(self._services, "files.extract", payload, chunks)
        emit(self._services, container, "extract-to-dir")

    async def changes(self, container: Container) -> list[ContainerChange]:
        """What differs from the image."""
        found = await self._services.snapshots.changes(SnapshotKey(container.id), stubs=MOUNT_STUBS)
        return [ContainerChange(change.path, change.kind.value) for change in found]

    async def _stream(
        self,
        container: Container,
        job: str,
        payload: dict[str, Any],
        path: str,
        *,
        asked: str = "",
        own_root: bool = False,
    ) -> AsyncGenerator[bytes | dict[str, Any], None]:
        """Run a job that writes to a socket: its first report, then its bytes."""
        async with self._view(container, own_root=own_root) as view:
            payload["root"] = view
            async with aclosing(
                stream(self._services, job, payload, lambda: _translated(asked, path))
            ) as found:
                async for item in found:
                    yield item

    @asynccontextmanager
    async def _view(self, container: Container, *, own_root: bool = False) -> AsyncIterator[dict[str, Any]]:
        """How a worker gets at the root. A stopped container cannot start meanwhile."""
        task = container.task
        if task is not None and not own_root:
            yield {"pid": task.pid, "is_mapped": container.record.id_map is not None}
            return
        if task is not None:
            workspace = await workspace_of(self._services, container)
            yield {"lowers": [workspace.upper, *workspace.lowers], "mounts": []}
            return
        async with container.lock:
            try:
                await volume_mounts.acquire(self._services, container)
                root = await prepare_root(self._services, container)
                async with staged(self._services, container.record) as record:
                    yield {
                        "lowers": list(root.lowers),
                        "upper": root.upper,
                        "work": root.work,
                        "mounts": [] if own_root else view_mounts(_present_mounts(record)),
                    }
            finally:
                await volume_mounts.release(self._services, container, has_failed=True)

    def _is_in_volume(self, container: Container, path: str) -> bool:
        absolute = _absolute(path).rstrip("/") + "/"
        return any(
            absolute.startswith(mount.point.destination.rstrip("/") + "/") and mount.point.rw
            for mount in container.record.mounts
        )


def _present_mounts(record: Record) -> list[tuple[str, str, bool]]:
    return [
        (mount.point.source, mount.point.destination, not mount.point.rw)
        for mount in record.mounts
        if mount.point.type in ("bind", "volume", "image") and os.path.lexists(mount.point.source)
    ]


class _translated:  # noqa: N801 - reads as a statement
    """Puts the container into errors about its paths, as dockerd's texts do."""

    def __init__(self, asked: str, path: str) -> None:
        self._asked = asked
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OrlopError) and error.code == "no-such-path":
            raise NotFound(
                f"Could not find the file {self._path[:300]} in container {self._asked[:100]}"
            ) from error


def _absolute(path: str) -> str:
    if not path:
        raise InvalidInput("path cannot be empty")
    if "\0" in path or len(path) > 4096:
        raise InvalidInput("invalid path")
    return path if path.startswith("/") else f"/{path}"


def _path_stat(facts: dict[str, Any]) -> PathStat:
    return PathStat(
        name=facts["name"],
        size=facts["size"],
        mode=go_file_mode(facts["mode"]),
        mtime=format_rfc3339_nano(facts["mtime_ns"]),
        link_target=facts["link_target"],
    )
