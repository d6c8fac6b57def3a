"""Snapshots: a writable directory over the layers of an image, and what became of it.

`<data_root>/snapshots/<key>/{upper,work}` is all there is on disk; the overlay itself is mounted by whoever
runs something in it, from the values of a `Workspace`. The key is the owner's id. The upper
directory is written by containers: the engine never walks it, workers do, by descriptors.
"""

from __future__ import annotations

import contextlib
import enum
import os
import re
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from orlop.aio import offload
from orlop.aio.scope import Background, Scope
from orlop.base import failpoints, ids
from orlop.base.clock import Clock, SystemClock
from orlop.base.errors import Kind, NotFound, OrlopError
from orlop.base.ids import LeaseId, SnapshotKey
from orlop.oci.digest import Digest
from orlop.procs.workers import Workers
from orlop.store import writablequota
from orlop.store.db import Database, StoreFull, Tx
from orlop.store.files import ensure_directory
from orlop.store.layerfile import TAR_OFFSET
from orlop.store.layers import KIND_LAYER, LayerInfo, LayerStore
from orlop.store.leases import tx_hold
from orlop.store.smalltree import empty_tree

__all__ = [
    "KIND_SNAPSHOT",
    "Change",
    "ChangeKind",
    "SnapshotExists",
    "SnapshotNotFound",
    "Snapshots",
    "Workspace",
]

KIND_SNAPSHOT = "snapshot"
_KEY = re.compile(r"[a-z0-9][a-z0-9_.-]{0,127}\Z")
_ROOT_DEFAULT = (0o755, 0, 0)
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class SnapshotNotFound(NotFound):
    """No snapshot has this key."""

    code = "snapshot-not-found"
    remedy = "its files are gone: remove the container and make it again"


class SnapshotExists(OrlopError):
    """The key is taken."""

    kind = Kind.CONFLICT
    code = "snapshot-exists"


class ChangeKind(enum.Enum):
    """The numbers of Docker's API: `GET /containers/{id}/changes`."""

    MODIFIED = 0
    ADDED = 1
    DELETED = 2


@dataclass(frozen=True, slots=True)
class Change:
    """One changed path, from the container's root; undecodable bytes are lone surrogates."""

    path: str
    kind: ChangeKind


@dataclass(frozen=True, slots=True)
class Workspace:
    """What an overlay is made of: lower directories topmost first, upper and work or None for a view."""

    key: str
    lowers: tuple[str, ...]
    upper: str | None
    work: str | None


class Snapshots:
    """The snapshots of one data root."""

    kind = KIND_SNAPSHOT

    def __init__(
        self,
        data_root: str,
        exec_root: str,
        db: Database,
        layers: LayerStore,
        workers: Workers,
        clock: Clock | None = None,
    ) -> None:
        self._root = os.path.join(data_root, "snapshots")
        self._trash = os.path.join(data_root, "trash")
        self._empty = os.path.join(exec_root, "empty")
        self._db = db
        self._layers = layers
        self._workers = workers
        self._clock = clock or SystemClock()
        self._preparing: set[str] = set()  # directories whose row is on its way
        self._reaper = Background("snapshots-reaper")
        for folder in (self._root, self._trash, self._empty):
            ensure_directory(folder)

    async def prepare(
        self,
        key: SnapshotKey,
        layers: Sequence[Digest],
        lease: LeaseId | None = None,
        *,
        owner_row: Callable[[Tx], object] | None = None,
    ) -> Workspace:
        """Make a writable snapshot over `layers`, bottom first.

        With a lease the snapshot lives as long as the lease or an edge holds it; without, until `discard`.
        The new root directory looks like that of the topmost layer that describes one. `owner_row` writes
        the row of whoever the snapshot is for in the same transaction: one commit, both or neither.

        Raises:
            SnapshotExists: the key is taken.
            LayerNotFound, MountFailed, StoreFull: as named.
        """
        folder = self._folder(key)
        infos = await self._layers.infos(layers)
        lowers = await self._mount(infos)
        row = (key, int(lease is None), self._clock.now_ns())

        def insert(tx: Tx) -> None:
            _insert(tx, row, layers, lease)
            if owner_row is not None:
                owner_row(tx)

        self._preparing.add(key)
        try:
            await offload.thread(_create, folder, infos, lowers)
            failpoints.hit("snapshots.prepare.before-row")
            await self._db.write(insert)
        except FileExistsError as error:
            raise SnapshotExists(f"snapshot {key} exists", key=key) from error
        except BaseException:
            await offload.thread(self._to_trash, folder)
            raise
        finally:
            self._preparing.discard(key)
        return self._workspace(key, infos, lowers)

    async def open(self, key: SnapshotKey) -> Workspace:
        """The workspace of an existing snapshot, layers mounted. Raises SnapshotNotFound."""
        infos = await self._layers.infos(await self.layers_of(key))
        lowers = await self._mount(infos)
        folder = self._folder(key)
        # After a power cut the row may be there without the directories: nothing had been written to them.
        if not await offload.thread(os.path.isdir, os.path.join(folder, "work")):
            await offload.thread(_complete, folder, infos, lowers)
        return self._workspace(key, infos, lowers)

    async def view(self, layers: Sequence[Digest]) -> Workspace:
        """A read-only workspace over `layers`, bottom first. Whoever uses it holds the layers."""
        infos = await self._layers.infos(layers)
        lowers = await self._mount(infos)
        return Workspace("", self._visible(infos, lowers), None, None)

    async def layers_of(self, key: SnapshotKey) -> list[Digest]:
        """Diff ids, bottom first. Raises SnapshotNotFound."""

        def work(tx: Tx) -> list[Digest] | None:
            if tx.value("SELECT 1 FROM snapshot WHERE key = ?", (key,)) is None:
                return None
            rows = tx.execute(
                "SELECT diff_id FROM snapshot_layer WHERE snapshot = ? ORDER BY position", (key,)
            )
            return [Digest(row[0]) for row in rows]

        found = await self._db.read(work)
        if found is None:
            raise SnapshotNotFound(f"snapshot {key} does not exist", key=key)
        return found

    async def all_keys(self) -> list[SnapshotKey]:
        """All keys: what reconciliation compares with the owners."""
        return await self._db.read(
            lambda tx: [SnapshotKey(row[0]) for row in tx.execute("SELECT key FROM snapshot ORDER BY key")]
        )

    async def keep(self, key: SnapshotKey) -> None:
        """From now on the snapshot stays until `discard`, whatever becomes of its lease."""
        await self._db.write(
            lambda tx: tx.execute("UPDATE snapshot SET is_kept = 1 WHERE key = ?", (key,)).close()
        )

    async def discard(self, key: SnapshotKey) -> None:
        """Drop a snapshot and everything written to it; fine when it is gone.

        On return the key is free and the tree out of sight; a large tree is removed behind the caller's back.
        """
        folder = self._folder(key)
        await self._db.write(lambda tx: self.forget(tx, [key]), frees_space=True)
        failpoints.hit("snapshots.discard.after-row")
        await self._throw_away(folder)

    async def changes(self, key: SnapshotKey, *, stubs: Iterable[str] = ()) -> list[Change]:
        """What was written, against the layers, sorted by path; without `stubs`. Raises SnapshotNotFound."""
        workspace = await self.open(key)
        job = {"lowers": workspace.lowers, "stubs": list(stubs)}
        with _open_directory(workspace.upper) as upper:
            result = await self._workers.run("trees.changes", job, fds=[upper])
        return [Change(path, ChangeKind(kind)) for path, kind in result["changes"]]

    async def usage(self, key: SnapshotKey) -> int:
        """Bytes of the files that the snapshot alone has. Raises SnapshotNotFound."""
        await self.layers_of(key)
        with _open_directory(os.path.join(self._folder(key), "upper")) as upper:
            result = await self._workers.run("trees.usage", {}, fds=[upper])
        return int(result["size_bytes"])

    async def commit(
        self,
        key: SnapshotKey,
        lease: LeaseId,
        latest_ns: int | None = None,
        *,
        stubs: Iterable[str] = (),
    ) -> LayerInfo:
        """Make what was written a layer, held by `lease`; the snapshot stays as it is.

        `latest_ns` is the time that later modification times are set back to (SOURCE_DATE_EPOCH). A
        snapshot that is written to meanwhile gives some mixture of old and new; freeze it first.
        `stubs` are paths that were made for mounts only: see `stubs`.

        Raises:
            SnapshotNotFound, StoreFull: as named.
            TarError: a file whose name a layer cannot carry.
        """
        infos = await self._layers.infos(await self.layers_of(key))
        lowers = await self._mount(infos)
        root = await offload.thread(_root_of, infos, lowers)
        job = {
            "offset": TAR_OFFSET,
            "root": root,
            "latest_ns": latest_ns,
            "stubs": list(stubs),
            "lowers": self._visible(infos, lowers),
        }
        async with self._layers.stage(lease) as staged:
            with _open_directory(os.path.join(self._folder(key), "upper")) as upper:
                try:
                    await self._workers.run("trees.diff", job, fds=[upper, staged.fd])
                except OrlopError as error:
                    if error.kind is Kind.EXHAUSTED and error.code == "os-error":
                        raise StoreFull("cannot write a layer: no space left on device") from error
                    raise
            return await staged.commit()

    async def close(self) -> None:
        """Stop removing trees; the next start goes on."""
        await self._reaper.close()

    def _folder(self, key: SnapshotKey) -> str:
        if not _KEY.match(key):
            raise SnapshotNotFound(f"{key[:80]!r} cannot be the key of a snapshot")
        return os.path.join(self._root, key)

    async def _mount(self, infos: Sequence[LayerInfo]) -> list[str]:
        """All layers at once; directories bottom first."""
        async with Scope("mount-layers") as scope:
            tasks = [scope.spawn(self._layers.mount(info.diff_id)) for info in infos]
        return [task.result() for task in tasks]

    def _visible(self, infos: Sequence[LayerInfo], lowers: Sequence[str]) -> tuple[str, ...]:
        """Topmost first, ending at a layer whose root is opaque: overlay itself ignores that on a root.

        A layer that occurs twice counts once, at the top: overlay refuses to have it twice, and whatever the
        lower occurrence shows or hides, the upper one shows or hides as well.
        """
        visible: dict[str, None] = {}
        for info, path in zip(reversed(infos), reversed(lowers), strict=True):
            visible.setdefault(path)
            if info.is_opaque:
                break
        return tuple(visible) or (self._empty,)

    def _workspace(self, key: SnapshotKey, infos: Sequence[LayerInfo], lowers: Sequence[str]) -> Workspace:
        folder = self._folder(key)
        upper, work = os.path.join(folder, "upper"), os.path.join(folder, "work")
        return Workspace(key, self._visible(infos, lowers), upper, work)

    async def _throw_away(self, folder: str) -> None:
        trash = await offload.thread(self._to_trash, folder)
        if trash is not None:
            _ = self._reaper.spawn(self._empty_trash(trash))

    def _to_trash(self, folder: str) -> str | None:
        """Out of sight by one rename. A path if there is more to remove than empty directories."""
        trash = os.path.join(self._trash, ids.new_token())
        writablequota.release(os.path.join(folder, "work"))
        try:
            os.rename(folder, trash)
        except FileNotFoundError:
            return None
        for path in ("work/work", "work", "upper", ""):
            try:
                os.rmdir(os.path.join(trash, path))
            except FileNotFoundError:
                continue
            except OSError:
                return trash
        return None

    async def _empty_trash(self, trash: str) -> None:
        with contextlib.suppress(FileNotFoundError):  # a sweep was faster
            with _open_directory(trash) as directory:
                await empty_tree(self._workers, directory)
            os.rmdir(trash)

    # What collection asks of every store: see collect.Resource.

    def keys(self, tx: Tx) -> Iterable[str]:
        """Every snapshot."""
        return [row[0] for row in tx.execute("SELECT key FROM snapshot")]

    def roots(self, tx: Tx) -> Iterable[tuple[str, str]]:
        """Those that are kept until discarded."""
        return [(KIND_SNAPSHOT, row[0]) for row in tx.execute("SELECT key FROM snapshot WHERE is_kept")]

    def edges(self, tx: Tx) -> Iterable[tuple[str, tuple[str, str]]]:
        """A snapshot needs its layers."""
        return [
            (row[0], (KIND_LAYER, row[1]))
            for row in tx.execute("SELECT snapshot, diff_id FROM snapshot_layer")
        ]

    def forget(self, tx: Tx, keys: Sequence[str]) -> None:
        """Delete rows and what leases hold of them."""
        tx.executemany("DELETE FROM snapshot WHERE key = ?", [(key,) for key in keys])
        tx.executemany("DELETE FROM lease_ref WHERE kind = 'snapshot' AND key = ?", [(key,) for key in keys])

    async def sweep(self, keys: Sequence[str] | None = None) -> int:
        """Throw away the trees without a row: `keys`, or all there are, and what lies in the trash.

        Returns 0: what a tree frees is known only after it has been removed in the background.
        """
        if keys is None:
            for name in await offload.thread(os.listdir, self._trash):
                _ = self._reaper.spawn(self._empty_trash(os.path.join(self._trash, name)))
        names = await offload.thread(os.listdir, self._root) if keys is None else keys
        stored = set(await self.all_keys()) | self._preparing
        for name in names:
            if name not in stored:
                await self._throw_away(os.path.join(self._root, name))
        return 0


class _open_directory:  # noqa: N801 - reads as the context manager that it is
    """An fd of a directory of our own, for the length of a block."""

    def __init__(self, path: str | None) -> None:
        assert path is not None
        self._fd = os.open(path, _DIRECTORY)

    def __enter__(self) -> int:
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def _insert(tx: Tx, row: tuple[str, int, int], layers: Sequence[Digest], lease: LeaseId | None) -> None:
    tx.execute("INSERT INTO snapshot VALUES (?, ?, ?)", row)
    tx.executemany(
        "INSERT INTO snapshot_layer VALUES (?, ?, ?)",
        [(row[0], position, diff_id) for position, diff_id in enumerate(layers)],
    )
    if lease is not None:
        tx_hold(tx, lease, KIND_SNAPSHOT, row[0])


def _create(folder: str, infos: Sequence[LayerInfo], lowers: Sequence[str]) -> None:
    os.mkdir(folder, 0o700)
    _complete(folder, infos, lowers)


def _complete(folder: str, infos: Sequence[LayerInfo], lowers: Sequence[str]) -> None:
    mode, uid, gid = _root_of(infos, lowers)
    upper = os.path.join(folder, "upper")
    os.makedirs(upper, 0o700, exist_ok=True)
    os.chown(upper, uid, gid)
    os.chmod(upper, mode)
    with contextlib.suppress(FileExistsError):
        os.mkdir(os.path.join(folder, "work"), 0o700)


def _root_of(infos: Sequence[LayerInfo], lowers: Sequence[str]) -> tuple[int, int, int]:
    """Mode, uid and gid of the root as the topmost layer that describes one has it."""
    for info, path in zip(reversed(infos), reversed(lowers), strict=True):
        if info.has_root:
            status = os.lstat(path)
            return stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid
        if info.is_opaque:
            break
    return _ROOT_DEFAULT
