"""Rows of volumes, and what can be wrong with one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from orlop.base.errors import Kind, NotFound, OrlopError
from orlop.store.db import Tx
from orlop.wire import gojson

__all__ = [
    "ANONYMOUS_LABEL",
    "NoSuchVolume",
    "Volume",
    "VolumeExists",
    "VolumeInUse",
    "half_renamed",
    "named_labels",
    "tx_all",
    "tx_delete",
    "tx_insert",
]

ANONYMOUS_LABEL = "com.docker.volume.anonymous"  # what `docker volume prune` looks for


class NoSuchVolume(NotFound):
    """No volume has this name."""

    code = "no-such-volume"


class VolumeInUse(OrlopError):
    """A container refers to the volume."""

    kind = Kind.CONFLICT
    code = "volume-in-use"


class VolumeExists(OrlopError):
    """A volume has this name, and is not what was asked for."""

    kind = Kind.CONFLICT
    code = "volume-exists"


@dataclass(frozen=True, slots=True)
class Volume:
    """A row."""

    name: str
    driver: str
    is_anonymous: bool
    created_ns: int
    labels: dict[str, str] | None
    options: dict[str, str] | None


def named_labels(labels: dict[str, str] | None) -> dict[str, str] | None:
    """The labels of a volume that has a name of its own."""
    return {key: value for key, value in (labels or {}).items() if key != ANONYMOUS_LABEL} or None


def half_renamed(volumes: Iterable[Volume], path: Callable[[str], str]) -> list[str]:
    """Rows to drop: a rename cut short leaves two of one creation time, and one directory."""
    first: dict[int, Volume] = {}
    found = []
    for volume in volumes:
        other = first.setdefault(volume.created_ns, volume)
        gone = [item.name for item in (other, volume) if not os.path.isdir(path(item.name))]
        if other is not volume and len(gone) == 1:
            found += gone
    return found


def tx_all(tx: Tx) -> list[Volume]:
    """Every row."""
    rows = tx.execute("SELECT name, driver, is_anonymous, created_ns, labels, options FROM volume")
    return [
        Volume(
            row[0], row[1], bool(row[2]), row[3], gojson.parse(row[4].encode()), gojson.parse(row[5].encode())
        )
        for row in rows
    ]


def tx_insert(tx: Tx, volume: Volume) -> None:
    """Add a row."""
    row = (
        volume.name,
        volume.driver,
        int(volume.is_anonymous),
        volume.created_ns,
        _json(volume.labels),
        _json(volume.options),
    )
    tx.execute("INSERT INTO volume VALUES (?, ?, ?, ?, ?, ?)", row).close()


def tx_delete(tx: Tx, name: str) -> None:
    """Take a row away."""
    tx.execute("DELETE FROM volume WHERE name = ?", (name,)).close()


def _json(value: dict[str, str] | None) -> str:
    return gojson.encode(value).decode().strip()
