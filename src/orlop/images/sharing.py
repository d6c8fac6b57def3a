"""How images lie on each other: chain ids, and which bytes they share. Pure.

Spec: OCI image-spec, config, "Layer ChainID".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from orlop.images.model import Image
from orlop.oci.digest import Digest, digest_of

__all__ = ["chain_ids", "layers_size_bytes", "lost_chains", "shared_size_bytes"]


def chain_ids(diff_ids: Sequence[Digest]) -> list[Digest]:
    """The id of every stack of layers from the bottom up."""
    chains: list[Digest] = []
    for diff_id in diff_ids:
        chains.append(digest_of(f"{chains[-1]} {diff_id}".encode()) if chains else diff_id)
    return chains


def lost_chains(image: Image, others: Iterable[Image]) -> list[Digest]:
    """Stacks, topmost first, that nobody has any more once `image` is gone: what `rmi` prints."""
    deepest = max((_common(image.diff_ids, other.diff_ids) for other in others), default=0)
    return chain_ids(image.diff_ids)[deepest:][::-1]


def shared_size_bytes(images: Sequence[Image]) -> dict[Digest, int]:
    """For each image the size of its layers that another image has as well."""
    users = Counter(diff_id for image in images for diff_id in set(image.diff_ids))
    return {
        image.id: sum(
            size
            for diff_id, size in zip(image.diff_ids, image.layer_sizes, strict=True)
            if users[diff_id] > 1
        )
        for image in images
    }


def layers_size_bytes(images: Iterable[Image]) -> int:
    """The size of all layers, each counted once."""
    sizes = {
        diff_id: size
        for image in images
        for diff_id, size in zip(image.diff_ids, image.layer_sizes, strict=True)
    }
    return sum(sizes.values())


def _common(left: Sequence[Digest], right: Sequence[Digest]) -> int:
    length = 0
    for one, other in zip(left, right, strict=False):
        if one != other:
            break
        length += 1
    return length
