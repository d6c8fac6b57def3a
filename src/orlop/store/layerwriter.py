"""Layers on their way in: a stream that is hashed while it is written, or a file that a worker fills.

Both end in the same commit, which `LayerStore.publish` does. What is not committed goes with its block.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from orlop.aio import offload
from orlop.base.errors import Kind, OrlopError
from orlop.base.ids import LeaseId
from orlop.oci.digest import Digest, new_hasher
from orlop.store.files import full_or, unlink_sized
from orlop.store.ingest import DigestMismatch
from orlop.store.layerfile import TAR_OFFSET

__all__ = ["LayerInfo", "LayerTooLarge", "LayerWriter", "StagedLayer", "check_diff_id"]

CHUNK_BYTES = 1 << 20


class LayerTooLarge(OrlopError):
    """The stream goes on beyond what a layer may have."""

    kind = Kind.INVALID
    code = "layer-too-large"


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """A stored layer: bytes of its tar, of its file, of the files in it; entries of its tar.

    `is_opaque`: its root hides all layers below. `has_root`: its tar describes the root directory.
    """

    diff_id: Digest
    size_bytes: int
    file_bytes: int
    content_bytes: int
    entry_count: int
    is_opaque: bool
    has_root: bool
    created_ns: int


# Indexes and publishes (fd, path, payload of the index job, promised diff id, lease).
Publish = Callable[[int, str, dict[str, Any], Digest | None, LeaseId], Awaitable[LayerInfo]]


class _Staging:
    """A file on its way to be a layer. It goes with its block unless it was committed."""

    def __init__(self, publish: Publish, path: str, lease: LeaseId) -> None:
        self._publish = publish
        self._path = path
        self._lease = lease
        self._fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)

    def close(self) -> None:
        """Drop what was not committed; may be repeated."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            unlink_sized(self._path)


class StagedLayer(_Staging):
    """A file whose tar a worker writes at `TAR_OFFSET` and up to the end of the file."""

    @property
    def fd(self) -> int:
        """Hand it to a worker; it stays ours."""
        return self._fd

    async def commit(
        self, expected: Digest | None = None, *, known: Digest | None = None, algorithm: str = "sha256"
    ) -> LayerInfo:
        """Make the file a layer. See `LayerWriter.commit`.

        Args:
            expected: the diff id that was promised.
            known: the diff id, if whoever wrote the tar has hashed it already.
            algorithm: of the diff id, if it still has to be computed.
        """
        size = max(os.fstat(self._fd).st_size - TAR_OFFSET, 0)
        job = {"tar_size": size, "diff_id": known, "algorithm": algorithm}
        if known is not None:
            check_diff_id(known, expected)
        return await self._publish(self._fd, self._path, job, expected, self._lease)


class LayerWriter(_Staging):
    """Takes a plain tar in chunks of any size; hashes and writes them in a thread."""

    def __init__(
        self, publish: Publish, path: str, lease: LeaseId, *, algorithm: str, limit_bytes: int
    ) -> None:
        super().__init__(publish, path, lease)
        self._algorithm = algorithm
        self._hasher = new_hasher(algorithm)
        self._limit = limit_bytes
        self._size = 0
        self._pending = bytearray()

    @property
    def size_bytes(self) -> int:
        """Bytes of tar taken so far."""
        return self._size + len(self._pending)

    async def write(self, chunk: bytes | bytearray | memoryview) -> None:
        """Append; the chunk is not kept after the call.

        Raises:
            LayerTooLarge, StoreFull: as named; the writer is then unusable.
        """
        if self.size_bytes + len(chunk) > self._limit:
            raise LayerTooLarge(
                f"layer of more than {self._limit} bytes",
                hint="the limit protects the disk; see max-layer-size",
            )
        if not self._pending and len(chunk) >= CHUNK_BYTES // 4:
            await self._append(chunk)
            return
        self._pending += chunk
        if len(self._pending) >= CHUNK_BYTES:
            await self._flush()

    async def commit(self, expected: Digest | None = None) -> LayerInfo:
        """Make what was written a layer; afterwards the writer is done.

        Durable on return: the bytes, their name and the row with the lease's edge. Committing bytes that
        exist already drops these and returns the existing layer. Concurrent commits of one
        diff id do the work once.

        Raises:
            DigestMismatch: the tar does not hash to `expected`.
            TarError: it is not a layer.
            StoreFull: no space; nothing is left behind.
        """
        await self._flush()
        diff_id = Digest(f"{self._algorithm}:{self._hasher.hexdigest()}")
        check_diff_id(diff_id, expected)
        job = {"tar_size": self._size, "diff_id": diff_id}
        return await self._publish(self._fd, self._path, job, expected, self._lease)

    async def _flush(self) -> None:
        if self._pending:
            pending, self._pending = self._pending, bytearray()
            await self._append(pending)

    async def _append(self, chunk: bytes | bytearray | memoryview) -> None:
        try:
            await offload.thread(self._append_now, chunk)
        except OSError as error:
            raise full_or(error, "a layer") from error

    def _append_now(self, chunk: bytes | bytearray | memoryview) -> None:
        self._hasher.update(chunk)
        view = memoryview(chunk).cast("B")
        while view.nbytes:
            count = os.pwrite(self._fd, view, TAR_OFFSET + self._size)
            view = view[count:]
            self._size += count


def check_diff_id(diff_id: Digest, expected: Digest | None) -> None:
    """Raises DigestMismatch when another diff id was promised."""
    if expected is not None and diff_id != expected:
        raise DigestMismatch(
            f"the layer's tar hashes to {diff_id}, not to {expected}",
            hint="the image is damaged at its source, or in transit",
            expected=expected,
            found=diff_id,
        )
