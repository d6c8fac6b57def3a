"""Copy: from one repository to another, on the same registry or not, without storing anything.

Everything that a name leads to is copied: all platforms of an index, attestations among them, byte
for byte, so the digest is the same afterwards. Blobs the target has stay where they are; on the same
registry they are mounted; the rest is streamed through. Children are put before what names them, the
tag last: a copy that breaks leaves the target's tag as it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from orlop.aio.scope import Scope
from orlop.base.errors import Kind, OrlopError
from orlop.oci.descriptor import Descriptor
from orlop.oci.digest import Digest
from orlop.oci.index import Index, parse_document, select
from orlop.oci.manifest import Manifest
from orlop.oci.mediatype import FOREIGN_LAYER_TYPES, INDEX_TYPES, MANIFEST_TYPES
from orlop.oci.platform import Platform
from orlop.registry.client import Repository
from orlop.registry.errors import BadRegistry
from orlop.transfer.progress import Meter, Progress, Report, narrate, short

__all__ = ["CannotCopy", "copy_image"]

_MAX_DEPTH = 3
_MAX_MANIFESTS = 1000
_MAX_MANIFEST_BYTES = 64 << 20  # of all of them, which are held in memory
_CONCURRENCY = 4


class CannotCopy(OrlopError):
    """What was asked cannot be copied as it is."""

    kind = Kind.INVALID
    code = "cannot-copy"


@dataclass(slots=True)
class _Gathered:
    """What has to be at the target: children before parents, blobs once."""

    documents: dict[Digest, Manifest | Index] = field(default_factory=dict)
    blobs: dict[Digest, Descriptor] = field(default_factory=dict)
    size_bytes: int = 0


def copy_image(
    source: Repository, target: Repository, platform: Platform | None = None
) -> AsyncGenerator[Progress, None]:
    """Copy what `source.reference` names to `target.reference`, with progress.

    Args:
        source: opened for pulling.
        target: opened for pushing; without tag and digest it gets the source's tag.
        platform: only the image for this one, as a plain manifest.

    Raises:
        NotOnRegistry, BadRegistry, RegistryError: of either side.
        CannotCopy: the platform is not there, or the target's digest is another one.
    """
    return narrate("copy", lambda report: _copy(source, target, platform, report))


async def _copy(source: Repository, target: Repository, platform: Platform | None, report: Report) -> None:
    wanted = source.reference.with_default_tag()
    report(Progress(f"Copying from {wanted.name} to {target.reference.name}", wanted.tag or ""))
    top = await _get(source, wanted.digest or wanted.tag or "latest")
    if platform is not None and isinstance(top, Index):
        entry = select(top, platform)
        if entry is None:
            raise CannotCopy(f"{wanted.familiar} has no image for {platform}")
        top = await _get(source, entry.digest)
    name = target.reference
    if name.tag is None and name.digest is None:
        name = replace(name, tag=wanted.tag, digest=None if wanted.tag else top.digest)
    if name.digest is not None and name.digest != top.digest:
        raise CannotCopy(f"{wanted.familiar} is {top.digest}, which cannot be stored as {name.digest}")
    gathered = _Gathered()
    await _gather(source, top, gathered, 0)
    await _copy_blobs(source, target, gathered, report)
    for digest, document in gathered.documents.items():
        if document is not top:
            await target.put_manifest(digest, document.raw, document.media_type)
    await target.put_manifest(name.tag or top.digest, top.raw, top.media_type)
    size = len(top.raw)
    report(Progress(f"{name.tag or name.digest}: digest: {top.digest} size: {size}"))
    report(Progress(aux={"Tag": name.tag or "", "Digest": top.digest, "Size": size}))


async def _get(source: Repository, which: str | Digest) -> Manifest | Index:
    remote = await source.get_manifest(which)
    announced = remote.descriptor.media_type
    return parse_document(remote.data, announced if announced in MANIFEST_TYPES | INDEX_TYPES else "")


async def _gather(source: Repository, document: Manifest | Index, found: _Gathered, depth: int) -> None:
    if document.digest in found.documents:
        return
    found.size_bytes += len(document.raw)
    if len(found.documents) >= _MAX_MANIFESTS or found.size_bytes > _MAX_MANIFEST_BYTES:
        raise BadRegistry(f"{source.reference.familiar} has more than {_MAX_MANIFESTS} manifests or 64 MiB")
    if isinstance(document, Manifest):
        for blob in (document.config, *document.layers):
            if blob.media_type not in FOREIGN_LAYER_TYPES:  # their bytes are elsewhere, by intent
                found.blobs.setdefault(blob.digest, blob)
    elif depth >= _MAX_DEPTH:
        raise BadRegistry(f"{source.reference.familiar} is an index within an index without end")
    else:
        for entry in document.manifests:
            if entry.digest not in found.documents:
                child = await _get(source, entry.digest)
                if len(child.raw) != entry.size_bytes:
                    raise BadRegistry(
                        f"manifest {entry.digest} has {len(child.raw)} bytes, "
                        f"its index says {entry.size_bytes}"
                    )
                await _gather(source, child, found, depth + 1)
    found.documents[document.digest] = document


async def _copy_blobs(source: Repository, target: Repository, found: _Gathered, report: Report) -> None:
    slots = asyncio.Semaphore(_CONCURRENCY)

    async def copy(blob: Descriptor) -> None:
        async with slots:
            await _copy_blob(source, target, blob, report)

    async with Scope("copy") as scope:
        for blob in found.blobs.values():
            scope.start(copy(blob), name=short(blob.digest))


async def _copy_blob(source: Repository, target: Repository, blob: Descriptor, report: Report) -> None:
    identifier = short(blob.digest)
    origin, aim = source.reference, target.reference
    if await target.find_blob(blob.digest) is not None:
        report(Progress("Already exists", identifier, is_layer=True))
        return
    is_neighbour = origin.domain == aim.domain and origin.path != aim.path
    if is_neighbour and await target.mount(blob.digest, origin.path):
        report(Progress(f"Mounted from {origin.path}", identifier, is_layer=True))
        return
    meter = Meter(report, identifier, "Copying", blob.size_bytes)
    try:
        await target.upload(_Passing(source, blob), sent=meter.at)
    except _SourceFailed as error:
        raise error.failure from error
    report(Progress("Copied", identifier, is_layer=True))


class _SourceFailed(Exception):
    """Wraps the source's failure, which an upload must not take for the target's."""

    def __init__(self, failure: OrlopError) -> None:
        super().__init__(str(failure))
        self.failure = failure


class _Passing:
    """A blob of the source as something to upload; the target checks its digest."""

    def __init__(self, source: Repository, blob: Descriptor) -> None:
        self._source = source
        self._blob = blob
        self.size_bytes = blob.size_bytes
        self.digest = blob.digest

    async def chunks(self, offset: int) -> AsyncIterator[memoryview]:
        try:
            async with aclosing(self._source.blob(self._blob, offset)) as pieces:
                async for piece in pieces:
                    yield piece
        except OrlopError as error:
            raise _SourceFailed(error) from error
