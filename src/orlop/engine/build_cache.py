"""The build cache as clients see it: usage, and pruning by age, filter or size."""

from __future__ import annotations

import os
from collections.abc import Sequence

from orlop.aio import offload
from orlop.base.clock import Clock, format_rfc3339_nano
from orlop.base.errors import InvalidInput
from orlop.build.cache import BuildCache, CacheRecord
from orlop.engine.build_views import BuildCacheItem, BuildPruneReport
from orlop.engine.events import EventBus
from orlop.engine.filters import Filters, parse_timestamp_ns
from orlop.images.store import ImageStore
from orlop.store.collect import Collector

__all__ = ["BuildCacheService"]

_FILTERS = ("description", "id", "inuse", "parent", "private", "shared", "type", "until", "unused-for")
_TYPE = "regular"
_KEPT_BYTES = 2 << 30  # on small disks too


class BuildCacheService:
    """Lists and prunes; one per engine."""

    def __init__(
        self,
        cache: BuildCache,
        images: ImageStore,
        collector: Collector,
        events: EventBus,
        clock: Clock,
        data_root: str,
    ) -> None:
        self._cache = cache
        self._images = images
        self._collector = collector
        self._events = events
        self._clock = clock
        self._data_root = data_root

    async def usage(self) -> Sequence[BuildCacheItem]:
        """All records, as `docker system df` and `docker builder du` list them."""
        stored = await self._stored_layers()
        return [_item(record, stored) for record in await self._cache.records()]

    async def prune(self, filters: Filters, *, removes_all: bool, keeps_bytes: int = 0) -> BuildPruneReport:
        """Remove records, least recently used first, and collect the layers that nobody needs then.

        Args:
            filters: `id until unused-for type description inuse shared private parent`.
            removes_all: also records whose layers an image has.
            keeps_bytes: stop when not more than this is left; 0 removes all that is allowed.

        Raises:
            InvalidInput: an unknown filter or a malformed value.
        """
        filters.check_keys(_FILTERS)
        before_ns = self._before_ns(filters)
        stored = await self._stored_layers()
        records = await self._cache.records()
        left = sum(record.size_bytes for record in records)
        chosen: list[str] = []
        for record in records:
            if keeps_bytes and left <= keeps_bytes:
                break
            if _passes(record, filters, stored, before_ns, removes_all=removes_all):
                chosen.append(record.key)
                left -= record.size_bytes
        removed = await self._cache.remove(chosen)
        if removes_all and not filters and not keeps_bytes:
            await self._cache.forget_steps()
        freed = (await self._collector.run()).size_bytes if removed else 0
        self._events.publish("builder", "prune", "", {"reclaimed": str(freed)})
        return BuildPruneReport(tuple(map(_short, removed)) or None, freed)

    async def trim(self) -> None:
        """Keep what only the cache holds within a tenth of the disk, the longest unused going first."""
        limit = max(_KEPT_BYTES, await offload.thread(_tenth_of_disk, self._data_root))
        stored = await self._stored_layers()
        private = [record for record in await self._cache.records() if not _is_shared(record, stored)]
        left = sum(record.size_bytes for record in private)
        chosen: list[str] = []
        for record in private:
            if left <= limit:
                break
            chosen.append(record.key)
            left -= record.size_bytes
        if chosen and await self._cache.remove(chosen):
            await self._collector.run()

    def _before_ns(self, filters: Filters) -> int | None:
        values = [*filters.get("until"), *filters.get("unused-for")]
        if len(values) > 1:
            raise InvalidInput("filters expect only one value")
        return parse_timestamp_ns(values[0], self._clock.now_ns()) if values else None

    async def _stored_layers(self) -> set[str]:
        return {diff_id for image in await self._images.list() for diff_id in image.diff_ids}


def _tenth_of_disk(path: str) -> int:
    found = os.statvfs(path)
    return found.f_blocks * found.f_frsize // 10


def _passes(
    record: CacheRecord, filters: Filters, stored: set[str], before_ns: int | None, *, removes_all: bool
) -> bool:
    is_shared = _is_shared(record, stored)
    if record.is_in_use or (is_shared and not removes_all):
        return False
    if before_ns is not None and record.used_ns > before_ns:
        return False
    if "id" in filters and not any(_short(record.key).startswith(value) for value in filters.get("id")):
        return False
    if not filters.matches_pattern("description", record.description):
        return False
    if not filters.matches_exactly("type", _TYPE) or "parent" in filters:
        return False
    wants_shared = filters.get_bool("shared", default=is_shared)
    wants_private = filters.get_bool("private", default=not is_shared)
    return wants_shared is is_shared and wants_private is not is_shared and not filters.get_bool("inuse")


def _is_shared(record: CacheRecord, stored: set[str]) -> bool:
    """True when images have all its layers, so that removing the record frees nothing."""
    return all(layer.diff_id in stored for layer in record.layers)


def _item(record: CacheRecord, stored: set[str]) -> BuildCacheItem:
    return BuildCacheItem(
        id=_short(record.key),
        type=_TYPE,
        description=record.description,
        in_use=record.is_in_use,
        shared=_is_shared(record, stored),
        size=record.size_bytes,
        created_at=format_rfc3339_nano(record.created_ns),
        last_used_at=format_rfc3339_nano(record.used_ns),
        usage_count=record.use_count,
    )


def _short(key: str) -> str:
    return key.partition(":")[2][:25]  # BuildKit's ids have 25 characters
