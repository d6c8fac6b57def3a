"""Pull: from a reference to an image in the store.

Order: manifest (verified, then parsed) -> platform -> config -> layers in parallel -> one
transaction for the image row, its names and its sources, all under one lease. A crash at any
step leaves leased parts and partial layers that the next pull uses. The lease is kept when a
pull fails, for the same reason.

The same tag pulled again costs one HEAD, which rate limits do not count.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace

from orlop.aio.scope import Scope
from orlop.base import failpoints
from orlop.base.errors import Kind, OrlopError
from orlop.base.ids import LeaseId
from orlop.images.model import Image, LayerSource
from orlop.images.store import ImageStore
from orlop.oci.descriptor import Descriptor
from orlop.oci.digest import Digest
from orlop.oci.imageconfig import ImageConfig, parse_image_config
from orlop.oci.index import Index, attestations_of, parse_document, parse_index, select
from orlop.oci.manifest import Manifest, UnsupportedManifest
from orlop.oci.mediatype import FOREIGN_LAYER_TYPES, INDEX_TYPES, LAYER_COMPRESSION, MANIFEST_TYPES
from orlop.oci.platform import Platform, host_platform
from orlop.oci.reference import Reference
from orlop.registry.auth import Credentials
from orlop.registry.client import Registry, Repository
from orlop.registry.errors import BadRegistry
from orlop.store.blobs import BlobStore
from orlop.store.leases import Leases
from orlop.transfer.attestations import fetch_attestations
from orlop.transfer.layers import LayerFetcher, LayerSink, unique
from orlop.transfer.progress import Progress, Report, narrate, short

__all__ = ["NoMatchingPlatform", "PullRequest", "Puller"]

_MAX_CONFIG_BYTES = 8 << 20
_MAX_INDEX_DEPTH = 3
_PARTIAL_LEASE_S = 7 * 86_400.0


class NoMatchingPlatform(OrlopError):
    """The image exists, but not for the wanted platform."""

    kind = Kind.NOT_FOUND
    code = "no-matching-platform"


@dataclass(frozen=True, slots=True)
class PullRequest:
    """What to pull, for which platform (None: the host's), with which credentials."""

    reference: Reference
    platform: Platform | None = None
    credentials: Credentials | None = None


@dataclass(frozen=True, slots=True)
class _Found:
    """What a reference led to."""

    top: Descriptor  # what the name points at: index or manifest
    index: bytes | None
    manifest: Manifest


class Puller:
    """Pulls images; one for the whole engine, so that concurrent pulls share layers."""

    def __init__(
        self,
        registry: Registry,
        images: ImageStore,
        blobs: BlobStore,
        layers: LayerSink,
        leases: Leases,
        *,
        concurrency: int = 3,
    ) -> None:
        self._registry = registry
        self._images = images
        self._blobs = blobs
        self._leases = leases
        self._fetcher = LayerFetcher(blobs, layers, leases, concurrency=concurrency)

    async def close(self) -> None:
        """Cancel transfers; what they received stays."""
        await self._fetcher.close()

    def pull(self, request: PullRequest) -> AsyncGenerator[Progress, None]:
        """Pull one image with Docker's progress; nothing is yielded before the manifest is there."""
        return narrate("pull", lambda report: self.fetch(request, report))

    def pull_all_tags(self, request: PullRequest) -> AsyncGenerator[Progress, None]:
        """Pull every tag of a repository."""
        return narrate("pull", lambda report: self._fetch_all(request, report))

    async def fetch(self, request: PullRequest, report: Report = lambda _: None) -> Image:
        """Pull one image and return it.

        Raises:
            NotOnRegistry, NoMatchingPlatform, RegistryError: the registry has no such image.
            UnsupportedManifest: foreign layers, schema 1, an artifact.
            DigestMismatch, MalformedDocument, BadRegistry: what it sent is not what it promised.
            StoreFull: no space; received bytes are kept.
        """
        request = replace(request, reference=request.reference.with_default_tag())
        reference = request.reference
        repository = self._registry.repository(reference, request.credentials)
        heading = Progress(f"Pulling from {reference.path}", reference.tag or "")
        if reference.digest:
            heading = replace(heading, id=str(reference.with_digest(reference.digest)))
        wanted = request.platform or host_platform()
        before = await self._images.find(str(_local_name(reference)), wanted)
        top = await self._current(repository, before, wanted) if before else None
        if before is not None and top is not None:
            report(heading)
            image = before
        else:
            found = await self._find(repository, reference.digest or reference.tag or "latest", wanted)
            report(heading)
            top = found.top.digest
            async with self._leases.hold(
                f"pull {reference}", _PARTIAL_LEASE_S, keep_on_failure=True
            ) as lease:
                image = await self._store(repository, found, request.platform, lease, report)
        await self._images.uses.touch(image.id)
        report(Progress(f"Digest: {top}"))
        is_new = before is None or before.id != image.id
        verdict = "Downloaded newer image for" if is_new else "Image is up to date for"
        report(Progress(f"Status: {verdict} {reference.familiar}"))
        return image

    async def _fetch_all(self, request: PullRequest, report: Report) -> None:
        repository = self._registry.repository(request.reference, request.credentials)
        for tag in await repository.tags():
            await self.fetch(replace(request, reference=request.reference.with_tag(tag)), report)

    async def _store(
        self, repository: Repository, found: _Found, asked: Platform | None, lease: LeaseId, report: Report
    ) -> Image:
        reference = repository.reference
        config = await self._config(repository, found.manifest, asked, lease)
        pairs = list(zip(found.manifest.layers, config.diff_ids, strict=True))
        await self._fetch_layers(repository, unique(pairs), lease, report)
        index = None
        attachments: Sequence[Descriptor] = ()
        if found.index is not None:
            await self._blobs.put(found.index, lease)
            index = found.top
            statements = attestations_of(
                parse_index(found.index, found.top.media_type), found.manifest.digest
            )
            attachments = await fetch_attestations(repository, self._blobs, statements, lease)
        failpoints.hit("pull.before-image-row")
        return await self._images.put(
            config.raw,
            lease=lease,
            manifest=found.manifest.raw,
            media_type=found.manifest.media_type,
            index=index,
            names=_names(reference, found.top.digest),
            sources=[_source(descriptor, diff_id, reference) for descriptor, diff_id in pairs],
            attachments=attachments,
        )

    async def _current(self, repository: Repository, image: Image, wanted: Platform) -> Digest | None:
        """The digest the registry has under the name now, when it is the image's and the image fits."""
        reference = repository.reference
        if not image.config.platform.runs_on(wanted):
            return None
        if reference.digest:
            return reference.digest
        head = await repository.head_manifest(reference.tag or "latest")
        if head is None or reference.with_digest(head.digest) not in {
            *image.repo_digests,
            *image.variant_names,
        }:
            return None
        return head.digest

    async def _find(self, repository: Repository, which: str, wanted: Platform) -> _Found:
        remote = await repository.get_manifest(which)
        document = parse_document(remote.data, _specific(remote.descriptor.media_type))
        top = document.descriptor if ":" not in which else replace(document.descriptor, digest=Digest(which))
        index = document.raw if isinstance(document, Index) else None
        for _ in range(_MAX_INDEX_DEPTH):
            if isinstance(document, Manifest):
                return _Found(top, index, document)
            document = await self._child(repository, document, wanted)
        raise BadRegistry(f"{repository.reference.familiar} is an index within an index without end")

    async def _child(self, repository: Repository, index: Index, wanted: Platform) -> Manifest | Index:
        entry = select(index, wanted)
        if entry is None:
            raise NoMatchingPlatform(
                f"no matching manifest for {wanted} in the manifest list entries",
                hint="this image exists for " + ", ".join(_platforms(index)) if index.manifests else None,
            )
        remote = await repository.get_manifest(entry.digest)
        announced = _specific(remote.descriptor.media_type)
        if len(remote.data) != entry.size_bytes:
            raise BadRegistry(
                f"manifest {entry.digest} has {len(remote.data)} bytes, its index says {entry.size_bytes}"
            )
        if announced and announced != entry.media_type:
            raise BadRegistry(
                f"manifest {entry.digest} comes as {announced}, its index says {entry.media_type}"
            )
        return parse_document(remote.data, entry.media_type)

    async def _config(
        self, repository: Repository, manifest: Manifest, asked: Platform | None, lease: LeaseId
    ) -> ImageConfig:
        _check_image(manifest, repository.reference)
        descriptor = manifest.config
        if await self._blobs.hold(descriptor.digest, lease) is not None:
            data = await self._blobs.read(descriptor.digest, _MAX_CONFIG_BYTES)
        else:
            data = await repository.read_blob(descriptor, _MAX_CONFIG_BYTES)
        config = parse_image_config(data)
        if len(config.diff_ids) != len(manifest.layers):
            raise UnsupportedManifest(
                f"{repository.reference.familiar} has {len(manifest.layers)} layers, "
                f"but its config names {len(config.diff_ids)}"
            )
        if asked is not None and config.platform.os != asked.os:
            raise NoMatchingPlatform(
                f'cannot download image with operating system "{config.platform.os}" '
                f'when requested "{asked.os}"'
            )
        if config.platform.os != "linux":
            raise UnsupportedManifest(
                f'image operating system "{config.platform.os}" cannot be used on this platform'
            )
        return config

    async def _fetch_layers(
        self,
        repository: Repository,
        pairs: Sequence[tuple[Descriptor, Digest]],
        lease: LeaseId,
        report: Report,
    ) -> None:
        missing: list[tuple[Descriptor, Digest]] = []
        for descriptor, diff_id in pairs:
            is_there = await self._fetcher.has(descriptor, diff_id, lease)
            status = "Already exists" if is_there else "Pulling fs layer"
            report(Progress(status, short(descriptor.digest), is_layer=True))
            if not is_there:
                missing.append((descriptor, diff_id))
        async with Scope("pull") as scope:
            for descriptor, diff_id in missing:
                scope.start(
                    self._fetcher.fetch(repository, descriptor, diff_id, lease, report),
                    name=short(descriptor.digest),
                )


def _specific(media_type: str) -> str:
    """The announced type if it says anything; file servers send generic ones."""
    return media_type if media_type in MANIFEST_TYPES | INDEX_TYPES or "manifest" in media_type else ""


def _local_name(reference: Reference) -> Reference:
    return reference.with_digest(reference.digest) if reference.digest else reference


def _names(reference: Reference, top: Digest) -> list[Reference]:
    pinned = reference.with_digest(top)
    if reference.digest is not None or reference.tag is None:
        return [pinned]
    return [reference.with_tag(reference.tag), pinned]


def _source(descriptor: Descriptor, diff_id: Digest, reference: Reference) -> LayerSource:
    return LayerSource(
        diff_id, descriptor.digest, descriptor.media_type, descriptor.size_bytes, reference.name
    )


def _platforms(index: Index) -> list[str]:
    return sorted({str(entry.platform) for entry in index.manifests if entry.platform is not None})[:20]


def _check_image(manifest: Manifest, reference: Reference) -> None:
    if not manifest.is_image:
        raise UnsupportedManifest(
            f"{reference.familiar} is not an image but an artifact of type "
            f"{manifest.artifact_type or manifest.config.media_type!r}"
        )
    if manifest.config.size_bytes > _MAX_CONFIG_BYTES:
        raise UnsupportedManifest(f"{reference.familiar} has a config of {manifest.config.size_bytes} bytes")
    for layer in manifest.layers:
        if layer.media_type in FOREIGN_LAYER_TYPES:
            raise UnsupportedManifest(
                f"{reference.familiar} has a foreign layer ({layer.digest}) that must be fetched from "
                "another server; Orlop never does that",
                hint="ask the publisher for an image whose layers are all in the registry",
            )
        if layer.media_type not in LAYER_COMPRESSION:
            raise UnsupportedManifest(
                f"{reference.familiar} has a layer of unsupported type {layer.media_type[:100]!r}"
            )
