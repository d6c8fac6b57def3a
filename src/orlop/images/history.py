"""The steps that made an image, newest first, with the layer each one brought. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orlop.oci.digest import Digest
from orlop.oci.imageconfig import HistoryEntry, ImageConfig

__all__ = ["Step", "steps"]


@dataclass(frozen=True, slots=True)
class Step:
    """One line of `docker history`. The diff id is None for a step without a layer."""

    entry: HistoryEntry
    diff_id: Digest | None
    size_bytes: int


def steps(config: ImageConfig, layer_sizes: Sequence[int]) -> list[Step]:
    """Match the history with the layers.

    Layers below the recorded history (tools that write none) show as steps of their own.
    """
    layers = list(zip(config.diff_ids, layer_sizes, strict=True))
    recorded = sum(not entry.empty_layer for entry in config.history)
    found = [Step(HistoryEntry(), diff_id, size) for diff_id, size in layers[: len(layers) - recorded]]
    remaining = iter(layers[len(layers) - recorded :])
    for entry in config.history:
        diff_id, size = (None, 0) if entry.empty_layer else next(remaining)
        found.append(Step(entry, diff_id, size))
    return found[::-1]
