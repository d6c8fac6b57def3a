"""`docker save`: an archive that is a docker-archive and an OCI layout at once.

    blobs/sha256/<hex>   configs, manifests, layers (plain tars named by diff id)
    index.json           OCI: for every name its manifest, or an index when it has several platforms
    manifest.json        Docker: config, tags, layers
    oci-layout, repositories
    omitted.json         layers that are left out because the reader has them; only between engines

The same images give the same bytes: entries are sorted, times are zero. Layers are streamed
from the store, nothing is written to disk.

Specs: OCI image-spec, image layout; Docker image spec v1.2, "Combined Image JSON".
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from orlop.aio import offload
from orlop.images.model import Image, ImageNotFound, Layers
from orlop.images.platforms import choose_platforms
from orlop.images.store import ImageStore
from orlop.images.unpacking import OMITTED
from orlop.oci.digest import Digest, digest_of, encoded
from orlop.oci.mediatype import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST
from orlop.oci.platform import Platform
from orlop.oci.reference import InvalidReference, Reference, parse_reference
from orlop.wire.tarheader import EntryKind, TarEntry
from orlop.wire.tarwrite import END, encode_header, padding

__all__ = ["Selected", "save", "select_images"]

_CHUNK_BYTES = 1 << 20
_BLOBS = b"blobs/sha256/"


@dataclass(slots=True)
class Selected:
    """An image to save with the tags that go along."""

    image: Image
    tags: list[Reference] = field(default_factory=list)


async def select_images(
    images: ImageStore, names: Sequence[str], platforms: Sequence[Platform] = ()
) -> list[Selected]:
    """What `save NAME...` means: a tag saves that tag, a bare repository all its tags, an id no tag.

    A name that stands for several platforms saves all that are here, or those of `platforms`.

    Raises:
        ImageNotFound, AmbiguousImage, InvalidReference: as `ImageStore.resolve`.
    """
    chosen: dict[Digest, Selected] = {}
    everything: Sequence[Image] | None = None
    for name in names:
        bare = _bare_repository(name)
        if bare is not None:
            everything = everything if everything is not None else await images.list()
            matches = [(image, tag) for image in everything for tag in image.tags if tag.name == bare.name]
            for image, tag in matches:
                for one in await _of_name(images, image, tag, platforms):
                    _add(chosen, one, tag)
            if matches:
                continue
        image, reference = await images.resolve_name(name)
        for one in await _of_name(images, image, reference, platforms):
            _add(chosen, one, reference if reference and reference.digest is None else None)
    if not chosen:
        raise ImageNotFound("no images to save")
    return list(chosen.values())


async def save(
    selected: Sequence[Selected], layers: Layers, without: Collection[Digest] = ()
) -> AsyncIterator[bytes]:
    """The archive in chunks; the images must be held by the caller (`ImageStore.hold`).

    Layers in `without` are left out: only an engine that has them can load the archive.
    """
    sizes = {digest: _tar_size(layers, digest) for item in selected for digest in item.image.diff_ids}
    documents, files = _documents(selected, sizes)
    omitted = sorted(set(without) & set(sizes))
    if omitted:
        files[OMITTED] = _json(omitted)
    yield _directory(b"blobs/") + _directory(_BLOBS)
    for digest in sorted({*documents, *sizes} - set(omitted)):
        path = _BLOBS + encoded(digest).encode()
        if digest in documents:
            yield _file(path, documents[digest])
            continue
        yield encode_header(TarEntry(path, EntryKind.FILE, size=sizes[digest]))
        async for chunk in _layer_chunks(layers, digest):
            yield chunk
        yield padding(sizes[digest])
    for name in sorted(files):
        yield _file(name.encode(), files[name])
    yield END


async def _of_name(
    images: ImageStore, image: Image, name: Reference | None, platforms: Sequence[Platform]
) -> list[Image]:
    found = [image, *(await images.variants(name) if name else ())]
    return choose_platforms(name.familiar if name else image.id, found, platforms) if platforms else found


def _add(chosen: dict[Digest, Selected], image: Image, tag: Reference | None) -> None:
    entry = chosen.setdefault(image.id, Selected(image))
    if tag is not None and tag not in entry.tags:
        entry.tags.append(tag)


def _bare_repository(name: str) -> Reference | None:
    try:
        reference = parse_reference(name)
    except InvalidReference:
        return None  # an id, or an error that `resolve` words
    return reference if reference.tag is None and reference.digest is None else None


def _documents(
    selected: Sequence[Selected], sizes: Mapping[Digest, int]
) -> tuple[dict[Digest, bytes], dict[str, bytes]]:
    """The JSON blobs by digest and the files at the top by name."""
    blobs: dict[Digest, bytes] = {}
    manifests: list[dict[str, object]] = []
    entries: list[dict[str, object]] = []
    repositories: dict[str, dict[str, str]] = {}
    by_tag: dict[Reference, list[dict[str, object]]] = {}
    for item in selected:
        config = item.image.config
        manifest = _manifest(item.image, sizes)
        blobs[config.digest] = config.raw
        blobs[digest_of(manifest)] = manifest
        tags = sorted(item.tags, key=str)
        described = _described(item.image, manifest)
        if not tags:
            manifests.append(described)
        # readers of manifest.json know one image for a tag: the one that the tag means without a platform
        first = [tag for tag in tags if tag not in by_tag]
        entries.append(_docker_entry(item.image, first, sizes))
        for tag in tags:
            by_tag.setdefault(tag, []).append(described)
        for tag in first:
            repositories.setdefault(tag.familiar_name, {})[tag.tag or ""] = encoded(
                config.diff_ids[-1] if config.diff_ids else config.digest
            )
    for tag, described_images in by_tag.items():
        target = described_images[0]
        if len(described_images) > 1:
            index = _json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": described_images})
            blobs[digest_of(index)] = index
            target = {"mediaType": OCI_INDEX, "digest": digest_of(index), "size": len(index)}
        manifests.append(target | {"annotations": _annotations(tag)})
    files = {
        "index.json": _json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}),
        "manifest.json": _json(entries),
        "oci-layout": _json({"imageLayoutVersion": "1.0.0"}),
    }
    if repositories:
        files["repositories"] = _json(repositories)
    return blobs, files


def _manifest(image: Image, sizes: Mapping[Digest, int]) -> bytes:
    return _json(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": image.id, "size": len(image.config.raw)},
            "layers": [
                {"mediaType": OCI_LAYER, "digest": digest, "size": sizes[digest]} for digest in image.diff_ids
            ],
        }
    )


def _described(image: Image, manifest: bytes) -> dict[str, object]:
    platform = image.config.platform
    return {
        "mediaType": OCI_MANIFEST,
        "digest": digest_of(manifest),
        "size": len(manifest),
        "platform": {"architecture": platform.architecture, "os": platform.os}
        | ({"variant": platform.variant} if platform.variant else {}),
    }


def _annotations(tag: Reference) -> dict[str, object]:
    return {"io.containerd.image.name": str(tag), "org.opencontainers.image.ref.name": tag.tag}


def _docker_entry(image: Image, tags: Sequence[Reference], sizes: Mapping[Digest, int]) -> dict[str, object]:
    sources = {
        digest: {"mediaType": OCI_LAYER, "size": sizes[digest], "digest": digest} for digest in image.diff_ids
    }
    return {
        "Config": f"blobs/sha256/{encoded(image.id)}",
        "RepoTags": [tag.familiar for tag in tags] or None,
        "Layers": [f"blobs/sha256/{encoded(digest)}" for digest in image.diff_ids],
        "LayerSources": sources,
    }


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _file(path: bytes, data: bytes) -> bytes:
    return encode_header(TarEntry(path, EntryKind.FILE, size=len(data))) + data + padding(len(data))


def _directory(path: bytes) -> bytes:
    return encode_header(TarEntry(path, EntryKind.DIRECTORY, mode=0o755))


def _tar_size(layers: Layers, digest: Digest) -> int:
    fd, _, size = layers.open(digest)
    os.close(fd)
    return size


async def _layer_chunks(layers: Layers, digest: Digest) -> AsyncIterator[bytes]:
    fd, start, size = layers.open(digest)
    try:
        for offset in range(0, size, _CHUNK_BYTES):
            chunk = await offload.thread(os.pread, fd, min(_CHUNK_BYTES, size - offset), start + offset)
            if not chunk:
                raise OSError(f"layer {digest} is shorter than it was")
            yield chunk
    finally:
        os.close(fd)
