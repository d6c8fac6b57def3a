"""Image indexes (manifest lists) and the choice of a platform.

Specs: OCI image-spec, index; Docker manifest list.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orlop.oci.descriptor import Descriptor
from orlop.oci.digest import Digest, digest_of
from orlop.oci.manifest import Manifest, check_shape, parse_descriptor, parse_manifest
from orlop.oci.mediatype import INDEX_TYPES, OCI_INDEX
from orlop.oci.platform import Platform
from orlop.oci.strictjson import MalformedDocument

__all__ = [
    "MAX_MANIFESTS",
    "Index",
    "attestations_of",
    "attested_digest",
    "parse_document",
    "parse_index",
    "select",
]

MAX_MANIFESTS = 4096
_DESCRIPTOR_KEYS = ("mediaType", "digest", "size", "urls", "annotations", "data", "artifactType", "platform")
_ATTESTATION = "vnd.docker.reference.type"
_ATTESTED = "vnd.docker.reference.digest"


@dataclass(frozen=True, slots=True)
class Index:
    """Manifests for several platforms under one name."""

    raw: bytes
    media_type: str
    manifests: tuple[Descriptor, ...]
    artifact_type: str | None
    annotations: Mapping[str, str]

    @property
    def digest(self) -> Digest:
        """sha256 of the bytes."""
        return digest_of(self.raw)

    @property
    def descriptor(self) -> Descriptor:
        """What names this index elsewhere."""
        return Descriptor(self.media_type, self.digest, len(self.raw))


def parse_document(data: bytes, media_type: str = "") -> Manifest | Index:
    """Parse what a reference resolved to: an index or a manifest, as its media type says.

    Raises:
        UnsupportedManifest, MalformedDocument, InvalidDigest: as `parse_manifest`.
    """
    _, kind = check_shape(data, media_type)
    return parse_index(data, kind) if kind in INDEX_TYPES else parse_manifest(data, kind)


def parse_index(data: bytes, media_type: str = "") -> Index:
    """Parse an index that was announced as `media_type` (empty: the body decides, OCI by default).

    Raises:
        UnsupportedManifest, MalformedDocument, InvalidDigest: as `parse_manifest`.
    """
    fields, kind = check_shape(data, media_type or ("" if b'"mediaType"' in data else OCI_INDEX))
    if kind not in INDEX_TYPES:
        raise MalformedDocument(f"expected an image index, got {kind}")
    manifests = fields.children("manifests", MAX_MANIFESTS, _DESCRIPTOR_KEYS)
    return Index(
        raw=data,
        media_type=kind,
        manifests=tuple(parse_descriptor(manifest) for manifest in manifests),
        artifact_type=fields.text("artifactType") or None,
        annotations=fields.text_map("annotations", 10_000),
    )


def select(index: Index, wanted: Platform) -> Descriptor | None:
    """The manifest that fits `wanted` best, or None: same variant first, then the highest that runs."""
    fitting = [
        entry
        for entry in index.manifests
        if _ATTESTATION not in entry.annotations
        and entry.platform is not None
        and entry.platform.runs_on(wanted)
    ]
    if not fitting:
        # an index of one image without a platform is how some tools publish single images
        bare = [entry for entry in index.manifests if entry.platform is None]
        return bare[0] if len(index.manifests) == len(bare) == 1 else None
    return max(fitting, key=lambda entry: _fitness(entry.platform, wanted))


def attested_digest(entry: Descriptor) -> str | None:
    """What an attestation manifest of BuildKit is about; None for other manifests."""
    is_attestation = entry.annotations.get(_ATTESTATION) == "attestation-manifest"
    return entry.annotations.get(_ATTESTED, "") if is_attestation else None


def attestations_of(index: Index, manifest: Digest) -> list[Descriptor]:
    """The attestation manifests of one image of the index."""
    return [entry for entry in index.manifests if attested_digest(entry) == manifest]


def _fitness(platform: Platform | None, wanted: Platform) -> tuple[bool, str]:
    variant = platform.variant if platform else ""
    return variant == wanted.variant, variant
