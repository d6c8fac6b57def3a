"""Push: layers in parallel, then config, then manifest, then the name.

The stored manifest is pushed byte for byte when the target ends up with exactly the blobs it
names. When a layer had to be compressed anew, a manifest is made once and kept with the image,
so that the next push of the image, anywhere, starts from it. What was sent or found where is
recorded as sources of the layers.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from orlop.aio.scope import Scope
from orlop.base import failpoints
from orlop.base.errors import Kind, NotFound, OrlopError
from orlop.base.ids import LeaseId
from orlop.images.model import Image, LayerSource
from orlop.images.store import ImageStore
from orlop.oci.descriptor import Descriptor
from orlop.oci.digest import Digest, digest_of
from orlop.oci.index import Index, parse_index
from orlop.oci.manifest import Manifest, parse_manifest
from orlop.oci.mediatype import (
    DOCKER_CONFIG,
    DOCKER_LAYER_GZIP,
    DOCKER_MANIFEST,
    LAYER_COMPRESSION,
    OCI_CONFIG,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
)
from orlop.oci.platform import Platform
from orlop.oci.reference import Reference
from orlop.registry.auth import Credentials
from orlop.registry.client import MAX_MANIFEST_BYTES, Registry, Repository
from orlop.store.blobs import BlobStore
from orlop.store.leases import Leases
from orlop.transfer.outgoing import BytesSource, LayerFiles, LayerSender
from orlop.transfer.progress import Progress, Report, narrate, short

__all__ = ["NotPushable", "NothingToPush", "PushRequest", "Pusher"]


class NothingToPush(NotFound):
    """No local image has this name."""

    code = "nothing-to-push"


class NotPushable(OrlopError):
    """A reference that cannot be pushed to."""

    kind = Kind.INVALID
    code = "not-pushable"


@dataclass(frozen=True, slots=True)
class PushRequest:
    """Where to push; without a tag, every tag of the repository when `all_tags`, else `latest`."""

    reference: Reference
    credentials: Credentials | None = None
    all_tags: bool = False
    platform: Platform | None = None  # push the image for this platform alone


class Pusher:
    """Pushes images."""

    def __init__(
        self,
        registry: Registry,
        images: ImageStore,
        blobs: BlobStore,
        layers: LayerFiles,
        leases: Leases,
        *,
        concurrency: int = 5,
    ) -> None:
        self._registry = registry
        self._images = images
        self._blobs = blobs
        self._layers = layers
        self._leases = leases
        self._slots = asyncio.Semaphore(concurrency)

    def push(self, request: PushRequest) -> AsyncGenerator[Progress, None]:
        """Push with Docker's progress.

        Raises:
            NothingToPush, NotPushable: as named, after the first line as Docker does it.
            RegistryError and the errors of `HttpClient.request`: the registry's fault or refusal.
        """
        return narrate("push", lambda report: self._push(request, report))

    async def _push(self, request: PushRequest, report: Report) -> None:
        reference = request.reference
        if reference.digest is not None:
            raise NotPushable("cannot push a digest reference")
        report(Progress(f"The push refers to repository [{reference.name}]"))
        found = await self._select(reference, all_tags=request.all_tags)
        target = self._registry.repository(reference, request.credentials, for_push=True)
        for image, name in found:
            async with self._leases.hold(f"push {name}") as lease:
                await self._push_name(image, name, target, request, lease, report)

    async def _push_name(
        self,
        image: Image,
        name: Reference,
        target: Repository,
        request: PushRequest,
        lease: LeaseId,
        report: Report,
    ) -> None:
        """Push what a name stands for: the index if all of it is here or there, else one image."""
        variants = await self._images.variants(name)
        if request.platform is not None:
            image = _fitting([image, *variants], request.platform, name)
        whole = None if request.platform else await self._find_whole(image, variants, target, report)
        for one in (image, *variants) if whole else (image,):
            await self._images.hold(one.id, lease)
        manifest = await self._push_image(image, name, target, request.credentials, report)
        top: Manifest | Index = manifest
        if whole is not None:
            pushed = {manifest.digest: manifest}
            for one in variants:
                other = await self._push_image(one, name, target, request.credentials, report)
                pushed[other.digest] = other
            if all(one.manifest and one.manifest.digest in pushed for one in (image, *variants)):
                for other in pushed.values():
                    await _put_by_digest(target, other)
                await self._push_attachments((image, *variants), whole, target)
                top = whole
        failpoints.hit("push.before-manifest")
        await target.put_manifest(name.tag or "latest", top.raw, top.media_type)
        await self._images.add_digest(name, name.with_digest(top.digest))
        size = len(top.raw)
        report(Progress(f"{name.tag}: digest: {top.digest} size: {size}"))
        report(Progress(aux={"Tag": name.tag, "Digest": top.digest, "Size": size}))

    async def _find_whole(
        self, image: Image, variants: Sequence[Image], target: Repository, report: Report
    ) -> Index | None:
        """The index that the image came from, if every manifest in it is here or at the target."""
        if image.index is None or image.manifest is None:
            return None
        index = parse_index(await self._images.read_document(image.index), image.index.media_type)
        here = {one.manifest.digest for one in (image, *variants) if one.manifest is not None}
        for one in (image, *variants):
            here |= set(await self._images.attachments(one.id))
        for entry in index.manifests:
            if entry.digest not in here and await target.head_manifest(entry.digest) is None:
                aux = {  # docker CLI explains this to its user
                    "manifestPushedInsteadOfIndex": True,
                    "originalIndex": _descriptor_json(index.descriptor),
                    "selectedManifest": _descriptor_json(image.manifest),
                }
                report(Progress(aux=aux))
                return None
        return index

    async def _push_attachments(self, images: Sequence[Image], index: Index, target: Repository) -> None:
        """Push the attestation manifests that are kept."""
        kept: dict[Digest, Descriptor] = {}
        for image in images:
            kept |= await self._images.attachments(image.id)
        for entry in index.manifests:
            if entry.digest not in kept or await target.head_manifest(entry.digest) is not None:
                continue
            manifest = parse_manifest(await self._images.read_document(kept[entry.digest]), entry.media_type)
            for part in (manifest.config, *manifest.layers):
                if await target.find_blob(part.digest) is None and part.digest in kept:
                    await target.upload(BytesSource(await self._images.read_document(kept[part.digest])))
            await target.put_manifest(manifest.digest, manifest.raw, manifest.media_type)

    async def _select(self, reference: Reference, *, all_tags: bool) -> list[tuple[Image, Reference]]:
        named = [
            (image, tag)
            for image in await self._images.list()
            for tag in image.tags
            if tag.name == reference.name
        ]
        if not named:  # docker CLI shows this text
            raise NothingToPush(f"An image does not exist locally with the tag: {reference.familiar_name}")
        if all_tags and reference.tag is None:
            return sorted(named, key=lambda pair: pair[1].tag or "")
        wanted = reference.with_default_tag()
        chosen = [pair for pair in named if pair[1] == wanted]
        if not chosen:
            raise NothingToPush(f"tag does not exist: {wanted.familiar}")
        return chosen

    async def _push_image(
        self,
        image: Image,
        name: Reference,
        target: Repository,
        credentials: Credentials | None,
        report: Report,
    ) -> Manifest:
        """Make the target have the layers and the config of an image; the manifest that names them."""
        stored = await self._stored_manifest(image)
        gzip_type = OCI_LAYER_GZIP if stored and stored.media_type == OCI_MANIFEST else DOCKER_LAYER_GZIP
        sender = LayerSender(self._registry, target, credentials, self._blobs, self._layers)
        sent: dict[Digest, list[LayerSource]] = {}

        async def send(diff_id: Digest) -> None:
            if self._slots.locked():
                report(Progress("Waiting", short(diff_id), is_layer=True))
            async with self._slots:
                forms = await self._forms(stored, image, diff_id)
                sent[diff_id] = await sender.send(diff_id, forms, gzip_type, report)
            failpoints.hit("push.layer.sent")

        layers = list(dict.fromkeys(reversed(image.diff_ids)))  # topmost first, as Docker lists them
        for diff_id in layers:
            report(Progress("Preparing", short(diff_id), is_layer=True))
        try:
            async with Scope("push") as scope:
                for diff_id in layers:
                    scope.start(send(diff_id), name=short(diff_id))
        finally:
            # also after a failure: what has arrived need not be sent again
            await self._images.record_sources([form for forms in sent.values() for form in forms])
        manifest = await self._settle_manifest(image, stored, [sent[item][0] for item in image.diff_ids])
        config = BytesSource(image.config.raw)
        if await target.find_blob(config.digest) is None:
            await target.upload(config)
        if stored is not None and stored.digest != manifest.digest:
            anew = sum(layer.digest not in _digests(stored) for layer in manifest.layers)
            report(
                Progress(
                    f"{name.familiar}: the digest changes from {stored.digest} to {manifest.digest}: the "
                    f"original compressed bytes of {anew} of {len(manifest.layers)} layers cannot be had"
                )
            )
        return manifest

    async def _stored_manifest(self, image: Image) -> Manifest | None:
        if image.manifest is None:
            return None
        data = await self._blobs.read(image.manifest.digest, MAX_MANIFEST_BYTES)
        return parse_manifest(data, image.manifest.media_type)

    async def _forms(self, stored: Manifest | None, image: Image, diff_id: Digest) -> list[LayerSource]:
        """Known forms of a layer, those that the stored manifest names first."""
        known = list(await self._images.sources(diff_id))
        if stored is None:
            return known
        named = stored.layers[image.diff_ids.index(diff_id)]
        preferred = [form for form in known if form.digest == named.digest]
        if not preferred:
            preferred = [LayerSource(diff_id, named.digest, named.media_type, named.size_bytes)]
        return preferred + [form for form in known if form.digest != named.digest]

    async def _settle_manifest(
        self, image: Image, stored: Manifest | None, forms: Sequence[LayerSource]
    ) -> Manifest:
        """The stored manifest if it names just these forms, else a new one, which is kept."""
        if stored is not None and [layer.digest for layer in stored.layers] == [f.digest for f in forms]:
            return stored
        made = parse_manifest(_make_manifest(image, forms))
        async with self._leases.hold(f"manifest of {image.id}") as lease:
            await self._images.hold(image.id, lease)
            await self._images.put(
                image.config.raw, lease=lease, manifest=made.raw, media_type=made.media_type
            )
        return made


def _digests(manifest: Manifest) -> set[Digest]:
    return {layer.digest for layer in manifest.layers}


def _fitting(images: Sequence[Image], platform: Platform, name: Reference) -> Image:
    for image in images:
        if image.config.platform.runs_on(platform):
            return image
    raise NotPushable(
        f"{name.familiar} has no image for {platform} here",
        hint="it has " + ", ".join(str(image.config.platform) for image in images),
    )


async def _put_by_digest(target: Repository, manifest: Manifest) -> None:
    if await target.head_manifest(manifest.digest) is None:
        await target.put_manifest(manifest.digest, manifest.raw, manifest.media_type)


def _descriptor_json(descriptor: Descriptor) -> dict[str, object]:
    return {
        "mediaType": descriptor.media_type,
        "digest": descriptor.digest,
        "size": descriptor.size_bytes,
    }


def _make_manifest(image: Image, forms: Sequence[LayerSource]) -> bytes:
    """A Docker schema 2 manifest, or an OCI one when a layer has no Docker type."""
    is_docker = all(LAYER_COMPRESSION.get(form.media_type) == "gzip" for form in forms)
    layer_type = {"gzip": DOCKER_LAYER_GZIP if is_docker else OCI_LAYER_GZIP}
    layers = [
        {
            "mediaType": layer_type.get(LAYER_COMPRESSION.get(form.media_type, ""), form.media_type),
            "size": form.size_bytes,
            "digest": form.digest,
        }
        for form in forms
    ]
    config = {
        "mediaType": DOCKER_CONFIG if is_docker else OCI_CONFIG,
        "size": len(image.config.raw),
        "digest": digest_of(image.config.raw),
    }
    document = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST if is_docker else OCI_MANIFEST,
        "config": config,
        "layers": layers,
    }
    return json.dumps(document, separators=(",", ":")).encode()
