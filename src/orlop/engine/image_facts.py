"""What Orlop knows of an image beside Docker's fields: compressed forms of its layers, last use, pins.

Policy: docs/internals/layers.md, "Compressed bytes".
"""

from __future__ import annotations

from collections.abc import Sequence

from orlop.base.clock import format_rfc3339_nano
from orlop.engine.image_views import ImageDisk, ImageFacts, LayerState
from orlop.images.model import Image, LayerSource
from orlop.images.store import ImageStore
from orlop.images.uses import Use
from orlop.oci.digest import Digest

__all__ = ["ImageFactsReader"]

KEPT, REFETCHABLE, RECREATABLE = "kept", "re-fetchable", "re-creatable"


class ImageFactsReader:
    """Reads the facts of images."""

    def __init__(self, store: ImageStore) -> None:
        self._store = store

    async def of(self, image: Image) -> ImageFacts:
        """The facts of one image."""
        sources, kept = await self._store.compressed_forms(image.diff_ids)
        use = (await self._store.uses.all()).get(image.id, Use())
        sizes = zip(image.diff_ids, image.layer_sizes, strict=True)
        return ImageFacts(
            tuple(layer_state(diff_id, size, sources.get(diff_id, ()), kept) for diff_id, size in sizes),
            format_rfc3339_nano(use.used_ns) if use.used_ns else "",
            use.is_pinned,
        )

    async def disk(self, used: frozenset[str]) -> ImageDisk:
        """What all layers take, and what could be freed.

        Args:
            used: ids of images that containers use.
        """
        images = await self._store.list()
        sizes: dict[Digest, int] = {}
        needed: set[Digest] = set()
        for image in images:
            sizes |= dict(zip(image.diff_ids, image.layer_sizes, strict=True))
            needed |= set(image.diff_ids) if image.id in used else set()
        sources, kept = await self._store.compressed_forms(sizes)
        states = [layer_state(layer, size, sources.get(layer, ()), kept) for layer, size in sizes.items()]
        reclaimable = sum(size for layer, size in sizes.items() if layer not in needed)
        return ImageDisk(sum(sizes.values()), reclaimable, tuple(states))


def layer_state(
    diff_id: Digest, size: int, sources: Sequence[LayerSource], kept: frozenset[Digest]
) -> LayerState:
    """How the compressed bytes of a layer can be had; the surest way counts. Pure."""
    here = next((item for item in sources if item.digest in kept), None)
    remote = [item for item in sources if item.repository]
    made = next((item for item in sources if not item.repository), None)
    if here is not None:
        return LayerState(diff_id, size, KEPT, here.digest)
    if remote:
        names = tuple(dict.fromkeys(item.repository for item in remote))
        return LayerState(diff_id, size, REFETCHABLE, remote[0].digest, names)
    return LayerState(diff_id, size, RECREATABLE, made.digest if made else "")
