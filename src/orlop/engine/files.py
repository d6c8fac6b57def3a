"""`docker cp`, `export` and `diff`: the engine's side; workers do what touches a path in a container."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from orlop.base.clock import format_rfc3339_nano
from orlop.base.errors import InvalidInput, Kind, NotFound, OrlopError
from orlop.base.ids import SnapshotKey
from orlop.engine import volume_mounts
from orlop.engine.launch import MOUNT_STUBS
from orlop.engine.model import Container, Record
from orlop.engine.rootview import view_mounts
from orlop.engine.services import Services, emit
from orlop.engine.staging import staged
from orlop.engine.starting import prepare_root, workspace_of
from orlop.engine.views import ContainerChange, PathStat

__all__ = ["Files", "go_file_mode"]

_READ = 256 << 10
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
        return _path_stat(facts), _bytes_only(stream)

    async def export(self, container: Container) -> AsyncIterator[bytes]:
        """A tar stream of the root without what is mounted in it."""
        stream = self._stream(container, "files.export", {}, "/", own_root=True)
        await anext(stream)
        emit(self._services, container, "export")
        return _bytes_only(stream)

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
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        payload: dict[str, Any] = {"path": _absolute(path), "keeps_kinds": keeps_kinds}
        if takes_user and container.record.config.user:  # without one, owners are as in the archive
            payload["user"] = container.record.config.user
        try:
            async with self._view(container) as view:
                payload["root"] = view
                with _translated(asked, path):
                    await self._feed(ours, theirs, payload, chunks)
        finally:
            ours.close()
            theirs.close()
        emit(self._services, container, "extract-to-dir")

    async def changes(self, container: Container) -> list[ContainerChange]:
        """What differs from the image."""
        found = await self._services.snapshots.changes(SnapshotKey(container.id), stubs=MOUNT_STUBS)
        return [ContainerChange(change.path, change.kind.value) for change in found]

    async def _feed(
        self,
        ours: socket.socket,
        theirs: socket.socket,
        payload: dict[str, Any],
        chunks: AsyncIterator[bytes],
    ) -> None:
        job = self._services.background.spawn(
            _as_result(self._services.workers.run("files.extract", payload, fds=[theirs.fileno()])),
            name="extract",
        )
        try:
            await _send_all(ours, chunks, job)
            error = await job
            if error is not None:
                raise error
        finally:
            job.cancel()

    async def _stream(
        self,
        container: Container,
        job: str,
        payload: dict[str, Any],
        path: str,
        *,
        asked: str = "",
        own_root: bool = False,
    ) -> AsyncIterator[bytes | dict[str, Any]]:
        """Run a job that writes to a socket: its first report, then its bytes."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        loop = asyncio.get_running_loop()
        first: asyncio.Future[dict[str, Any]] = loop.create_future()

        def reported(value: dict[str, Any]) -> None:
            theirs.close()  # the worker has its own copy: its end is now the end of the stream
            if not first.done():
                first.set_result(value)

        try:
            async with self._view(container, own_root=own_root) as view:
                payload["root"] = view
                task = self._services.background.spawn(
                    _as_result(
                        self._services.workers.run(job, payload, fds=[theirs.fileno()], progress=reported)
                    ),
                    name=job,
                )
                try:
                    waiting: tuple[asyncio.Future[Any], ...] = (task, first)
                    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                    if not first.done():
                        with _translated(asked, path):
                            raise await task or InvalidInput("the worker gave no answer")
                    yield first.result()
                    while chunk := await loop.sock_recv(ours, _READ):
                        yield chunk
                    error = await task
                    if error is not None:
                        raise error
                finally:
                    task.cancel()
        finally:
            first.cancel()
            ours.close()
            theirs.close()

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


async def _as_result(work: Any) -> OrlopError | None:
    """The error of a job as its value, so that whoever awaits it decides."""
    try:
        await work
    except OrlopError as error:
        return error
    return None


async def _send_all(
    sock: socket.socket, chunks: AsyncIterator[bytes], job: asyncio.Task[OrlopError | None]
) -> None:
    """Send until the end or until the job has ended early."""
    loop = asyncio.get_running_loop()
    async for chunk in chunks:
        sending = asyncio.ensure_future(loop.sock_sendall(sock, chunk))  # noqa: TID251 - awaited right below
        waiting: tuple[asyncio.Future[Any], ...] = (sending, job)
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if job.done():
            sending.cancel()
            return
        await sending
    sock.shutdown(socket.SHUT_WR)


async def _bytes_only(stream: AsyncIterator[bytes | dict[str, Any]]) -> AsyncIterator[bytes]:
    try:
        async for item in stream:
            if isinstance(item, bytes):
                yield item
    finally:
        close = getattr(stream, "aclose", None)
        if close is not None:
            await close()


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
