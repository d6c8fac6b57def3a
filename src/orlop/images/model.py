"""Images as values, the layers they lie on, and how looking one up fails.

An *image* is a config with the layers it names; its id is the config's digest. Names
(tags and repository digests) point at images; manifests and indexes that described an
image are kept beside it byte for byte.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from orlop.base.errors import InvalidInput, Kind, NotFound, OrlopError
from orlop.base.ids import LeaseId
from orlop.oci.descriptor import Descriptor
from orlop.oci.digest import Digest, encoded
from orlop.oci.imageconfig import ImageConfig
from orlop.oci.reference import Reference

__all__ = [
    "AmbiguousImage",
    "Image",
    "ImageBroken",
    "ImageNotFound",
    "LayerFacts",
    "LayerSource",
    "LayerWriting",
    "Layers",
    "short_id",
]


class ImageNotFound(NotFound):
    """No image has this name or id."""

    code = "image-not-found"


class AmbiguousImage(InvalidInput):
    """A short id begins several image ids."""

    code = "ambiguous-image"


class ImageBroken(OrlopError):
    """An image's parts do not belong together: config, manifest and layers disagree."""

    kind = Kind.INVALID
    code = "image-broken"


@dataclass(frozen=True, slots=True)
class LayerSource:
    """A compressed form of a layer and the repository it can be fetched from (empty: none)."""

    diff_id: Digest
    digest: Digest
    media_type: str
    size_bytes: int
    repository: str = ""


@dataclass(frozen=True, slots=True)
class Image:
    """An immutable view of a stored image."""

    id: Digest
    config: ImageConfig
    manifest: Descriptor | None
    tags: tuple[Reference, ...]
    repo_digests: tuple[Reference, ...]
    layer_sizes: tuple[int, ...]  # bytes of files, bottom first
    created_ns: int
    stored_ns: int
    tagged_ns: int  # 0: never
    parent: str = ""
    index: Descriptor | None = None  # the index it was chosen from
    variant_names: tuple[Reference, ...] = ()  # names that mean another image unless a platform is given

    @property
    def diff_ids(self) -> tuple[Digest, ...]:
        """Its layers, bottom first."""
        return self.config.diff_ids

    @property
    def size_bytes(self) -> int:
        """The files of all its layers."""
        return sum(self.layer_sizes)

    @property
    def names(self) -> tuple[Reference, ...]:
        """Tags, then repository digests."""
        return self.tags + self.repo_digests

    @property
    def is_named(self) -> bool:
        """False for an image that only its id leads to."""
        return bool(self.tags or self.repo_digests or self.variant_names)

    @property
    def target(self) -> Descriptor | None:
        """What its names point at in a registry: the index, or the manifest."""
        return self.index or self.manifest


class LayerFacts(Protocol):
    """What images ask about a layer."""

    @property
    def diff_id(self) -> Digest:
        """The digest of its tar."""

    @property
    def content_bytes(self) -> int:
        """Bytes of its files."""

    @property
    def size_bytes(self) -> int:
        """Bytes of its tar."""


class LayerWriting(Protocol):
    """A layer being stored: plain tar in."""

    async def write(self, data: bytes | memoryview, /) -> None:
        """Append tar bytes."""

    async def commit(self, expected: Digest | None = None, /) -> LayerFacts:
        """Make it a layer; refused when its digest is not the expected one."""


class Layers(Protocol):
    """The layer store, as far as images use it: see store.layers."""

    async def info(self, diff_id: Digest) -> LayerFacts:
        """Facts of a stored layer, or NotFound."""

    async def hold(self, diff_id: Digest, lease: LeaseId) -> LayerFacts | None:
        """Find a layer and hold it at once."""

    def open(self, diff_id: Digest) -> tuple[int, int, int]:
        """(fd, offset, size) of the tar inside the layer file; the caller closes the fd."""

    def writer(self, lease: LeaseId) -> AbstractAsyncContextManager[LayerWriting]:
        """Store a new layer, held by `lease`."""


def short_id(digest: Digest) -> str:
    """The twelve digits that people see."""
    return encoded(digest)[:12]
