"""Pull-through: repositories that are copies of another registry's, filled when they are asked.

Theory of operation. A manifest by digest never changes: what is here is served. A tag is compared with
upstream by one HEAD when the last look is older than its time to live; when upstream does not answer,
what is here is served, however old. A blob that a manifest names is fetched once, however many ask for
it, and handed on while it comes; it is linked only when its digest was right.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

from orlop.aio import offload
from orlop.aio.http_messages import FileResponse, StreamResponse
from orlop.aio.scope import Background
from orlop.aio.single_flight import SingleFlight
from orlop.base import log
from orlop.base.clock import Clock
from orlop.base.errors import Kind, OrlopError
from orlop.oci.descriptor import Descriptor
from orlop.oci.digest import Digest
from orlop.oci.reference import DEFAULT_DOMAIN, Reference
from orlop.registry.auth import Credentials
from orlop.registry.client import Registry, Repository
from orlop.registryd import blobs
from orlop.registryd.calls import Answer, Call
from orlop.registryd.documents import parse_manifest_document
from orlop.registryd.meters import Meters
from orlop.registryd.names import is_digest
from orlop.registryd.problems import Problem, Word
from orlop.registryd.settings import RegistrySettings, Upstream
from orlop.registryd.storage.contract import ManifestRow, Missing, Storage

__all__ = ["PullThrough"]

READ_BYTES = 256 << 10
_MAX_CHECKED = 100_000


@dataclass(slots=True)
class _Fetch:
    """A blob on its way in. `fd` reads what has come; -1 before and after."""

    size: int
    changed: asyncio.Event
    fd: int = -1
    available: int = 0
    readers: int = 0
    is_done: bool = False
    error: BaseException | None = None

    def tell(self) -> None:
        """Wake all who wait for a change."""
        self.changed.set()
        self.changed = asyncio.Event()


class PullThrough:
    """The caching side of a server; close it before the storage."""

    def __init__(
        self, storage: Storage, settings: RegistrySettings, registry: Registry, clock: Clock, meters: Meters
    ) -> None:
        self._storage = storage
        self._settings = settings
        self._registry = registry
        self._clock = clock
        self._meters = meters
        self._manifests: SingleFlight[tuple[str, str], None] = SingleFlight("registry-cache")
        self._fetches: dict[tuple[str, Digest], _Fetch] = {}
        self._background = Background("registry-cache")
        self._checked: dict[tuple[str, str], float] = {}

    async def refresh_manifest(self, call: Call) -> None:
        """Have the current manifest of a reference here, if upstream can be asked.

        Raises:
            Problem: UNAVAILABLE: upstream cannot be asked and nothing is here.
        """
        found = self._settings.upstream_of(call.name)
        if found is None:
            return
        row = await self._storage.find_manifest(call.name, call.reference)
        if row is not None and self._is_fresh(found[0], call):
            self._meters.cache_hits += 1
            return
        self._meters.cache_misses += 1
        key = (call.name, call.reference)
        try:
            await self._manifests.run(key, lambda: self._fetch_manifest(*found, call, row))
        except OrlopError as error:
            await self._without_upstream(call, row, error)

    async def blob(self, call: Call) -> Answer:
        """A blob that is not here (yet).

        Raises:
            Problem: BLOB_UNKNOWN, UNAVAILABLE.
        """
        digest = Digest(call.reference)
        found = self._settings.upstream_of(call.name)
        if found is None:
            raise blobs.unknown(digest)
        repository = self._repository(*found)
        size = await self._storage.size_of_reference(call.name, digest)
        if size is None and (size := await repository.find_blob(digest)) is None:
            raise blobs.unknown(digest)
        if call.is_head:
            return FileResponse(-1, 0, size, 200, blobs.blob_headers(digest))
        self._meters.cache_misses += 1
        fetch = await self._begin(call.name, digest, size, repository)
        if call.header("range"):
            while not fetch.is_done:
                await fetch.changed.wait()
            if fetch.error is None:
                return await blobs.get(call)
            raise Problem(Word.UNAVAILABLE, f"upstream: {fetch.error}")
        fetch.readers += 1
        return StreamResponse(self._follow(fetch), 200, blobs.blob_headers(digest))

    async def close(self) -> None:
        """Give up what is under way."""
        await self._manifests.close()
        await self._background.close()
        self._registry.close()

    def _is_fresh(self, upstream: Upstream, call: Call) -> bool:
        if is_digest(call.reference):
            return True
        checked_s = self._checked.get((call.name, call.reference))
        return checked_s is not None and self._clock.monotonic_s() - checked_s < upstream.ttl_s

    def _repository(self, upstream: Upstream, name: str) -> Repository:
        if upstream.registry == DEFAULT_DOMAIN and "/" not in name:
            name = f"library/{name}"
        credentials = Credentials(username=upstream.username, password=upstream.password)
        return self._registry.repository(Reference(upstream.registry, name), credentials)

    async def _fetch_manifest(
        self, upstream: Upstream, name: str, call: Call, row: ManifestRow | None
    ) -> None:
        repository = self._repository(upstream, name)
        is_tag = not is_digest(call.reference)
        if row is not None and is_tag:
            head = await repository.head_manifest(call.reference)
            if head is not None and head.digest == row.digest:
                self._mark(call)
                return
        which = call.reference if is_tag else Digest(call.reference)
        remote = await repository.get_manifest(which)
        descriptor = remote.descriptor
        document = parse_manifest_document(remote.data, descriptor.media_type, descriptor.digest)
        await self._storage.put_manifest(call.name, document, [call.reference] if is_tag else [], Missing.ANY)
        self._mark(call)

    def _mark(self, call: Call) -> None:
        if len(self._checked) >= _MAX_CHECKED:
            self._checked.clear()
        if not is_digest(call.reference):
            self._checked[call.name, call.reference] = self._clock.monotonic_s()

    async def _without_upstream(self, call: Call, row: ManifestRow | None, error: OrlopError) -> None:
        if error.kind is Kind.NOT_FOUND:
            if row is not None:
                await self._storage.delete_tag(call.name, call.reference)
            return
        if row is None:
            word = Word.DENIED if error.kind in {Kind.UNAUTHORIZED, Kind.FORBIDDEN} else Word.UNAVAILABLE
            raise Problem(word, f"upstream: {error}") from error
        log.warning(
            "upstream does not answer: the copy is served",
            repository=call.name,
            reference=call.reference,
            error=error,
        )

    # blobs

    async def _begin(self, name: str, digest: Digest, size: int, repository: Repository) -> _Fetch:
        """The fetch of a blob, started unless it is under way; returns when its bytes can be followed."""
        fetch = self._fetches.get((name, digest))
        if fetch is None:
            fetch = self._fetches[name, digest] = _Fetch(size, asyncio.Event())
            descriptor = Descriptor("application/octet-stream", digest, size)
            self._background.start(self._fetch_blob(name, descriptor, repository, fetch), name=digest)
        while fetch.fd < 0 and not fetch.is_done:
            await fetch.changed.wait()
        return fetch

    async def _fetch_blob(
        self, name: str, descriptor: Descriptor, repository: Repository, fetch: _Fetch
    ) -> None:
        try:
            upload_id = await self._storage.begin_upload(name)
            async with self._storage.upload(name, upload_id) as upload:
                fetch.fd = upload.open_reader()
                try:
                    async with aclosing(repository.blob(descriptor)) as pieces:
                        async for piece in pieces:
                            await upload.write(bytes(piece))
                            await upload.flush()
                            fetch.available = upload.offset
                            fetch.tell()
                    await upload.commit(descriptor.digest)
                except BaseException:
                    await upload.discard()
                    raise
        except BaseException as error:
            fetch.error = error
            if not isinstance(error, OrlopError):
                raise
            log.warning("blob not cached", repository=name, digest=descriptor.digest, error=error)
        finally:
            fetch.is_done = True
            self._fetches.pop((name, descriptor.digest), None)
            fetch.tell()
            _close_unread(fetch)

    async def _follow(self, fetch: _Fetch) -> AsyncIterator[bytes]:
        position = 0
        try:
            while position < fetch.size:
                if position < fetch.available:
                    count = min(READ_BYTES, fetch.available - position)
                    data = await offload.thread(os.pread, fetch.fd, count, position)
                    if not data:
                        break  # the bytes were wrong and have been dropped
                    position += len(data)
                    yield data
                elif fetch.is_done:
                    break
                else:
                    await fetch.changed.wait()
            while not fetch.is_done:
                await fetch.changed.wait()  # the last byte is sent on when the digest is known to be right
            if fetch.error is not None or position < fetch.size:
                raise Problem(Word.UNAVAILABLE, f"upstream: {fetch.error}")
        finally:
            fetch.readers -= 1
            _close_unread(fetch)


def _close_unread(fetch: _Fetch) -> None:
    if fetch.is_done and fetch.readers <= 0 and fetch.fd >= 0:
        os.close(fetch.fd)
        fetch.fd = -1
