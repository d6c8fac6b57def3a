"""Checking what is stored while the engine runs, and healing what rotted from where it came from.

Every layer and blob is hashed. With repair, one whose bytes are not what its name says is set aside
(`quarantine/` in the data root), fetched again from a repository that had it, and verified like a pull.
When no source gives the right bytes, the damaged file goes back: what is still readable in it stays readable.

Crash: between setting aside and healing a row names missing bytes, which the next run finds and heals.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass

from orlop.aio import offload
from orlop.base import log
from orlop.base.errors import Kind, OrlopError
from orlop.images.model import Image, LayerSource
from orlop.images.store import ImageStore
from orlop.oci.descriptor import Descriptor
from orlop.oci.digest import Digest, digest_of
from orlop.oci.reference import Reference, parse_reference
from orlop.registry.client import Registry, Repository
from orlop.store.blobs import BlobStore
from orlop.store.compress import SNIFF_BYTES, Decompressor, layer_decompressor
from orlop.store.files import ensure_directory
from orlop.store.layers import LayerStore
from orlop.store.leases import Leases
from orlop.wire.gojson import field

__all__ = ["CheckLine", "Repairs"]

_MAX_LAYER_BYTES = 100 << 30
_MAX_DOCUMENT_BYTES = 16 << 20
_DAMAGE = (Kind.CORRUPT, Kind.NOT_FOUND)


@dataclass(frozen=True, slots=True)
class CheckLine:
    """One thing that is damaged, and what was done: `damaged`, `healed`, `lost`; or the last line, `done`."""

    status: str
    kind: str = field(default="", omit_empty=True)
    digest: str = field(default="", omit_empty=True)
    detail: str = field(default="", omit_empty=True)
    images: tuple[str, ...] | None = field(default=None, omit_empty=True)
    checked: int = field(default=0, omit_empty=True)


class Repairs:
    """Checks and heals; one per engine."""

    def __init__(
        self,
        data_root: str,
        images: ImageStore,
        blobs: BlobStore,
        layers: LayerStore,
        leases: Leases,
        registry: Registry,
    ) -> None:
        self._quarantine = os.path.join(data_root, "quarantine")
        self._images = images
        self._blobs = blobs
        self._layers = layers
        self._leases = leases
        self._registry = registry

    async def check(self, *, repairs: bool) -> AsyncIterator[CheckLine]:
        """Hash every layer and every document of images.

        Args:
            repairs: fetch again what is damaged.
        """
        images = await self._images.list()
        checked = 0
        for info in await self._layers.list():
            checked += 1
            error = await _fault(self._layers.verify, info.diff_id)
            if error is not None:
                users = [image for image in images if info.diff_id in image.diff_ids]
                yield await self._treat("layer", info.diff_id, error, users, repairs=repairs)
        for digest, users in (await self._documents(images)).items():
            checked += 1
            error = await _fault(self._blobs.verify, digest)
            if error is not None:
                yield await self._treat("blob", digest, error, users, repairs=repairs)
        yield CheckLine("done", checked=checked)

    async def _documents(self, images: Sequence[Image]) -> dict[Digest, list[Image]]:
        """Configs, manifests, indexes and attestations, and the images that have them."""
        found: dict[Digest, list[Image]] = {}
        for image in images:
            digests = {image.id, *(item.digest for item in (image.manifest, image.index) if item is not None)}
            for digest in sorted(digests | (await self._images.attachments(image.id)).keys()):
                found.setdefault(digest, []).append(image)
        return found

    async def _treat(
        self, kind: str, digest: Digest, error: OrlopError, users: Sequence[Image], *, repairs: bool
    ) -> CheckLine:
        names = tuple(sorted({name.familiar for image in users for name in image.names})) or None
        log.error("stored bytes are damaged", kind=kind, digest=digest, error=error)
        if not repairs:
            return CheckLine("damaged", kind, digest, str(error), names)
        path = self._layers.path(digest) if kind == "layer" else self._blobs.path(digest)
        aside = await offload.thread(self._set_aside, path)
        try:
            source = await (self._heal_layer(digest) if kind == "layer" else self._heal_blob(digest, users))
        except BaseException:
            await offload.thread(_put_back, aside, path)
            raise
        if source:
            log.info("damage healed", kind=kind, digest=digest, source=source)
            return CheckLine("healed", kind, digest, f"fetched again from {source}", names)
        await offload.thread(_put_back, aside, path)
        detail = f"{error}; no source has it: pull or build the image again"
        return CheckLine("lost", kind, digest, detail, names)

    async def _heal_layer(self, diff_id: Digest) -> str:
        """Fetch a layer from any repository that had it; which one, or ""."""
        for form in await self._images.sources(diff_id):
            if not form.repository:
                continue
            try:
                await self._fetch_layer(form)
            except OrlopError as error:
                log.warning("cannot heal from here", source=form.repository, digest=diff_id, error=str(error))
                continue
            return form.repository
        return ""

    async def _fetch_layer(self, form: LayerSource) -> None:
        repository = self._registry.repository(parse_reference(form.repository))
        descriptor = Descriptor(form.media_type, form.digest, form.size_bytes)
        await self._layers.release(form.diff_id)  # who has it mounted keeps the damaged one until it ends
        inflate: Decompressor | None = None
        head = b""
        async with self._leases.hold(f"repair {form.diff_id}") as lease, self._layers.writer(lease) as writer:
            async with aclosing(repository.blob(descriptor)) as pieces:
                async for piece in pieces:
                    head = head + bytes(piece)
                    if inflate is None and len(head) < min(SNIFF_BYTES, form.size_bytes):
                        continue
                    inflate = inflate or layer_decompressor(form.media_type, head, _MAX_LAYER_BYTES)
                    plain = inflate.feed(head)
                    head = b""
                    while (part := await offload.thread(next, plain, None)) is not None:
                        await writer.write(part)
            if inflate is not None:
                inflate.finish()
            await writer.commit(form.diff_id)

    async def _heal_blob(self, digest: Digest, users: Sequence[Image]) -> str:
        """Fetch a config, a manifest or an index from a repository that an image is named after."""
        for name in dict.fromkeys(_repositories(users)):
            repository = self._registry.repository(name)
            for fetch in (_read_config, _read_manifest):
                with suppress(OrlopError):
                    data = await fetch(repository, digest)
                    if digest_of(data) == digest:
                        await self._blobs.restore(digest, data)
                        return name.name
        return ""

    def _set_aside(self, path: str) -> str:
        ensure_directory(self._quarantine)
        aside = os.path.join(self._quarantine, os.path.basename(path))
        with suppress(FileNotFoundError):
            os.rename(path, aside)
        return aside


async def _read_config(repository: Repository, digest: Digest) -> bytes:
    size = await repository.find_blob(digest)
    descriptor = Descriptor("application/octet-stream", digest, size or 0)
    return await repository.read_blob(descriptor, _MAX_DOCUMENT_BYTES)


async def _read_manifest(repository: Repository, digest: Digest) -> bytes:
    return (await repository.get_manifest(digest)).data


async def _fault(verify: Callable[[Digest], Awaitable[None]], digest: Digest) -> OrlopError | None:
    try:
        await verify(digest)
    except OrlopError as error:
        if error.kind not in _DAMAGE:
            raise
        return error
    return None


def _put_back(aside: str, path: str) -> None:
    with suppress(FileNotFoundError):
        if not os.path.lexists(path):
            os.rename(aside, path)


def _repositories(images: Sequence[Image]) -> list[Reference]:
    return [parse_reference(name.name) for image in images for name in (*image.repo_digests, *image.tags)]
