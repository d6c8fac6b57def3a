"""Descriptors: media type, digest and size of content stored elsewhere.

Spec: OCI image-spec, descriptor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from orlop.oci.digest import Digest
from orlop.oci.platform import Platform

__all__ = ["Descriptor"]


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A typed, sized pointer to bytes."""

    media_type: str
    digest: Digest
    size_bytes: int
    platform: Platform | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    artifact_type: str | None = None
    urls: tuple[str, ...] = ()
