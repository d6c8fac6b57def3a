"""Layers on their way out: find a compressed form the target has, can mount, or must be sent.

A *form* of a layer is a compressed blob known to inflate to it. The cheapest way is taken:

    1. the target repository has a known form                  -> "Layer already exists"
    2. another repository of the same registry has one         -> mounted
    3. a form is kept as a blob, or can be fetched again       -> streamed from there
    4. the layer is compressed while it is sent, and the resulting digest is remembered

so that the next push of the layer finds it in step 1 and sends nothing. Compression is
deterministic, which is what makes an interrupted upload resumable without keeping the blob.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Protocol

from orlop.aio import offload
from orlop.base import log, trace
from orlop.base.errors import Kind, OrlopError
from orlop.images.model import LayerSource
from orlop.oci.descriptor import Descriptor
from orlop.oci.digest import Digest, algorithm, digest_of, encoded, new_hasher
from orlop.oci.mediatype import LAYER_COMPRESSION
from orlop.oci.reference import Reference, parse_reference
from orlop.registry.auth import Credentials
from orlop.registry.client import Registry, Repository
from orlop.store.blobs import BlobStore
from orlop.store.compress import compressor
from orlop.transfer.progress import Meter, Progress, Report, short

__all__ = ["BytesSource", "LayerDamaged", "LayerFiles", "LayerSender"]

_CHUNK_BYTES = 1 << 20
_MAX_FORMS = 6  # more old forms than that are not worth a question each


class LayerDamaged(OrlopError):
    """A stored layer is not what its name says; it is never pushed."""

    kind = Kind.CORRUPT
    code = "layer-damaged"
    remedy = "remove the image and pull or build it again; orlop fsck tells what else is damaged"


class LayerFiles(Protocol):
    """The layer store as pushes use it: see store.layers."""

    def open(self, diff_id: Digest) -> tuple[int, int, int]:
        """(fd, offset, size) of the tar inside the layer file; the caller closes the fd."""


class BytesSource:
    """A document in memory as something to upload."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size_bytes = len(data)
        self.digest = digest_of(data)

    async def chunks(self, offset: int) -> AsyncIterator[bytes]:
        """The bytes from `offset` on."""
        yield self._data[offset:]


class _FileSource:
    """A kept blob."""

    def __init__(self, fd: int, descriptor: Descriptor) -> None:
        self._fd = fd
        self.size_bytes = descriptor.size_bytes
        self.digest = descriptor.digest

    async def chunks(self, offset: int) -> AsyncIterator[bytes]:
        async with aclosing(_read(self._fd, offset, self.size_bytes - offset)) as chunks:
            async for chunk in chunks:
                yield chunk


class _SourceFailed(Exception):
    pass


class _RemoteSource:
    """A form that a registry has, passed on as it comes."""

    def __init__(self, repository: Repository, descriptor: Descriptor) -> None:
        self._repository = repository
        self._descriptor = descriptor
        self.size_bytes = descriptor.size_bytes
        self.digest = descriptor.digest

    async def chunks(self, offset: int) -> AsyncIterator[memoryview]:
        try:
            async with aclosing(self._repository.blob(self._descriptor, offset)) as pieces:
                async for piece in pieces:
                    yield piece
        except OrlopError as error:
            raise _SourceFailed(str(error)) from error


class _CompressedSource:
    """The layer's tar, compressed on the way; the tar is verified in passing."""

    def __init__(self, layers: LayerFiles, diff_id: Digest) -> None:
        self._layers = layers
        self._diff_id = diff_id
        self.size_bytes: int | None = None
        self.digest = Digest("")

    async def chunks(self, offset: int) -> AsyncIterator[bytes]:
        fd, start, size = self._layers.open(self._diff_id)
        try:
            tar = new_hasher(algorithm(self._diff_id))
            blob, done = new_hasher(), 0
            gzip = compressor("gzip")

            def compress(chunk: bytes) -> bytes:
                tar.update(chunk)
                data = gzip.feed(chunk)
                blob.update(data)
                return data

            async with aclosing(_read(fd, start, size)) as chunks:
                async for chunk in chunks:
                    data = await offload.thread(compress, chunk)
                    rest = data[max(0, offset - done) :]
                    done += len(data)
                    if rest:
                        yield rest
            if tar.hexdigest() != encoded(self._diff_id):
                raise LayerDamaged(f"layer {self._diff_id} is damaged", hint="pull or build the image again")
            data = gzip.finish()
            blob.update(data)
            rest = data[max(0, offset - done) :]
            self.digest = Digest(f"sha256:{blob.hexdigest()}")
            yield rest
            self.size_bytes = done + len(data)
        finally:
            os.close(fd)


class LayerSender:
    """Sends layers of one push to one repository."""

    def __init__(
        self,
        registry: Registry,
        target: Repository,
        credentials: Credentials | None,
        blobs: BlobStore,
        layers: LayerFiles,
    ) -> None:
        self._registry = registry
        self._target = target
        self._credentials = credentials
        self._blobs = blobs
        self._layers = layers

    async def send(
        self, diff_id: Digest, forms: Sequence[LayerSource], gzip_type: str, report: Report
    ) -> list[LayerSource]:
        """Make the target have one form of the layer.

        Args:
            diff_id: the layer.
            forms: known forms, the most wanted first (the one the stored manifest names).
            gzip_type: media type of a form that is made here.
            report: told Docker's statuses.

        Returns:
            What is to be recorded; the first one is the form that the target has now.
        """
        identifier = short(diff_id)
        for form in _distinct(forms):
            if await self._target.find_blob(form.digest) == form.size_bytes:
                report(Progress("Layer already exists", identifier, is_layer=True))
                return [self._at_target(form)]
        for form in forms:
            origin = self._mountable(form)
            if origin is not None and await self._target.mount(form.digest, origin.path):
                report(Progress(f"Mounted from {origin.path}", identifier, is_layer=True))
                return [self._at_target(form)]
        for form in forms:
            with trace.span("push.layer", digest=diff_id):
                is_there = await self._forward(form, identifier, report)
            if is_there:
                return [self._at_target(form)]
        source = _CompressedSource(self._layers, diff_id)
        meter = Meter(report, identifier, "Pushing", self._expected_size(diff_id, forms))
        with trace.span("push.layer", digest=diff_id):
            await self._target.upload(source, sent=meter.at)
        assert source.size_bytes is not None
        report(Progress("Pushed", identifier, is_layer=True))
        made = LayerSource(diff_id, source.digest, gzip_type, source.size_bytes)
        return [self._at_target(made), made]

    def _at_target(self, form: LayerSource) -> LayerSource:
        return LayerSource(
            form.diff_id, form.digest, form.media_type, form.size_bytes, self._target.reference.name
        )

    def _mountable(self, form: LayerSource) -> Reference | None:
        origin = _origin(form)
        target = self._target.reference
        if origin is None or origin.domain != target.domain or origin.path == target.path:
            return None
        return origin

    async def _forward(self, form: LayerSource, identifier: str, report: Report) -> bool:
        """Send this very form if its bytes can be had; False when they cannot."""
        descriptor = Descriptor(form.media_type, form.digest, form.size_bytes)
        meter = Meter(report, identifier, "Pushing", form.size_bytes)
        if await self._blobs.find(form.digest) is not None:
            fd = self._blobs.open(form.digest)
            try:
                await self._target.upload(_FileSource(fd, descriptor), sent=meter.at)
            finally:
                os.close(fd)
        else:
            origin = _origin(form)
            if origin is None or origin.name == self._target.reference.name:
                return False
            # Credentials of this push are for its registry and no other.
            own = self._credentials if origin.domain == self._target.reference.domain else None
            repository = self._registry.repository(origin, own)
            if not await _has(repository, form):
                return False
            try:
                await self._target.upload(_RemoteSource(repository, descriptor), sent=meter.at)
            except _SourceFailed as error:
                log.warning("layer source failed", source=origin.name, error=str(error))
                return False
        report(Progress("Pushed", identifier, is_layer=True))
        return True

    def _expected_size(self, diff_id: Digest, forms: Sequence[LayerSource]) -> int:
        for form in forms:
            if not form.repository and LAYER_COMPRESSION.get(form.media_type) == "gzip":
                return form.size_bytes
        fd, _, size = self._layers.open(diff_id)
        os.close(fd)
        return size


async def _has(repository: Repository, form: LayerSource) -> bool:
    try:
        return await repository.find_blob(form.digest) == form.size_bytes
    except OrlopError as error:  # gone, closed, or it wants a login: the layer is compressed instead
        log.info("layer source not available", source=repository.reference.name, error=str(error))
        return False


def _origin(form: LayerSource) -> Reference | None:
    return parse_reference(form.repository) if form.repository else None


def _distinct(forms: Sequence[LayerSource]) -> list[LayerSource]:
    return list({form.digest: form for form in reversed(forms)}.values())[::-1][:_MAX_FORMS]


async def _read(fd: int, start: int, length: int) -> AsyncGenerator[bytes, None]:
    done = 0
    while done < length:
        chunk = await offload.thread(os.pread, fd, min(_CHUNK_BYTES, length - done), start + done)
        if not chunk:
            raise LayerDamaged(f"a stored file ends {length - done} bytes early")
        yield chunk
        done += len(chunk)
