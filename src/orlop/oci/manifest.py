"""Image manifests, parsed once from bytes whose digest is known.

Specs: OCI image-spec, manifest; Docker image manifest v2, schema 2. Bytes are kept as
received: the digest of a manifest is the digest of what the registry sent.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from orlop.base.errors import Kind, OrlopError
from orlop.oci.descriptor import Descriptor
from orlop.oci.digest import Digest, algorithm, digest_of, encoded, parse_digest
from orlop.oci.mediatype import CONFIG_TYPES, DOCKER_MANIFEST, INDEX_TYPES, MANIFEST_TYPES, OCI_MANIFEST
from orlop.oci.platform import Platform, normalize_arch
from orlop.oci.strictjson import Fields, MalformedDocument, decode

__all__ = [
    "MAX_LAYERS",
    "Manifest",
    "UnsupportedManifest",
    "check_shape",
    "parse_descriptor",
    "parse_manifest",
]

MAX_LAYERS = 512
_MAX_ANNOTATIONS = 10_000
_SCHEMA1_TYPES = frozenset(
    {
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    }
)
_KEYS = ("schemaVersion", "mediaType", "artifactType", "config", "layers", "subject", "annotations")
_ALL_KEYS = (*_KEYS, "manifests", "fsLayers", "signatures")
_DESCRIPTOR_KEYS = ("mediaType", "digest", "size", "urls", "annotations", "data", "artifactType", "platform")
_PLATFORM_KEYS = ("architecture", "os", "os.version", "os.features", "variant", "features")


class UnsupportedManifest(OrlopError):
    """A manifest of a kind that nobody should use any more, or that is no image."""

    kind = Kind.UNSUPPORTED
    code = "unsupported-manifest"


@dataclass(frozen=True, slots=True)
class Manifest:
    """One image (or artifact) for one platform."""

    raw: bytes
    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    artifact_type: str | None
    subject: Descriptor | None
    annotations: Mapping[str, str]

    @property
    def digest(self) -> Digest:
        """sha256 of the bytes."""
        return digest_of(self.raw)

    @property
    def descriptor(self) -> Descriptor:
        """What names this manifest elsewhere."""
        return Descriptor(self.media_type, self.digest, len(self.raw))

    @property
    def is_image(self) -> bool:
        """False for artifacts: their config is not an image config."""
        return self.config.media_type in CONFIG_TYPES


def parse_manifest(data: bytes, media_type: str = "") -> Manifest:
    """Parse a manifest that was announced as `media_type` (empty: the body decides).

    Raises:
        UnsupportedManifest: schema 1.
        MalformedDocument: breaks the schema, is an index, or contradicts `media_type`.
    """
    fields, kind = check_shape(data, media_type)
    if kind not in MANIFEST_TYPES:
        raise MalformedDocument(f"expected an image manifest, got {kind}")
    config = fields.child("config", _DESCRIPTOR_KEYS)
    if config is None:
        raise MalformedDocument("manifest: config is missing")
    subject = fields.child("subject", _DESCRIPTOR_KEYS)
    layers = fields.children("layers", MAX_LAYERS, _DESCRIPTOR_KEYS)
    return Manifest(
        raw=data,
        media_type=kind,
        config=parse_descriptor(config),
        layers=tuple(parse_descriptor(layer) for layer in layers),
        artifact_type=fields.text("artifactType") or None,
        subject=None if subject is None else parse_descriptor(subject),
        annotations=fields.text_map("annotations", _MAX_ANNOTATIONS),
    )


def check_shape(data: bytes, media_type: str) -> tuple[Fields, str]:
    """Decode a manifest or index and settle its media type: body and announcement must agree.

    Raises:
        UnsupportedManifest, MalformedDocument: as `parse_manifest`.
    """
    fields = Fields(decode(data, "manifest"), "manifest", _ALL_KEYS)
    version = fields.integer("schemaVersion")
    if media_type in _SCHEMA1_TYPES or version == 1 or "fsLayers" in fields:
        raise UnsupportedManifest(
            "image manifest version 2, schema 1 is not supported",
            hint="ask the publisher to push the image again with a current tool",
        )
    if version != 2:
        raise MalformedDocument("manifest: schemaVersion is not 2")
    if "manifests" in fields and ("layers" in fields or "config" in fields):
        raise MalformedDocument("manifest: the document is both an index and a manifest")
    body = fields.text("mediaType")
    if body and media_type and body != media_type:
        raise MalformedDocument(
            f"manifest: mediaType is {body[:100]!r} but it was announced as {media_type[:100]!r}"
        )
    kind = body or media_type or OCI_MANIFEST
    if not body and kind not in {OCI_MANIFEST, *INDEX_TYPES, DOCKER_MANIFEST}:
        raise MalformedDocument(f"manifest: unknown media type {kind[:100]!r}")
    if kind not in MANIFEST_TYPES | INDEX_TYPES:
        raise MalformedDocument(f"manifest: unknown media type {kind[:100]!r}")
    if (kind in INDEX_TYPES) != ("manifests" in fields) and ("manifests" in fields or "layers" in fields):
        raise MalformedDocument(f"manifest: the content does not fit the media type {kind}")
    return fields, kind


def parse_descriptor(fields: Fields) -> Descriptor:
    """A descriptor; embedded data must have the digest and size it is described with.

    Raises:
        MalformedDocument, InvalidDigest: as named.
    """
    size_bytes = fields.integer("size", -1)
    if size_bytes < 0:
        raise MalformedDocument(f"{fields.where}: size is missing or negative")
    digest = parse_digest(fields.text("digest"))
    if "data" in fields:
        _check_data(fields, digest, size_bytes)
    media_type = fields.text("mediaType")
    if not media_type:
        raise MalformedDocument(f"{fields.where}: mediaType is missing")
    platform = fields.child("platform", _PLATFORM_KEYS)
    return Descriptor(
        media_type=media_type,
        digest=digest,
        size_bytes=size_bytes,
        platform=None if platform is None else _platform(platform),
        annotations=fields.text_map("annotations", _MAX_ANNOTATIONS),
        artifact_type=fields.text("artifactType") or None,
        urls=fields.texts("urls", 1_000) or (),
    )


def _check_data(fields: Fields, digest: Digest, size_bytes: int) -> None:
    try:
        data = base64.b64decode(fields.text("data"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedDocument(f"{fields.where}: data is not base64") from error
    if len(data) != size_bytes or hashlib.new(algorithm(digest), data).hexdigest() != encoded(digest):
        raise MalformedDocument(f"{fields.where}: data is not what digest and size say")


def _platform(fields: Fields) -> Platform:
    arch, variant = normalize_arch(fields.text("architecture"), fields.text("variant"))
    return Platform(
        os=fields.text("os").lower(),
        architecture=arch,
        variant=variant,
        os_version=fields.text("os.version"),
        os_features=fields.texts("os.features", 100) or (),
    )
