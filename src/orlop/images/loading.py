"""`docker load`: images from docker-archives (old and new) and OCI layouts.

The archive is read once (`unpacking`), then every image in it is checked completely, then
all are stored. An archive with one bad image stores none. When both are there, `index.json`
decides if it names indexes (several platforms), else `manifest.json`.

Specs: Docker image spec v1.2, "Combined Image JSON + Filesystem Changeset Format"; OCI image layout.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

from orlop.base.ids import LeaseId
from orlop.images.model import Image, Layers
from orlop.images.store import ImageStore
from orlop.images.unpacking import Archive, BadArchive, Report, read_archive
from orlop.oci.descriptor import Descriptor
from orlop.oci.digest import Digest, algorithm, encoded, new_hasher
from orlop.oci.imageconfig import parse_image_config
from orlop.oci.index import Index, attestations_of, parse_document, parse_index, select
from orlop.oci.manifest import Manifest, parse_manifest
from orlop.oci.mediatype import FOREIGN_LAYER_TYPES, INDEX_TYPES, OCI_INDEX
from orlop.oci.platform import Platform, host_platform
from orlop.oci.reference import InvalidReference, Reference, parse_reference
from orlop.oci.strictjson import HARD_LIMIT_BYTES, Fields, decode_value

__all__ = ["LoadedImage", "load"]

_MAX_IMAGES = 1_000
_MAX_INDEX_DEPTH = 4
_NAME_KEYS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
_ATTESTATION = "vnd.docker.reference.type"


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """An image that is stored now."""

    image: Image
    names: tuple[Reference, ...]
    displaced: dict[str, Digest]  # a name's earlier image, by familiar name


@dataclass(frozen=True, slots=True)
class _Plan:
    """A checked image, not stored yet."""

    config: bytes
    names: tuple[Reference, ...]
    manifest: bytes | None = None
    media_type: str = ""
    index: Index | None = None
    attachments: tuple[tuple[Descriptor, bytes], ...] = ()


async def load(
    stream: AsyncIterator[bytes],
    images: ImageStore,
    layers: Layers,
    lease: LeaseId,
    *,
    platforms: Sequence[Platform] = (),
    report: Report | None = None,
) -> list[LoadedImage]:
    """Store all images of an archive.

    Args:
        stream: the archive; plain, gzip, bzip2, xz or zstd.
        images: where the images go.
        layers: where their layers go.
        lease: holds the layers until the images are stored; end it in any case.
        platforms: only the images for these; everything without any.
        report: told about the progress of layers.

    Raises:
        BadArchive, MalformedDocument, TarError, BadCompression: hostile or broken; nothing is stored.
        StoreFull: no space left; nothing is stored.
    """
    archive = await read_archive(stream, layers, lease, report)
    await archive.adopt_omitted(layers, lease)
    layout = None
    if "index.json" in archive.documents:
        layout = parse_index(archive.document("index.json"), OCI_INDEX)
    names_indexes = layout is not None and any(one.media_type in INDEX_TYPES for one in layout.manifests)
    if "manifest.json" in archive.documents and not names_indexes:
        plans = _docker_plans(archive)
        if platforms:
            plans = [plan for plan in plans if _is_wanted(plan, platforms)]
    elif layout is not None:
        plans = _oci_plans(archive, layout, platforms)
    else:
        raise BadArchive(
            "the archive has neither manifest.json nor index.json",
            hint="it is not made by `save`: try `import`",
        )
    if not plans:
        wanted = " for " + ", ".join(map(str, platforms)) if platforms else ""
        raise BadArchive(f"the archive holds no image{wanted}")
    return [await _store(images, plan, lease) for plan in plans]


async def _store(images: ImageStore, plan: _Plan, lease: LeaseId) -> LoadedImage:
    displaced: dict[str, Digest] = {}
    for name in plan.names:
        before = await images.find(str(name))
        if before is not None and (plan.index is None or before.index != plan.index.descriptor):
            displaced[name.familiar] = before.id
    for data in (*([plan.index.raw] if plan.index else ()), *(data for _, data in plan.attachments)):
        await images.put_document(data, lease)
    image = await images.put(
        plan.config,
        lease=lease,
        manifest=plan.manifest,
        media_type=plan.media_type,
        index=plan.index.descriptor if plan.index else None,
        names=plan.names,
        attachments=[descriptor for descriptor, _ in plan.attachments],
    )
    displaced = {name: before for name, before in displaced.items() if before != image.id}
    return LoadedImage(image, plan.names, displaced)


def _is_wanted(plan: _Plan, platforms: Sequence[Platform]) -> bool:
    found = parse_image_config(plan.config).platform
    return any(found.runs_on(platform) for platform in platforms)


def _docker_plans(archive: Archive) -> list[_Plan]:
    value = decode_value(archive.document("manifest.json"), "manifest.json", HARD_LIMIT_BYTES)
    if not isinstance(value, list) or len(value) > _MAX_IMAGES:
        raise BadArchive(f"manifest.json is not a list of at most {_MAX_IMAGES} images")
    known = ("Config", "RepoTags", "Layers", "LayerSources", "Parent")
    entries = [Fields(item, f"manifest.json[{number}]", known) for number, item in enumerate(value)]
    return [_docker_plan(archive, entry) for entry in entries]


def _docker_plan(archive: Archive, entry: Fields) -> _Plan:
    config = archive.document(entry.text("Config"))
    found = [archive.layer(path) for path in entry.texts("Layers", 512) or ()]
    _check_layers(config, [layer.diff_id for layer in found])
    names = []
    for text in entry.texts("RepoTags", 10_000) or ():
        name = parse_reference(text)
        if name.tag is None or name.digest is not None:
            raise BadArchive(f'invalid tag "{text[:200]}"')
        names.append(name)
    return _Plan(config, tuple(names))


def _oci_plans(archive: Archive, layout: Index, platforms: Sequence[Platform]) -> list[_Plan]:
    by_name: defaultdict[str, list[Descriptor]] = defaultdict(list)
    for number, entry in enumerate(layout.manifests):
        if _ATTESTATION not in entry.annotations:
            name = _annotated_name(entry)
            by_name[str(name) if name else f"#{number}"].append(entry)
    plans: dict[bytes, _Plan] = {}
    for entries in by_name.values():
        entry = entries[0]
        if len(entries) > 1:  # one name for several platforms, and no index that would hold them together
            wanted = platforms[0] if platforms else host_platform()
            entry = select(replace(layout, manifests=tuple(entries)), wanted) or entries[0]
        for plan in _entry_plans(archive, entry, _annotated_name(entry), platforms):
            before = plans.get(plan.config)
            plans[plan.config] = replace(plan, names=before.names + plan.names) if before else plan
    if len(plans) > _MAX_IMAGES:
        raise BadArchive(f"the archive holds more than {_MAX_IMAGES} images")
    return list(plans.values())


def _entry_plans(
    archive: Archive, entry: Descriptor, name: Reference | None, platforms: Sequence[Platform]
) -> list[_Plan]:
    """The images below an entry of the layout's index; none for other artifacts."""
    for _ in range(_MAX_INDEX_DEPTH):
        document = parse_document(_blob(archive, entry), entry.media_type)
        if isinstance(document, Manifest):
            plans = [_oci_plan(archive, document, name)] if document.is_image else []
            return [plan for plan in plans if not platforms or _is_wanted(plan, platforms)]
        if len(document.manifests) != 1 or document.manifests[0].media_type not in INDEX_TYPES:
            return _index_plans(archive, document, name, platforms)
        entry = document.manifests[0]
    raise BadArchive("the indexes of the archive are nested too deeply")


def _index_plans(
    archive: Archive, index: Index, name: Reference | None, platforms: Sequence[Platform]
) -> list[_Plan]:
    """What an index names and the archive has; whoever saves one platform keeps the index whole."""
    plans = []
    for entry in index.manifests:
        if _ATTESTATION in entry.annotations or not archive.has(_path(entry.digest)):
            continue
        document = parse_document(_blob(archive, entry), entry.media_type)
        if not isinstance(document, Manifest) or not document.is_image:
            continue
        # Docker saves the manifests of platforms that it does not have
        if not all(archive.has(_path(part.digest)) for part in (document.config, *document.layers)):
            continue
        plan = _oci_plan(archive, document, name)
        if not platforms or _is_wanted(plan, platforms):
            attachments = _attachments(archive, index, entry.digest)
            plans.append(replace(plan, index=index, attachments=attachments))
    if not plans:
        raise BadArchive("the archive has no image for " + (", ".join(map(str, platforms)) or "any platform"))
    return plans


def _attachments(archive: Archive, index: Index, manifest: Digest) -> tuple[tuple[Descriptor, bytes], ...]:
    """The attestations of one image that the archive has as a whole."""
    found: list[tuple[Descriptor, bytes]] = []
    for entry in attestations_of(index, manifest):
        if not archive.has_document(_path(entry.digest)):
            continue
        document = parse_manifest(_blob(archive, entry), entry.media_type)
        parts = [entry, document.config, *document.layers]
        if all(archive.has_document(_path(part.digest)) for part in parts):
            found += [(part, _blob(archive, part)) for part in parts]
    return tuple(found)


def _oci_plan(archive: Archive, manifest: Manifest, name: Reference | None) -> _Plan:
    config = _blob(archive, manifest.config)
    diff_ids = []
    for layer in manifest.layers:
        if layer.media_type in FOREIGN_LAYER_TYPES:
            raise BadArchive(f"layer {layer.digest} is not distributable and not in the archive")
        stored = archive.layer(_path(layer.digest))
        if stored.digest != layer.digest or stored.size_bytes != layer.size_bytes:
            raise BadArchive(f"layer {layer.digest} of the archive has other bytes than its name says")
        diff_ids.append(stored.diff_id)
    _check_layers(config, diff_ids)
    return _Plan(config, (name,) if name else (), manifest.raw, manifest.media_type)


def _check_layers(config: bytes, diff_ids: Sequence[Digest]) -> None:
    wanted = parse_image_config(config).diff_ids
    if tuple(diff_ids) != wanted:
        raise BadArchive(
            f"invalid manifest, layers length mismatch: expected {len(diff_ids)}, got {len(wanted)}"
            if len(diff_ids) != len(wanted)
            else "the layers of the archive are not those that the config names"
        )


def _blob(archive: Archive, entry: Descriptor) -> bytes:
    data = archive.document(_path(entry.digest))
    hasher = new_hasher(algorithm(entry.digest))
    hasher.update(data)
    if hasher.hexdigest() != encoded(entry.digest) or len(data) != entry.size_bytes:
        raise BadArchive(f"document {entry.digest} of the archive has other bytes than its name says")
    return data


def _path(digest: Digest) -> str:
    return f"blobs/{algorithm(digest)}/{encoded(digest)}"


def _annotated_name(entry: Descriptor) -> Reference | None:
    """The name an archive gives an image; a bare tag names nothing."""
    for key in _NAME_KEYS:
        text = entry.annotations.get(key, "")
        if "/" in text or ":" in text:
            try:
                return replace(parse_reference(text), digest=None).with_default_tag()
            except InvalidReference:
                continue
    return None
