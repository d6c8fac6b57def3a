"""Export: a draft and its layers become the bytes of an image config.

Times of the history: a layer's entry has the time of the layer; entries without one take the
time of the next new layer, trailing ones that of the last. So a build that is cached to the
end gives the same bytes, hence the same image id. With SOURCE_DATE_EPOCH nothing is later.

Specs: OCI image-spec, config; BuildKit exporter/containerimage (history normalisation).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from orlop.base.errors import InvalidInput
from orlop.build.dockerfile.draft import Draft
from orlop.build.results import BuiltLayer
from orlop.oci.imageconfig import HistoryEntry, derive_config

__all__ = ["config_bytes", "parse_epoch"]

_COMMENT = "buildkit.dockerfile.v0"
_NANO = 1_000_000_000
_MAX_EPOCH_S = 253_402_300_799  # the last second of the year 9999


def config_bytes(draft: Draft, layers: Sequence[BuiltLayer], epoch_ns: int | None = None) -> bytes:
    """The config of the image that `draft` becomes with `layers` (the base's among them)."""
    base = draft.base.config if draft.base else None
    inherited = len(base.diff_ids) if base else 0
    new = list(layers[inherited:])
    entries = _entries(draft, new, epoch_ns)
    old = base.history if base else ()
    times = _times([entry.created_ns for entry in (*old, *entries)], is_new_from=len(old))
    history = [
        HistoryEntry(created, entry.created_by, comment=_COMMENT, empty_layer=entry.empty_layer)
        for entry, created in zip(entries, times[len(old) :], strict=True)
    ]
    created_ns = times[-1] if times else base.created_ns if base else None
    if created_ns is not None and epoch_ns is not None:
        created_ns = min(created_ns, epoch_ns)
    return derive_config(
        base,
        run=draft.run,
        history=history,
        layers=[layer.diff_id for layer in new],
        platform=None if base else draft.platform,
        author=draft.author,
        created_ns=created_ns,
    )


def parse_epoch(text: str) -> int | None:
    """SOURCE_DATE_EPOCH in nanoseconds; None when empty.

    Raises:
        InvalidInput: not a number of seconds.
    """
    if not text:
        return None
    if not re.fullmatch(r"[0-9]{1,12}", text) or int(text) > _MAX_EPOCH_S:
        raise InvalidInput(
            f"invalid SOURCE_DATE_EPOCH: {text[:60]}", hint="it is a number of seconds since 1970"
        )
    return int(text) * _NANO


def _entries(draft: Draft, new: list[BuiltLayer], epoch_ns: int | None) -> list[HistoryEntry]:
    """One per line of the draft, layers given out in order."""
    left = iter(new)
    entries: list[HistoryEntry] = []
    for line in draft.history:
        layer = next(left, None) if line.has_layer else None
        created = layer.created_ns if layer else None
        if created is not None and epoch_ns is not None:
            created = min(created, epoch_ns)
        entries.append(HistoryEntry(created, line.created_by, empty_layer=not line.has_layer))
    assert next(left, None) is None, "every new layer has a line of history"
    return entries


def _times(known: list[int | None], *, is_new_from: int) -> list[int | None]:
    """Fill in what is missing: from the next new layer, at the end from the last known."""
    filled = list(known)
    last = next((value for value in reversed(known[:is_new_from]) if value is not None), None)
    following: int | None = None
    for index in range(len(known) - 1, is_new_from - 1, -1):
        following = known[index] if known[index] is not None else following
        filled[index] = following
    for index in range(is_new_from, len(known)):
        last = filled[index] if filled[index] is not None else last
        filled[index] = last
    return filled
