"""Attestations that an index has beside an image: statements about it, kept as they came.

They are signed or unsigned JSON (in-toto), never unpacked and never needed to run the image. So one that
is too large, or that the registry does not have, is left out with a warning, and the pull goes on.

Spec: BuildKit, "Image attestation storage".
"""

from __future__ import annotations

from collections.abc import Sequence

from orlop.base import log
from orlop.base.errors import OrlopError
from orlop.base.ids import LeaseId
from orlop.oci.descriptor import Descriptor
from orlop.oci.digest import algorithm
from orlop.oci.manifest import parse_manifest
from orlop.registry.client import MAX_MANIFEST_BYTES, Repository
from orlop.store.blobs import BlobStore

__all__ = ["fetch_attestations"]

_MAX_STATEMENTS = 8  # attestation manifests of one image
_MAX_PART_BYTES = 16 << 20
_MAX_BYTES = 48 << 20  # in all


async def fetch_attestations(
    repository: Repository, blobs: BlobStore, statements: Sequence[Descriptor], lease: LeaseId
) -> list[Descriptor]:
    """Fetch attestation manifests with their configs and layers; returns what is stored now.

    Raises:
        OrlopError: only for faults of our own disk.
    """
    kept: list[Descriptor] = []
    left = _MAX_BYTES
    for statement in statements[:_MAX_STATEMENTS]:
        try:
            parts = await _fetch(repository, blobs, statement, left)
        except OrlopError as error:
            log.warning("attestation left out", digest=statement.digest, error=str(error))
            continue
        if parts is None:
            log.warning("attestation left out: too large, or no sha256", digest=statement.digest)
            continue
        for descriptor, data in parts:
            left -= len(data)
            await blobs.put(data, lease)
            kept.append(descriptor)
    return kept


async def _fetch(
    repository: Repository, blobs: BlobStore, statement: Descriptor, budget: int
) -> list[tuple[Descriptor, bytes]] | None:
    """All bytes of one attestation; None when they cannot be kept."""
    if statement.size_bytes > MAX_MANIFEST_BYTES:
        return None
    if await blobs.find(statement.digest) is not None:
        data = await blobs.read(statement.digest, MAX_MANIFEST_BYTES)
    else:
        data = (await repository.get_manifest(statement.digest)).data
    manifest = parse_manifest(data, statement.media_type)
    wanted = {item.digest: item for item in (manifest.config, *manifest.layers)}
    sizes = [item.size_bytes for item in wanted.values()]
    if any(algorithm(item) != "sha256" for item in (statement.digest, *wanted)):
        return None  # blobs made here have one name, and it is a sha256
    if max(sizes) > _MAX_PART_BYTES or sum(sizes) + len(data) > budget:
        return None
    parts = [(Descriptor(statement.media_type, statement.digest, len(data)), data)]
    for item in wanted.values():
        if await blobs.find(item.digest) is not None:
            part = await blobs.read(item.digest, _MAX_PART_BYTES)
        else:
            part = await repository.read_blob(item, _MAX_PART_BYTES)
        parts.append((Descriptor(item.media_type, item.digest, len(part)), part))
    return parts
