"""What a registry must know of a manifest: what it names, what it is about, how it is listed.

Pure. The bytes are kept as they came; nothing is ever encoded again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from orlop.base.errors import OrlopError
from orlop.oci.descriptor import Descriptor
from orlop.oci.digest import Digest, algorithm
from orlop.oci.index import MAX_MANIFESTS
from orlop.oci.manifest import MAX_LAYERS, check_shape, parse_descriptor
from orlop.oci.mediatype import FOREIGN_LAYER_TYPES, INDEX_TYPES
from orlop.oci.strictjson import Fields, MalformedDocument
from orlop.registryd.problems import Problem, Word

__all__ = ["MAX_MANIFEST_BYTES", "Document", "digest_as", "parse_manifest_document"]

MAX_MANIFEST_BYTES = 4 << 20  # OCI distribution-spec, "Pushing Manifests"
_KEYS = ("mediaType", "digest", "size", "urls", "annotations", "data", "artifactType", "platform")
_MAX_ANNOTATIONS = 10_000


@dataclass(frozen=True, slots=True)
class Document:
    """A manifest or index that was pushed."""

    data: bytes
    media_type: str
    digest: Digest
    blobs: tuple[Descriptor, ...]
    foreign: frozenset[Digest]  # blobs that are stored elsewhere and need not be here
    manifests: tuple[Descriptor, ...]
    subject: Digest | None
    artifact_type: str
    annotations: Mapping[str, str]


def parse_manifest_document(data: bytes, content_type: str, digest: Digest) -> Document:
    """Read a manifest that is about to be stored under `digest`.

    Raises:
        Problem: MANIFEST_INVALID, with the place that is wrong.
    """
    try:
        return _parse(data, content_type.partition(";")[0].strip(), digest)
    except Problem:
        raise
    except OrlopError as error:
        raise Problem(Word.MANIFEST_INVALID, str(error)) from error


def digest_as(name: str, data: bytes) -> Digest:
    """The digest of bytes in memory by the algorithm `name`, which a checked digest names."""
    return Digest(f"{name}:{hashlib.new(name, data).hexdigest()}")


def _parse(data: bytes, content_type: str, digest: Digest) -> Document:
    if digest_as(algorithm(digest), data) != digest:
        raise Problem(Word.DIGEST_INVALID, f"the manifest is not what its digest {digest} says")
    fields, kind = check_shape(data, content_type)
    is_index = kind in INDEX_TYPES
    config = None if is_index else _config(fields)
    layers = [] if is_index else _descriptors(fields, "layers", MAX_LAYERS)
    children = _descriptors(fields, "manifests", MAX_MANIFESTS) if is_index else []
    subject = fields.child("subject", _KEYS)
    blobs = [*([config] if config else []), *layers]
    foreign = (blob.digest for blob in layers if blob.urls or blob.media_type in FOREIGN_LAYER_TYPES)
    return Document(
        data=data,
        media_type=kind,
        digest=digest,
        blobs=tuple(blobs),
        foreign=frozenset(foreign),
        manifests=tuple(children),
        subject=None if subject is None else parse_descriptor(subject).digest,
        artifact_type=fields.text("artifactType") or (config.media_type if config else ""),
        annotations=fields.text_map("annotations", _MAX_ANNOTATIONS),
    )


def _config(fields: Fields) -> Descriptor:
    config = fields.child("config", _KEYS)
    if config is None:
        raise MalformedDocument("manifest: config is missing")
    return parse_descriptor(config)


def _descriptors(fields: Fields, key: str, limit: int) -> list[Descriptor]:
    return [parse_descriptor(entry) for entry in fields.children(key, limit, _KEYS)]
