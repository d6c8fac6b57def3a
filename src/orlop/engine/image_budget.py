"""The size budget of images and build cache: a plan with reasons, and carrying it out now and then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from orlop.base import log
from orlop.base.clock import Clock, format_rfc3339_nano
from orlop.base.errors import OrlopError
from orlop.build.cache import BuildCache
from orlop.images.budget import Budget, Item, Plan, make_plan, parse_size
from orlop.images.model import Image, short_id
from orlop.images.removal import ImageUser
from orlop.images.store import ImageStore
from orlop.images.uses import Use
from orlop.oci.digest import Digest
from orlop.wire.gojson import field

__all__ = ["GcPlan", "ImageBudget"]

_PERIOD_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GcItem:
    """One image or cache record of the plan."""

    kind: str
    id: str = field("ID")
    name: str
    action: str
    reason: str
    frees: int
    last_used: str


@dataclass(frozen=True, slots=True)
class GcPlan:
    """`/orlop/images/gc`."""

    max_size: int
    size: int
    size_after: int
    reclaimed: int
    items: tuple[GcItem, ...]


class LayerSizes(Protocol):
    """The layer store, as far as it is asked here."""

    async def sizes(self) -> dict[Digest, int]:
        """Bytes of every layer file."""


class Remover(Protocol):
    """The image service, as far as it is asked here."""

    async def remove_unused(self, image_id: Digest) -> bool:
        """Remove an image with its names unless something uses it; True when it is gone."""

    async def collect(self) -> int:
        """Free the bytes that nothing needs any more; how many."""


class ImageBudget:
    """Keeps images and build cache within a size; one per engine."""

    def __init__(
        self,
        store: ImageStore,
        layers: LayerSizes,
        cache: BuildCache,
        images: Remover,
        *,
        users: Callable[[], Iterable[tuple[str, ImageUser]]],
        clock: Clock,
        budget: Budget | None = None,
    ) -> None:
        self._store = store
        self._layers = layers
        self._cache = cache
        self._images = images
        self._users = users
        self._clock = clock
        self._budget = budget or Budget()

    async def plan(self, max_size: str = "") -> GcPlan:
        """What would go now; `max_size` instead of the configured one."""
        budget = self._with(max_size)
        return _view(await self._plan(budget), budget)

    async def run(self, max_size: str = "") -> GcPlan:
        """Remove what the plan says; what came into use meanwhile stays."""
        budget = self._with(max_size)
        plan = await self._plan(budget)
        going = [verdict.item for verdict in plan.verdicts if verdict.goes]
        for item in going:
            if item.kind == "image":
                await self._images.remove_unused(Digest(item.id))
        records = [item.id for item in going if item.kind != "image"]
        if records:
            await self._cache.remove(records)
        freed = await self._images.collect() if going else 0
        if going:
            log.info("image budget kept", removed=len(going), freed_bytes=freed)
        return replace(_view(plan, budget), reclaimed=freed)

    async def watch(self) -> None:
        """Keep the budget for ever; returns at once when there is none."""
        while self._budget.max_bytes:
            try:
                await self.run()
            except OrlopError as error:
                log.warning("the image budget could not be kept", error=error)
            await asyncio.sleep(_PERIOD_S)

    def _with(self, max_size: str) -> Budget:
        return replace(self._budget, max_bytes=parse_size(max_size)) if max_size else self._budget

    async def _plan(self, budget: Budget) -> Plan:
        images = await self._store.list()
        uses = await self._store.uses.all()
        used = dict(self._users())
        parents = {image.parent for image in images if image.parent}
        items = [
            Item(
                "image",
                image.id,
                _name(image),
                image.diff_ids,
                max(uses.get(image.id, Use()).used_ns, image.stored_ns, image.tagged_ns),
                _guard(image, uses.get(image.id, Use()), used, parents),
            )
            for image in images
        ]
        items += [
            Item(
                "build-cache",
                record.key,
                record.description,
                tuple(Digest(layer.diff_id) for layer in record.layers),
                record.used_ns,
                "in use by a build" if record.is_in_use else "",
            )
            for record in await self._cache.records()
        ]
        known = await self._layers.sizes()
        sizes = {layer: known.get(layer, 0) for item in items for layer in item.layers}
        return make_plan(items, sizes, budget, self._clock.now_ns())


def _guard(image: Image, use: Use, used: Mapping[str, ImageUser], parents: set[str]) -> str:
    """Why an image must stay; "" when it may go."""
    if use.is_pinned:
        return "pinned"
    user = used.get(image.id)
    if user is not None:
        return f"used by container {user.container_id[:12]}"
    return "other images are made from it" if image.id in parents else ""


def _name(image: Image) -> str:
    names = [*image.names, *image.variant_names]
    return names[0].familiar if names else short_id(image.id)


def _view(plan: Plan, budget: Budget) -> GcPlan:
    items: Sequence[GcItem] = [
        GcItem(
            kind=verdict.item.kind,
            id=verdict.item.id,
            name=verdict.item.name,
            action="remove" if verdict.goes else "keep",
            reason=verdict.reason,
            frees=verdict.frees_bytes,
            last_used=format_rfc3339_nano(verdict.item.used_ns),
        )
        for verdict in plan.verdicts
    ]
    return GcPlan(budget.max_bytes, plan.total_bytes, plan.left_bytes, 0, tuple(items))
