"""What one name holds: every manifest of its index, which of them are here, and what they take.

Spec: Docker Engine API v1.48, ImageManifestSummary and OCIDescriptor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from orlop.images.model import Image
from orlop.images.store import ImageStore
from orlop.oci.descriptor import Descriptor
from orlop.oci.digest import Digest
from orlop.oci.index import attested_digest, parse_index
from orlop.oci.platform import Platform
from orlop.wire.gojson import field

__all__ = ["ManifestSummary", "OciDescriptor", "OciPlatform", "descriptor_view", "manifests_of"]


@dataclass(frozen=True, slots=True)
class OciPlatform:
    """A platform in the words of the OCI."""

    architecture: str = field("architecture")
    os: str = field("os")
    os_version: str = field("os.version", default="", omit_empty=True)
    variant: str = field("variant", default="", omit_empty=True)


@dataclass(frozen=True, slots=True)
class OciDescriptor:
    """A descriptor in the words of the OCI."""

    media_type: str = field("mediaType")
    digest: str = field("digest")
    size: int = field("size")
    annotations: dict[str, str] | None = field("annotations", default=None, omit_empty=True)
    platform: OciPlatform | None = field("platform", default=None, omit_empty=True)


@dataclass(frozen=True, slots=True)
class ManifestSize:
    """`content`: what is kept of it as blobs; `total`: with its layers."""

    total: int
    content: int


@dataclass(frozen=True, slots=True)
class UnpackedSize:
    """The files of the layers."""

    unpacked: int


@dataclass(frozen=True, slots=True)
class ManifestImage:
    """What the manifest of an image describes."""

    platform: OciPlatform
    containers: tuple[str, ...]
    size: UnpackedSize


@dataclass(frozen=True, slots=True)
class ManifestAttestation:
    """What an attestation is about."""

    of: str = field("For")


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestSummary:
    """One manifest of an image's index."""

    id: str = field("ID")
    descriptor: OciDescriptor
    available: bool
    size: ManifestSize
    kind: str
    image_data: ManifestImage | None = field(default=None, omit_empty=True)
    attestation_data: ManifestAttestation | None = field(default=None, omit_empty=True)


def descriptor_view(descriptor: Descriptor, platform: Platform | None = None) -> OciDescriptor:
    """A descriptor as clients see it."""
    wanted = descriptor.platform or platform
    return OciDescriptor(
        descriptor.media_type,
        descriptor.digest,
        descriptor.size_bytes,
        dict(descriptor.annotations) or None,
        None if wanted is None else _platform_view(wanted),
    )


async def manifests_of(
    store: ImageStore, image: Image, others: Sequence[Image], containers: Callable[[Digest], Sequence[str]]
) -> tuple[ManifestSummary, ...] | None:
    """Every manifest that a name holds; None for an image that was made here.

    Args:
        store: where the documents are.
        image: what the name means.
        others: the further images of the name.
        containers: ids of the containers made from an image.
    """
    if image.manifest is None:
        return None
    here = {one.manifest.digest: one for one in (image, *others) if one.manifest is not None}
    if image.index is None:
        return (_image_summary(image.manifest, image, containers),)
    index = parse_index(await store.read_document(image.index), image.index.media_type)
    kept: dict[Digest, Descriptor] = {}
    for one in here.values():
        kept |= await store.attachments(one.id)
    found = []
    for entry in index.manifests:
        about = attested_digest(entry)
        if about is not None:
            found.append(_attestation_summary(entry, about, kept))
        elif entry.digest in here:
            found.append(_image_summary(entry, here[entry.digest], containers))
        else:
            found.append(_absent_summary(entry))
    return tuple(found)


def _image_summary(
    entry: Descriptor, image: Image, containers: Callable[[Digest], Sequence[str]]
) -> ManifestSummary:
    content = entry.size_bytes + len(image.config.raw)
    platform = image.config.platform
    data = ManifestImage(
        _platform_view(platform), tuple(containers(image.id)), UnpackedSize(image.size_bytes)
    )
    size = ManifestSize(content + image.size_bytes, content)
    view = descriptor_view(entry, platform)
    return ManifestSummary(
        id=entry.digest, descriptor=view, available=True, size=size, kind="image", image_data=data
    )


def _attestation_summary(entry: Descriptor, about: str, kept: Mapping[Digest, Descriptor]) -> ManifestSummary:
    is_here = entry.digest in kept
    content = kept[entry.digest].size_bytes if is_here else 0
    return ManifestSummary(
        id=entry.digest,
        descriptor=descriptor_view(entry),
        available=is_here,
        size=ManifestSize(content, content),
        kind="attestation",
        attestation_data=ManifestAttestation(about),
    )


def _absent_summary(entry: Descriptor) -> ManifestSummary:
    platform = entry.platform or Platform("unknown", "unknown")
    data = ManifestImage(_platform_view(platform), (), UnpackedSize(0))
    return ManifestSummary(
        id=entry.digest,
        descriptor=descriptor_view(entry),
        available=False,
        size=ManifestSize(0, 0),
        kind="image",
        image_data=data,
    )


def _platform_view(platform: Platform) -> OciPlatform:
    return OciPlatform(platform.architecture, platform.os, platform.os_version, platform.variant)
