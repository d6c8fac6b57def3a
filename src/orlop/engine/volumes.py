"""Local volumes: a directory, a row, and who uses it.

Layout: `<data_root>/volumes/<name>/_data`. The directory is made and synced before the row, and
the row is deleted before the directory (renamed to `.trash-...`, then removed by a worker): what a crash
leaves is a directory without a row, which `recover` takes away. Users of a volume are counted
from the containers in memory, never stored.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from orlop.aio import offload
from orlop.aio.keyed_lock import KeyedLock
from orlop.base import failpoints, ids, log
from orlop.base.clock import Clock, format_rfc3339_nano
from orlop.base.errors import InvalidInput, NotFound, OrlopError
from orlop.engine.events import EventBus
from orlop.engine.filters import Filters
from orlop.engine.mounts import check_volume_name
from orlop.engine.requests import VolumeCreateRequest
from orlop.engine.trees import remove_tree, tree_usage
from orlop.engine.views import VolumeList, VolumeUsage, VolumeView
from orlop.engine.volume_options import check_options, local_mount, size_limit
from orlop.engine.volume_rows import (
    ANONYMOUS_LABEL,
    NoSuchVolume,
    Volume,
    VolumeExists,
    VolumeInUse,
    half_renamed,
    named_labels,
    tx_all,
    tx_delete,
    tx_insert,
)
from orlop.kernel.mountpoint import unmount
from orlop.procs.workers import Workers
from orlop.store import writablequota
from orlop.store.db import Database
from orlop.store.files import fsync_directory
from orlop.store.writablequota import QuotaUnavailable

__all__ = ["NoSuchVolume", "Volume", "VolumeExists", "VolumeInUse", "Volumes"]

_TRASH = ".trash-"


class Volumes:
    """All local volumes of this engine.

    Args:
        db, workers, events, clock: services.
        root: `<data_root>/volumes`, made when missing.
        users: the ids of the containers that refer to a volume.
    """

    def __init__(
        self,
        *,
        db: Database,
        workers: Workers,
        events: EventBus,
        clock: Clock,
        root: str,
        users: Callable[[str], Iterable[str]],
    ) -> None:
        self._db = db
        self._workers = workers
        self._events = events
        self._clock = clock
        self._root = root
        self._users = users
        self._volumes: dict[str, Volume] = {}
        self._visitors: Counter[str] = Counter()
        self.mount_locks: KeyedLock[str] = KeyedLock()  # by name, of `volume_mounts`
        self._lock = asyncio.Lock()  # create and remove of one name must not cross; both are short

    async def load(self) -> None:
        """Read the rows and take away what a crash left."""
        os.makedirs(self._root, mode=0o700, exist_ok=True)
        os.chmod(self._root, 0o700)  # below it are the modes of containers, under names that can be guessed
        rows = await self._db.read(tx_all)
        self._volumes = {volume.name: volume for volume in rows}
        await self._finish_renames()
        for entry in os.listdir(self._root):
            if entry not in self._volumes:
                await self._remove_tree(entry)

    def find(self, name: str) -> Volume | None:
        """The volume of this name."""
        return self._volumes.get(name)

    def get(self, name: str) -> Volume:
        """The volume of this name.

        Raises:
            NoSuchVolume: with dockerd's text.
        """
        found = self._volumes.get(name)
        if found is None:
            raise NoSuchVolume(f"get {name[:255]}: no such volume")
        return found

    def names(self) -> tuple[str, ...]:
        """Of all volumes."""
        return tuple(self._volumes)

    def path(self, name: str) -> str:
        """The directory that is mounted."""
        return os.path.join(self._root, name, "_data")

    async def create(self, request: VolumeCreateRequest) -> VolumeView:
        """Make a volume, or answer with the one of this name when its options agree."""
        if request.driver not in ("", "local"):
            driver = request.driver[:100]
            raise NotFound(f'error looking up volume plugin {driver}: plugin "{driver}" not found')
        options = dict(request.driver_opts or {}) or None
        name = check_volume_name(request.name) if request.name else ids.new_hex_id()
        async with self._lock:
            found = self._volumes.get(name)
            if found is None:
                labels = dict(request.labels) if request.labels is not None else None
                found = await self._make(name, labels, options, is_anonymous=not request.name)
            _check_same(found, options)
        return self.view(found)

    async def ensure(
        self,
        name: str,
        labels: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
    ) -> Volume:
        """The volume of this name for a container, made when missing; an empty name makes a new one."""
        async with self._lock:
            found = self._volumes.get(name) if name else None
            if found is not None:
                _check_same(found, options)
                return found
            given = dict(options or {}) or None
            if not name:
                return await self._make(ids.new_hex_id(), dict(labels or {}), given, is_anonymous=True)
            return await self._make(name, dict(labels) if labels else None, given, is_anonymous=False)

    def view(self, volume: Volume) -> VolumeView:
        """What clients see."""
        return VolumeView(
            created_at=format_rfc3339_nano(volume.created_ns // 10**9 * 10**9),
            driver=volume.driver,
            labels=volume.labels,
            mountpoint=self.path(volume.name),
            name=volume.name,
            options=volume.options,
            scope="local",
        )

    def list(self, filters: Filters) -> VolumeList:
        """All that pass the filters."""
        filters.check_keys(("dangling", "driver", "label", "label!", "name"))
        views = []
        for volume in self._volumes.values():
            if not filters.matches_pattern("name", volume.name):
                continue
            if not filters.matches_exactly("driver", volume.driver):
                continue
            if not filters.matches_labels("label", volume.labels):
                continue
            if not filters.excludes_labels("label!", volume.labels):
                continue
            if "dangling" in filters and filters.get_bool("dangling") == bool(self.users(volume.name)):
                continue
            views.append(self.view(volume))
        return VolumeList(tuple(sorted(views, key=lambda view: view.name)), None)

    def users(self, name: str) -> tuple[str, ...]:
        """Ids of the containers that refer to it."""
        return tuple(self._users(name))

    async def remove(self, name: str, *, force: bool = False) -> None:
        """Delete a volume and its content.

        Raises:
            NoSuchVolume: unless forced.
            VolumeInUse: with dockerd's text; forced or not.
        """
        async with self._lock:
            volume = self._volumes.get(name)
            if volume is None:
                if force:
                    return
                raise NoSuchVolume(f"get {name[:255]}: no such volume")
            self._refuse_used(name, "remove")
            await self._db.write(lambda tx: tx_delete(tx, name), frees_space=True)
            del self._volumes[name]
        await self._remove_tree(name)
        self._events.publish("volume", "destroy", name, {"driver": volume.driver})

    # --- copies and names, for `volume_copies` ---

    def visit(self, name: str) -> None:
        """Somebody looks into the volume: it is not removed or renamed before `leave`."""
        self._visitors[name] += 1

    def leave(self, name: str) -> None:
        """The end of `visit`."""
        self._visitors[name] -= 1
        if not self._visitors[name]:
            del self._visitors[name]

    def is_visited(self, name: str) -> bool:
        """Whether somebody looks into it."""
        return name in self._visitors

    def check_free(self, name: str) -> None:
        """Raises VolumeExists."""
        if name in self._volumes:
            raise VolumeExists(
                f'volume "{name}" already exists', hint="remove it first, or take another name"
            )

    def new_draft(self) -> str:
        """A directory for the content of a volume that is not there yet; a start takes what is left away."""
        draft = os.path.join(self._root, _TRASH + ids.new_token())
        os.makedirs(os.path.join(draft, "_data"), mode=0o755)
        os.chmod(draft, 0o701)
        return draft

    async def publish(self, draft: str, volume: Volume) -> None:
        """Make a draft, durable, a volume.

        Raises:
            VolumeExists: somebody was faster; the draft stays the caller's.
        """
        async with self._lock:
            self.check_free(volume.name)
            os.rename(draft, os.path.join(self._root, volume.name))
            await offload.thread(fsync_directory, self._root)
            failpoints.hit("volume.clone.before-row")
            await self._db.write(lambda tx: tx_insert(tx, volume))
            self._volumes[volume.name] = volume
        self._events.publish("volume", "create", volume.name, {"driver": volume.driver})

    async def rename(self, old: str, new: str) -> Volume:
        """Another name for a volume that nobody refers to.

        Raises:
            NoSuchVolume, VolumeInUse, VolumeExists: as named.
        """
        async with self._lock:
            volume = self.get(old)
            self._refuse_used(old, "rename")
            self.check_free(new)
            renamed = replace(volume, name=new, is_anonymous=False, labels=named_labels(volume.labels))
            await offload.thread(unmount, self.path(old))
            await self._db.write(lambda tx: tx_insert(tx, renamed))
            failpoints.hit("volume.rename.both-rows")
            os.rename(os.path.join(self._root, old), os.path.join(self._root, new))
            await offload.thread(fsync_directory, self._root)
            failpoints.hit("volume.rename.moved")
            await self._db.write(lambda tx: tx_delete(tx, old))
            del self._volumes[old]
            self._volumes[new] = renamed
        self._events.publish("volume", "rename", new, {"driver": volume.driver, "oldName": old})
        return renamed

    async def _finish_renames(self) -> None:
        """Of two rows of one volume, drop the one without a directory."""
        for name in await offload.thread(half_renamed, tuple(self._volumes.values()), self.path):
            await self._db.write(partial(tx_delete, name=name))
            del self._volumes[name]

    def _refuse_used(self, name: str, verb: str) -> None:
        users = self.users(name)
        if users or self.is_visited(name):
            who = ", ".join(users) or "an archive or a copy is being made"
            raise VolumeInUse(f"{verb} {name}: volume is in use - [{who}]")

    async def prune(self, filters: Filters) -> tuple[Sequence[str], int]:
        """Remove what nobody refers to: anonymous ones, or all with `all=true`. Names and bytes."""
        filters.check_keys(("label", "label!", "all"))
        takes_all = filters.get_bool("all")
        removed, freed = [], 0
        for volume in tuple(self._volumes.values()):
            if not (volume.is_anonymous or takes_all) or self.users(volume.name):
                continue
            if not filters.matches_labels("label", volume.labels):
                continue
            if not filters.excludes_labels("label!", volume.labels):
                continue
            size = await self.usage(volume.name)
            try:
                await self.remove(volume.name)
            except (VolumeInUse, NoSuchVolume):
                continue
            removed.append(volume.name)
            freed += max(size, 0)
        self._events.publish("volume", "prune", "", {"reclaimed": str(freed)})
        return removed, freed

    async def usage_views(self) -> Sequence[VolumeView]:
        """All volumes with their sizes and how many containers refer to them."""
        return [
            replace(
                self.view(volume),
                usage_data=VolumeUsage(await self.usage(volume.name), len(self.users(volume.name))),
            )
            for volume in tuple(self._volumes.values())
        ]

    async def usage(self, name: str) -> int:
        """Bytes on disk; -1 when something else is mounted in its place, as dockerd has it."""
        if local_mount(self.get(name).options) is not None:
            return -1
        return await tree_usage(self._workers, self.path(name))

    async def _make(
        self,
        name: str,
        labels: dict[str, str] | None,
        options: dict[str, str] | None,
        *,
        is_anonymous: bool,
    ) -> Volume:
        if options:
            check_options(options)
        if is_anonymous:
            labels = {ANONYMOUS_LABEL: "", **(labels or {})}
        path = self.path(name)
        os.makedirs(path, mode=0o755, exist_ok=True)
        os.chmod(os.path.dirname(path), 0o701)  # like dockerd: traversable, not listable
        try:
            await self.limit(path, name, size_limit(options))
        except InvalidInput:
            await self._remove_tree(name)
            raise
        volume = Volume(name, "local", is_anonymous, self._clock.now_ns(), labels, options)
        await self._db.write(lambda tx: tx_insert(tx, volume))
        self._volumes[name] = volume
        self._events.publish("volume", "create", name, {"driver": "local"})
        return volume

    async def limit(self, directory: str, name: str, size: int) -> None:
        """Let the files below a directory, still empty, have so many bytes; 0 = any number.

        Raises:
            InvalidInput: the file system cannot; with dockerd's text.
        """
        if not size:
            return
        try:
            await offload.thread(writablequota.limit, f"volume/{name}", directory, directory, size)
        except QuotaUnavailable as error:
            raise InvalidInput(
                "quota size requested but no quota support",
                hint="put the data root on ext4 or xfs mounted with prjquota",
            ) from error

    async def _remove_tree(self, entry: str) -> None:
        """Rename out of the way, so that the name is free at once, then remove in a worker.

        What is mounted there goes first: its files are not the volume's.
        """
        path = os.path.join(self._root, entry)
        data = os.path.join(path, "_data")
        try:
            await offload.thread(unmount, data)
            await offload.thread(writablequota.release, data)
        except OSError as error:
            log.error("a volume stays mounted, its directory is kept", path=path, error=error)
            return
        trash = path
        if not entry.startswith(_TRASH):
            trash = os.path.join(self._root, _TRASH + ids.new_token())
            try:
                os.rename(path, trash)
            except FileNotFoundError:
                return
        try:
            await remove_tree(self._workers, trash)
        except (OrlopError, OSError) as error:
            log.warning(
                "a volume's directory could not be removed; the next start tries again",
                path=trash,
                error=error,
            )


def _check_same(volume: Volume, options: Mapping[str, str] | None) -> None:
    """A client that asks for options must not get a volume with others without a word."""
    if options and dict(options) != (volume.options or {}):
        raise VolumeExists(
            f'volume "{volume.name}" exists but has different options',
            hint="remove it first, or give the options that it has; `docker volume inspect` shows them",
        )
