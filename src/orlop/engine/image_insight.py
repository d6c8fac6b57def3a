"""What is in an image: its layers one by one, and how it differs from another. Extensions of ours."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from orlop.base.errors import OrlopError
from orlop.images.history import steps
from orlop.images.model import Image
from orlop.images.store import ImageStore
from orlop.oci.descriptor import Descriptor
from orlop.oci.digest import Digest
from orlop.oci.strictjson import decode_value
from orlop.store.leases import Leases
from orlop.wire.gojson import field

__all__ = [
    "Attestation",
    "ConfigChange",
    "FileChange",
    "ImageDiff",
    "ImageInsight",
    "ImageLayers",
    "config_changes",
]

_STATEMENT = "application/vnd.in-toto+json"


class LayerJobs(Protocol):
    """The layer store, as far as it is asked here: see store.layers."""

    async def inspect(self, job: str, payload: dict[str, Any]) -> dict[str, Any]:
        """Run a job of `store.comparejobs` over stored layers."""


@dataclass(frozen=True, slots=True)
class FileChange:
    """A path that was added (`A`), changed (`C`) or deleted (`D`), and bytes."""

    kind: str
    path: str
    size: int


@dataclass(frozen=True, slots=True)
class LayerContent:
    """What one layer does to those below."""

    digest: str
    created_by: str
    added: int
    changed: int
    removed: int
    size: int
    hidden: int  # bytes of its files that layers above overwrite or delete
    truncated: bool
    changes: tuple[FileChange, ...] | None = field(default=None, omit_empty=True)


@dataclass(frozen=True, slots=True)
class HiddenFile:
    """A file that is stored and sent, and that nobody sees."""

    path: str
    size: int
    layer: int
    hidden_by: int


@dataclass(frozen=True, slots=True)
class ImageLayers:
    """`GET /orlop/images/layers`."""

    id: str
    size: int
    wasted: int
    layers: tuple[LayerContent, ...]
    largest_wasted: tuple[HiddenFile, ...]


@dataclass(frozen=True, slots=True)
class ConfigChange:
    """One setting that differs; None where an image has none."""

    key: str
    old: object
    new: object


@dataclass(frozen=True, slots=True)
class PackageChange:
    """A package with another version; "" where an image does not have it."""

    name: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class ImageDiff:
    """`GET /orlop/images/diff`."""

    old: str
    new: str
    added: int
    changed: int
    removed: int
    size: int
    truncated: bool
    changes: tuple[FileChange, ...]
    config: tuple[ConfigChange, ...]
    packages: tuple[PackageChange, ...]


@dataclass(frozen=True, slots=True)
class Attestation:
    """One statement about an image, as it came; nobody has checked a signature."""

    manifest: str
    platform: str
    media_type: str
    predicate_type: str
    digest: str
    size: int
    statement: object


class ImageInsight:
    """Looks into images; the layers are held meanwhile."""

    def __init__(self, store: ImageStore, layers: LayerJobs, leases: Leases) -> None:
        self._store = store
        self._layers = layers
        self._leases = leases

    async def layers(self, name: str, *, with_files: bool = False) -> ImageLayers:
        """What every layer adds, changes and removes, bottom first. Raises ImageNotFound."""
        image = await self._store.resolve(name)
        async with self._leases.hold("image layers") as lease:
            await self._store.hold(image.id, lease)
            found = await self._layers.inspect("layers.inventory", {"layers": list(image.diff_ids)})
        makers = [step for step in steps(image.config, image.layer_sizes)[::-1] if step.diff_id]
        layers = tuple(
            LayerContent(
                digest=diff_id,
                created_by=maker.entry.created_by,
                added=item["added"],
                changed=item["changed"],
                removed=item["removed"],
                size=item["size_bytes"],
                hidden=item["hidden_bytes"],
                truncated=item["is_cut"] and with_files,
                changes=_changes(item["changes"]) if with_files else None,
            )
            for diff_id, maker, item in zip(image.diff_ids, makers, found["layers"], strict=True)
        )
        return ImageLayers(
            image.id,
            sum(layer.size for layer in layers),
            sum(layer.hidden for layer in layers),
            layers,
            tuple(HiddenFile(*row) for row in found["hidden"]),
        )

    async def attestations(self, name: str) -> tuple[Attestation, ...]:
        """SBOM and provenance statements kept with a name, of all its platforms. Raises ImageNotFound."""
        image, reference = await self._store.resolve_name(name)
        others = await self._store.variants(reference) if reference else ()
        found: list[Attestation] = []
        for one in (image, *others):
            kept = await self._store.attachments(one.id)
            for descriptor in kept.values():
                if descriptor.media_type == _STATEMENT and one.manifest is not None:
                    data = await self._store.read_document(descriptor)
                    found.append(_attestation(one, one.manifest.digest, descriptor, data))
        return tuple(found)

    async def diff(self, old_name: str, new_name: str) -> ImageDiff:
        """How `new_name` differs from `old_name`: files, config, packages. Raises ImageNotFound."""
        old, new = await self._store.resolve(old_name), await self._store.resolve(new_name)
        async with self._leases.hold("image diff") as lease:
            for image in (old, new):
                await self._store.hold(image.id, lease)
            payload = {"old": list(old.diff_ids), "new": list(new.diff_ids)}
            found = await self._layers.inspect("layers.difference", payload)
        counts = found["counts"]
        return ImageDiff(
            old=old.id,
            new=new.id,
            added=counts["A"],
            changed=counts["C"],
            removed=counts["D"],
            size=found["size_bytes"],
            truncated=found["is_cut"],
            changes=_changes(found["changes"]),
            config=config_changes(_settings(old), _settings(new)),
            packages=tuple(PackageChange(*row) for row in found["packages"]),
        )


def _attestation(image: Image, manifest: Digest, descriptor: Descriptor, data: bytes) -> Attestation:
    try:
        statement = decode_value(data, "statement", descriptor.size_bytes)
    except OrlopError:
        statement = None
    kind = statement.get("predicateType") if isinstance(statement, dict) else None
    return Attestation(
        manifest,
        str(image.config.platform),
        descriptor.media_type,
        kind if isinstance(kind, str) else "",
        descriptor.digest,
        descriptor.size_bytes,
        statement,
    )


def config_changes(old: Mapping[str, object], new: Mapping[str, object]) -> tuple[ConfigChange, ...]:
    """Settings that differ, by key; lists as wholes but for the environment. Pure."""
    keys = sorted(old.keys() | new.keys())
    return tuple(
        ConfigChange(key, old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key)
    )


def _settings(image: Image) -> dict[str, object]:
    """The config of an image as flat keys: `Cmd`, `Env.PATH`, `Labels.team`."""
    document = json.loads(image.config.raw)
    run = document.get("config") or {}
    flat: dict[str, object] = {"Platform": str(image.config.platform)}
    if document.get("author"):
        flat["Author"] = document["author"]
    for key, value in run.items():
        if key == "Env":
            for word in image.config.run.env or ():
                name, _, text = word.partition("=")
                flat[f"Env.{name}"] = text
        elif key in {"Labels", "ExposedPorts", "Volumes"} and isinstance(value, dict):
            flat |= {f"{key}.{name}": text or True for name, text in value.items()}
        elif value not in (None, "", [], {}, False):
            flat[key] = value
    return flat


def _changes(rows: list[list[Any]]) -> tuple[FileChange, ...]:
    return tuple(FileChange(*row) for row in rows)
