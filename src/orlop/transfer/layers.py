"""Layers on their way in: from a registry's compressed stream to a committed layer.

    socket -> ingest file (hashed: resume point) -> inflate -> layer writer (hashed, indexed)
              loop + thread A                       thread B    thread B

Everything happens in one pass; no compressed blob is published. The ingest is kept by digest
while anything fails, so the next pull, of whatever image from whatever registry, goes on where
this one ended; it is dropped when the layer is durable. A layer is committed only after the
compressed bytes have the digest of the manifest and the tar has the diff id of the config.

Pulls that want the same layer share one transfer; each holds the result by its own lease.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, aclosing, suppress
from dataclasses import dataclass, field
from typing import Protocol

from orlop.aio import offload
from orlop.aio.scope import Scope
from orlop.aio.single_flight import SingleFlight
from orlop.base import failpoints, log, trace
from orlop.base.errors import Kind, OrlopError
from orlop.base.ids import LeaseId
from orlop.images.model import LayerFacts, LayerWriting
from orlop.oci.descriptor import Descriptor
from orlop.oci.digest import Digest, algorithm
from orlop.registry.client import Repository
from orlop.store.blobs import BlobStore, DigestMismatch, Ingest
from orlop.store.compress import SNIFF_BYTES, Decompressor, ExpansionLimit, layer_decompressor
from orlop.store.db import StoreFull
from orlop.store.leases import LeaseLost, Leases
from orlop.transfer.progress import Meter, Progress, Report, short

__all__ = ["LayerFetcher", "LayerSink"]

_CHUNK_BYTES = 1 << 20
_BATCH_BYTES = 4 << 20  # inflated bytes per hop to a thread: bounds memory whatever the ratio
_QUEUE_CHUNKS = 4
_MAX_LAYER_BYTES = 1 << 40
_DISK_RESERVE_BYTES = 256 << 20  # left free by pulls, on a disk that is large enough
_DISK_RESERVE_SHARE = 20  # otherwise this part of it
_CONTENT_ERRORS = {Kind.INVALID, Kind.CORRUPT, Kind.UNSUPPORTED}


class LayerSink(Protocol):
    """The layer store as transfers use it: see store.layers."""

    async def hold(self, diff_id: Digest, lease: LeaseId) -> LayerFacts | None:
        """Find a layer and hold it in one transaction."""

    def writer(self, lease: LeaseId, algorithm: str = "sha256") -> AbstractAsyncContextManager[LayerWriting]:
        """Store a new layer, held by `lease`; plain tar in, hashed by the algorithm of its diff id."""


@dataclass(slots=True)
class _Watchers:
    """Who wants to hear of a transfer, and who wants to hold its result."""

    reports: list[Report] = field(default_factory=list)
    leases: list[LeaseId] = field(default_factory=list)
    last: Progress | None = None

    def report(self, progress: Progress) -> None:
        self.last = progress
        for report in self.reports:
            report(progress)


class LayerFetcher:
    """Brings layers into the store, at most `concurrency` at a time, each once."""

    def __init__(self, blobs: BlobStore, layers: LayerSink, leases: Leases, *, concurrency: int = 3) -> None:
        self._blobs = blobs
        self._layers = layers
        self._leases = leases
        self._slots = asyncio.Semaphore(concurrency)
        self._flights: SingleFlight[Digest, None] = SingleFlight("layer")
        self._watchers: dict[Digest, _Watchers] = {}

    async def has(self, descriptor: Descriptor, diff_id: Digest, lease: LeaseId) -> bool:
        """True when the layer is stored; it is held by `lease` then, and received bytes of it are dropped."""
        if await self._layers.hold(diff_id, lease) is None:
            return False
        await self._blobs.discard_ingest(_ingest_ref(descriptor))
        return True

    async def fetch(
        self, repository: Repository, descriptor: Descriptor, diff_id: Digest, lease: LeaseId, report: Report
    ) -> None:
        """Store the layer and hold it by `lease`; joins a transfer that is under way.

        Raises:
            DigestMismatch: the registry's bytes are not what the manifest or config promises.
            OrlopError: as the registry, the decompressor and the layer store raise.
        """
        while not await self.has(descriptor, diff_id, lease):
            watchers = self._watchers.setdefault(diff_id, _Watchers())
            if watchers.last is not None:
                report(watchers.last)
            watchers.reports.append(report)
            watchers.leases.append(lease)
            try:
                await self._flights.run(
                    diff_id,
                    lambda seen=watchers: self._transfer(repository, descriptor, diff_id, seen),  # type: ignore[misc]
                )
            finally:
                watchers.reports.remove(report)
                watchers.leases.remove(lease)
                if not watchers.reports:
                    self._watchers.pop(diff_id, None)

    async def close(self) -> None:
        """Cancel what is under way; received bytes stay for the next time."""
        await self._flights.close()

    async def _transfer(
        self, repository: Repository, descriptor: Descriptor, diff_id: Digest, watchers: _Watchers
    ) -> None:
        identifier = short(descriptor.digest)
        if self._slots.locked():
            watchers.report(Progress("Waiting", identifier, is_layer=True))
        async with self._slots, self._leases.hold(f"pull layer {descriptor.digest}") as lease:
            async with self._blobs.ingest(_ingest_ref(descriptor), lease, descriptor) as ingest:
                one = _Transfer(repository, descriptor, diff_id, ingest, watchers.report)
                was_resumed = ingest.offset > 0
                try:
                    await self._attempt(one, lease)
                except OrlopError as error:
                    if error.kind not in _CONTENT_ERRORS and not isinstance(error, _NoRoom):
                        raise
                    await ingest.restart()
                    if not was_resumed or isinstance(error, _NoRoom):
                        raise
                    # what an earlier attempt left may be at fault: once more, all of it
                    log.warning("partial layer dropped", digest=descriptor.digest, error=str(error))
                    await self._attempt(one, lease)
                await ingest.discard()
            for waiting in list(watchers.leases):
                with suppress(LeaseLost):
                    await self._layers.hold(diff_id, waiting)
        watchers.report(Progress("Pull complete", identifier, is_layer=True))

    async def _attempt(self, one: _Transfer, lease: LeaseId) -> None:
        with trace.span("pull.layer", digest=one.diff_id):
            async with self._layers.writer(lease, algorithm(one.diff_id)) as writer:
                await one.run(writer)
                await writer.commit(one.diff_id)
        failpoints.hit("pull.layer.committed")


class _NoRoom(StoreFull):
    """A layer expands to more than there is room for; its compressed bytes are not kept either."""

    def __init__(self, diff_id: Digest) -> None:
        super().__init__(
            f"cannot write layer {diff_id}: no space left on device", hint="free some space and try again"
        )


class _Transfer:
    """One attempt's two halves: receive and inflate."""

    def __init__(
        self, repository: Repository, descriptor: Descriptor, diff_id: Digest, ingest: Ingest, report: Report
    ) -> None:
        self.diff_id = diff_id
        self._repository = repository
        self._descriptor = descriptor
        self._ingest = ingest
        self._report = report
        self._id = short(descriptor.digest)
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue(_QUEUE_CHUNKS)

    async def run(self, writer: LayerWriting) -> None:
        """Receive, verify and inflate everything into `writer`, uncommitted."""
        self._queue = asyncio.Queue(_QUEUE_CHUNKS)
        async with Scope(f"layer {self._id}") as scope:
            scope.start(self._receive(), name="receive")
            inflating = scope.spawn(self._inflate(writer), name="inflate")
        failpoints.hit("pull.blob.fetched")
        failure = inflating.result()
        if failure is not None:
            raise failure  # the bytes are what was promised: the image itself is at fault
        self._say("Extracting", self._descriptor.size_bytes)

    async def _receive(self) -> None:
        meter = Meter(self._report, self._id, "Downloading", self._descriptor.size_bytes)
        offset = self._ingest.offset
        async with aclosing(_file_chunks(self._ingest.path, offset)) as kept:
            async for chunk in kept:
                await self._queue.put(chunk)
        async with aclosing(self._repository.blob(self._descriptor, offset, self._note_retry)) as pieces:
            async for piece in pieces:
                await self._ingest.write(piece)
                await self._queue.put(bytes(piece))
                meter.at(self._ingest.offset)
        await self._queue.put(None)
        self._say("Verifying Checksum")
        await self._ingest.verify(self._descriptor)
        self._say("Download complete")

    async def _inflate(self, writer: LayerWriting) -> OrlopError | None:
        """Inflate until the end. Bad content is returned, not raised: is it what the digest promised?"""
        failure: OrlopError | None = None
        source = _Inflater(self._descriptor.media_type, _free_bytes(self._ingest.path))
        while (chunk := await self._queue.get()) is not None:
            if failure is None:
                failure = await self._feed(source, chunk, writer)
        if failure is None:
            failure = await self._feed(source, None, writer)
        return failure

    async def _feed(self, source: _Inflater, chunk: bytes | None, writer: LayerWriting) -> OrlopError | None:
        try:
            pieces = source.feed(chunk) if chunk is not None else source.finish()
            while batch := await offload.thread(_take, pieces):
                for piece in batch:
                    await writer.write(piece)
        except ExpansionLimit as error:
            return error if source.limit_bytes == _MAX_LAYER_BYTES else _NoRoom(self.diff_id)
        except OrlopError as error:
            if error.kind not in _CONTENT_ERRORS:
                raise
            return error
        return None

    def _say(self, status: str, current: int = 0) -> None:
        self._report(Progress(status, self._id, current, current, is_layer=True))

    def _note_retry(self, delay_s: float, error: OrlopError) -> None:
        log.info("layer interrupted", digest=self._descriptor.digest, error=str(error))
        seconds = max(1, round(delay_s))
        self._report(
            Progress(f"Retrying in {seconds} second{'s' if seconds > 1 else ''}", self._id, is_layer=True)
        )


class _Inflater:
    """Picks the decompressor when the first bytes are there."""

    def __init__(self, media_type: str, limit_bytes: int) -> None:
        self._media_type = media_type
        self.limit_bytes = limit_bytes
        self._head = b""
        self._chosen: Decompressor | None = None

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        if self._chosen is None:
            self._head += chunk
            if len(self._head) < SNIFF_BYTES:
                return iter(())
            return self._choose().feed(self._head)
        return self._chosen.feed(chunk)

    def finish(self) -> Iterator[bytes]:
        if self._chosen is None:
            yield from self._choose().feed(self._head)
        assert self._chosen is not None
        self._chosen.finish()

    def _choose(self) -> Decompressor:
        self._chosen = layer_decompressor(self._media_type, self._head, self.limit_bytes)
        return self._chosen


def _ingest_ref(descriptor: Descriptor) -> str:
    return f"layer {descriptor.digest}"


def _take(pieces: Iterator[bytes]) -> list[bytes]:
    batch: list[bytes] = []
    size = 0
    for piece in pieces:
        batch.append(piece)
        size += len(piece)
        if size >= _BATCH_BYTES:
            break
    return batch


async def _file_chunks(path: str, length: int) -> AsyncGenerator[bytes, None]:
    """The first `length` bytes of a file."""
    if not length:
        return
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        position = 0
        while position < length:
            chunk = await offload.thread(os.pread, fd, min(_CHUNK_BYTES, length - position), position)
            if not chunk:
                raise DigestMismatch(f"a partial layer lost its end at byte {position}")
            yield chunk
            position += len(chunk)
    finally:
        os.close(fd)


def _free_bytes(path: str) -> int:
    """What a layer may expand to: the disk's free space but for a reserve, and a sanity limit."""
    state = os.statvfs(path)
    total, free = state.f_blocks * state.f_frsize, state.f_bavail * state.f_frsize
    return max(0, min(_MAX_LAYER_BYTES, free - min(_DISK_RESERVE_BYTES, total // _DISK_RESERVE_SHARE)))


def unique(items: Iterable[tuple[Descriptor, Digest]]) -> list[tuple[Descriptor, Digest]]:
    """Layers without repetitions, in order; an image may name a layer twice."""
    return list({diff_id: (descriptor, diff_id) for descriptor, diff_id in items}.values())
