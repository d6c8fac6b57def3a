"""Layers: one file each, keyed by diff id, mountable where it lies and never unpacked.

A layer file is the plain tar, byte for byte, framed by a head in front and EROFS metadata behind
(layout, write order, crash table: docs/internals/layers.md). Bytes arrive through a *writer* (a
stream, hashed while it is written) or a *stage* (a file that a worker fills). `commit` indexes the tar in a
worker, makes file and name durable, then writes the row.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from orlop.aio import offload
from orlop.aio.single_flight import SingleFlight
from orlop.base import failpoints, ids
from orlop.base.clock import Clock, SystemClock
from orlop.base.errors import Kind, NotFound, OrlopError
from orlop.base.ids import LeaseId
from orlop.oci.digest import Digest, encoded
from orlop.procs.workers import Workers
from orlop.store.db import Database, StoreFull, Tx
from orlop.store.files import ensure_directory, full_or, publish_file, unlink_sized
from orlop.store.inflight import InFlight
from orlop.store.layerfile import TAR_OFFSET, read_head
from orlop.store.layerwriter import LayerInfo, LayerTooLarge, LayerWriter, StagedLayer, check_diff_id
from orlop.store.leases import tx_hold
from orlop.store.mounts import LayerMounts

__all__ = [
    "KIND_LAYER",
    "LayerInfo",
    "LayerNotFound",
    "LayerStore",
    "LayerTooLarge",
    "LayerWriter",
    "StagedLayer",
]

KIND_LAYER = "layer"
MAX_LAYER_BYTES = 100 << 30
_COLUMNS = "diff_id, size_bytes, file_bytes, content_bytes, entry_count, is_opaque, has_root, created_ns"


class LayerNotFound(NotFound):
    """No layer has this diff id."""

    code = "layer-not-found"
    remedy = "pull or build the image again; orlop fsck tells what else is missing"


class LayerStore:
    """The layers of one data root."""

    kind = KIND_LAYER

    def __init__(
        self,
        data_root: str,
        db: Database,
        workers: Workers,
        mounts: LayerMounts,
        clock: Clock | None = None,
        *,
        limit_bytes: int = MAX_LAYER_BYTES,
    ) -> None:
        """Make the directories and remove what an engine before this one left half-written."""
        self._layers = os.path.join(data_root, "layers")
        self._staging = os.path.join(data_root, "staging")
        self._db = db
        self._workers = workers
        self._mounts = mounts
        self._clock = clock or SystemClock()
        self._limit = limit_bytes
        self._in_flight = InFlight()
        self._flights: SingleFlight[Digest, LayerInfo] = SingleFlight("layers")
        ensure_directory(self._layers)
        ensure_directory(self._staging)
        for name in os.listdir(self._staging):
            unlink_sized(os.path.join(self._staging, name))

    @property
    def way(self) -> str:
        """How layers are made visible: `file`, `loop` or `unpacked`."""
        return self._mounts.name

    @asynccontextmanager
    async def writer(self, lease: LeaseId, algorithm: str = "sha256") -> AsyncIterator[LayerWriter]:
        """Begin a layer from a stream; `algorithm` is that of the diff id."""
        path = os.path.join(self._staging, ids.new_token())
        writer = LayerWriter(self.publish, path, lease, algorithm=algorithm, limit_bytes=self._limit)
        try:
            yield writer
        finally:
            writer.close()

    @asynccontextmanager
    async def stage(self, lease: LeaseId) -> AsyncIterator[StagedLayer]:
        """Begin a layer that a worker writes into a file."""
        staged = StagedLayer(self.publish, os.path.join(self._staging, ids.new_token()), lease)
        try:
            yield staged
        finally:
            staged.close()

    def path(self, diff_id: Digest) -> str:
        """Where the layer file is or would be."""
        return os.path.join(self._layers, encoded(diff_id))

    def open(self, diff_id: Digest) -> tuple[int, int, int]:
        """The tar: (fd the caller closes, offset in the file, size).

        Raises:
            LayerNotFound, LayerCorrupt: as named.
        """
        try:
            fd = os.open(self.path(diff_id), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError as error:
            raise LayerNotFound(f"layer {diff_id} is not stored", diff_id=diff_id) from error
        try:
            return fd, TAR_OFFSET, read_head(fd, encoded(diff_id)).tar_size
        except BaseException:
            os.close(fd)
            raise

    async def find(self, diff_id: Digest) -> LayerInfo | None:
        """The layer, if it is stored."""
        return await self._db.read(lambda tx: _select(tx, diff_id))

    async def has(self, diff_id: Digest) -> bool:
        """True when the layer is stored."""
        return await self.find(diff_id) is not None

    async def info(self, diff_id: Digest) -> LayerInfo:
        """The layer. Raises LayerNotFound."""
        info = await self.find(diff_id)
        if info is None:
            raise LayerNotFound(f"layer {diff_id} is not stored", diff_id=diff_id)
        return info

    async def infos(self, diff_ids: Sequence[Digest]) -> Sequence[LayerInfo]:
        """Several layers in the order asked for. Raises LayerNotFound."""
        found = await self._db.read(lambda tx: [_select(tx, diff_id) for diff_id in diff_ids])
        infos = [info for info in found if info is not None]
        if len(infos) < len(diff_ids):
            missing = next(diff_id for diff_id, info in zip(diff_ids, found, strict=True) if info is None)
            raise LayerNotFound(f"layer {missing} is not stored", diff_id=missing)
        return infos

    async def list(self) -> list[LayerInfo]:
        """All layers."""
        return await self._db.read(
            lambda tx: [_info(row) for row in tx.execute(f"SELECT {_COLUMNS} FROM layer")]  # noqa: S608 - constant
        )

    async def sizes(self) -> dict[Digest, int]:
        """Bytes of every layer file, holes included."""
        return {info.diff_id: info.file_bytes for info in await self.list()}

    async def hold(self, diff_id: Digest, lease: LeaseId) -> LayerInfo | None:
        """Find a layer and hold it in one transaction, so that it cannot be collected in between."""

        def work(tx: Tx) -> LayerInfo | None:
            info = _select(tx, diff_id)
            if info is not None:
                tx_hold(tx, lease, KIND_LAYER, diff_id)
            return info

        return await self._db.write(work)

    async def mount(self, diff_id: Digest) -> str:
        """The directory that shows the layer's tree; mounted once, kept until the layer goes.

        Raises:
            LayerNotFound, MountFailed: as named.
        """
        try:
            return await self._mounts.mount(diff_id, self.path(diff_id))
        except FileNotFoundError as error:
            raise LayerNotFound(f"layer {diff_id} is not stored", diff_id=diff_id) from error

    async def release(self, diff_id: Digest) -> None:
        """Forget the mount of a layer; whoever uses it keeps it, and the next user gets the file anew."""
        await self._mounts.release(diff_id)

    async def verify(self, diff_id: Digest) -> None:
        """Hash the tar and the index, in a worker. Raises LayerNotFound, LayerCorrupt."""
        fd, _, _ = self.open(diff_id)
        try:
            await self._workers.run("layers.verify", {"diff_id": diff_id}, fds=[fd])
        finally:
            os.close(fd)

    async def inspect(self, job: str, payload: dict[str, Any]) -> dict[str, Any]:
        """Run a job of `store.comparejobs` over stored layers; they must be held."""
        fd = os.open(self._layers, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return await self._workers.run(job, payload, fds=[fd])
        finally:
            os.close(fd)

    async def delete(self, diff_id: Digest) -> None:
        """Drop a layer whether or not it is held; fine when it is gone."""
        await self._db.write(lambda tx: self.forget(tx, [diff_id]), frees_space=True)
        await self.sweep([diff_id])

    async def close(self) -> None:
        """Stop commits under way. Mounts stay: containers live on."""
        await self._flights.close()

    async def publish(
        self, fd: int, path: str, job: dict[str, Any], expected: Digest | None, lease: LeaseId
    ) -> LayerInfo:
        """Index, make durable, write the row: the second half of every commit."""
        result: dict[str, Any] | None = None
        if job["diff_id"] is None:
            result = await self._index(fd, job)
            check_diff_id(Digest(result["diff_id"]), expected)
        diff_id = Digest(job["diff_id"] or (result or {})["diff_id"])
        while True:
            is_ours = False

            async def work() -> LayerInfo:
                nonlocal is_ours
                is_ours = True
                return await self._publish(fd, path, diff_id, result or await self._index(fd, job), lease)

            known = await self.hold(diff_id, lease)
            if known is not None and await offload.thread(os.path.exists, self.path(diff_id)):
                return known
            info = await self._flights.run(diff_id, work)
            if is_ours:
                return info

    async def _publish(
        self, fd: int, path: str, diff_id: Digest, result: dict[str, Any], lease: LeaseId
    ) -> LayerInfo:
        fields = {name: result[name] for name in _COLUMNS.split(", ")[1:-1]}
        info = LayerInfo(diff_id, created_ns=self._clock.now_ns(), **fields)
        with self._in_flight.publish(diff_id):
            try:
                await offload.thread(publish_file, fd, path, self.path(diff_id), "layers.commit")
            except OSError as error:
                raise full_or(error, "a layer") from error
            failpoints.hit("layers.commit.before-row")
            await self._db.write(lambda tx: _insert(tx, info, lease))
        failpoints.hit("layers.commit.after-row")
        return info

    async def _index(self, fd: int, job: dict[str, Any]) -> dict[str, Any]:
        try:
            return await self._workers.run("layers.index", job, fds=[fd])
        except OrlopError as error:
            if error.kind is Kind.EXHAUSTED and error.code == "os-error":
                raise StoreFull(
                    "cannot write a layer: no space left on device", hint="free some space and try again"
                ) from error
            raise

    # What collection asks of every store: see collect.Resource.

    def keys(self, tx: Tx) -> Iterable[str]:
        """Every stored diff id."""
        return [row[0] for row in tx.execute("SELECT diff_id FROM layer")]

    def roots(self, tx: Tx) -> Iterable[tuple[str, str]]:  # noqa: ARG002 - the protocol's shape
        """A layer is needed only by those who name it."""
        return ()

    def edges(self, tx: Tx) -> Iterable[tuple[str, tuple[str, str]]]:  # noqa: ARG002
        """A layer needs nothing."""
        return ()

    def forget(self, tx: Tx, keys: Sequence[str]) -> None:
        """Delete rows and what leases hold of them."""
        tx.executemany("DELETE FROM layer WHERE diff_id = ?", [(key,) for key in keys])
        tx.executemany("DELETE FROM lease_ref WHERE kind = 'layer' AND key = ?", [(key,) for key in keys])

    async def sweep(self, keys: Sequence[str] | None = None) -> int:
        """Unmount and unlink the layers without a row: `keys`, or all there are. Returns bytes freed."""
        if keys is None:
            keep = {encoded(info.diff_id) for info in await self.list()}
            await self._mounts.sweep(keep)
            names = [name for name in await offload.thread(os.listdir, self._layers) if name not in keep]
        else:
            names = [encoded(Digest(key)) for key in keys]
        freed = 0
        for name in names:
            freed += await self._sweep_one(Digest(f"sha{len(name) * 4}:{name}"))
        return freed

    async def _sweep_one(self, diff_id: Digest) -> int:
        def work(tx: Tx) -> int:
            if _select(tx, diff_id) is not None:
                return 0
            return self._in_flight.unless_publishing(diff_id, lambda: unlink_sized(self.path(diff_id)))

        if await self.has(diff_id):
            return 0
        await self._mounts.release(diff_id)
        return await self._db.write(work, frees_space=True)


def _select(tx: Tx, diff_id: Digest) -> LayerInfo | None:
    row = tx.execute(f"SELECT {_COLUMNS} FROM layer WHERE diff_id = ?", (diff_id,)).fetchone()  # noqa: S608
    return None if row is None else _info(row)


def _info(row: Sequence[Any]) -> LayerInfo:
    return LayerInfo(Digest(row[0]), row[1], row[2], row[3], row[4], bool(row[5]), bool(row[6]), row[7])


def _insert(tx: Tx, info: LayerInfo, lease: LeaseId) -> None:
    values = tuple(getattr(info, name) for name in _COLUMNS.split(", "))
    tx.execute(f"INSERT OR REPLACE INTO layer ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)  # noqa: S608
    tx_hold(tx, lease, KIND_LAYER, info.diff_id)
