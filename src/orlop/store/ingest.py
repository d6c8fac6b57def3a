"""Ingests: blobs on their way in, resumable by offset across restarts.

The hash runs along with the writing, in a thread, a mebibyte at a time; on a resume the
bytes already on disk are hashed again. Layout and commit order: `blobs`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from orlop.aio import offload
from orlop.base import failpoints
from orlop.base.errors import Kind, OrlopError
from orlop.base.ids import LeaseId
from orlop.oci.descriptor import Descriptor
from orlop.oci.digest import Digest, algorithm, new_hasher
from orlop.store.files import ensure_directory, full_or, write_all

__all__ = ["CHUNK_BYTES", "BlobInfo", "DigestMismatch", "Ingest", "IngestBusy", "SizeMismatch", "digest_file"]

CHUNK_BYTES = 1 << 20


class DigestMismatch(OrlopError):
    """Received bytes are not what was promised; they are dropped."""

    kind = Kind.INVALID
    code = "digest-mismatch"


class SizeMismatch(OrlopError):
    """More or fewer bytes than promised."""

    kind = Kind.INVALID
    code = "size-mismatch"


class IngestBusy(OrlopError):
    """Somebody else is writing this ingest."""

    kind = Kind.CONFLICT
    code = "ingest-busy"


@dataclass(frozen=True, slots=True)
class BlobInfo:
    """A stored blob."""

    digest: Digest
    size_bytes: int
    created_ns: int


# Publishes (fd, path, digest, size, lease): durable file, then row.
Publish = Callable[[int, str, Digest, int, LeaseId], Awaitable[BlobInfo]]


class Ingest:
    """A write in progress; made by `BlobStore.ingest`. One writer at a time."""

    def __init__(self, publish: Publish, folder: str, lease: LeaseId, expected: Descriptor | None) -> None:
        self._publish = publish
        self._folder = folder
        self._path = os.path.join(folder, "data")
        self._lease = lease
        self._expected = expected
        self._algorithm = algorithm(expected.digest) if expected else "sha256"
        self._hasher = new_hasher(self._algorithm)
        self._fd = -1
        self._pending = bytearray()
        self._written = 0
        self._gone = False

    @property
    def offset(self) -> int:
        """Bytes taken so far, those of earlier attempts included: where a resumed sender goes on."""
        return self._written + len(self._pending)

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append bytes; hashed and written in a thread, a mebibyte at a time.

        Raises:
            SizeMismatch: more than the expected size; the ingest is dropped on exit.
            StoreFull: no space left; the ingest is kept for a later resume.
        """
        if self._expected is not None and self.offset + len(data) > self._expected.size_bytes:
            await self.restart()
            raise SizeMismatch(
                f"blob {self._expected.digest} is longer than {self._expected.size_bytes} bytes"
            )
        if len(self._pending) + len(data) < CHUNK_BYTES:
            self._pending += data
            return
        await self._flush()
        view = memoryview(data)
        for start in range(0, len(view), CHUNK_BYTES):
            await self._blocking(self._append, view[start : start + CHUNK_BYTES])

    async def restart(self) -> None:
        """Drop what was received and begin at offset 0: the sender cannot resume."""
        self._pending.clear()
        self._hasher = new_hasher(self._algorithm)
        self._written = 0
        await self._blocking(os.ftruncate, self._fd, 0)
        os.lseek(self._fd, 0, os.SEEK_SET)

    @property
    def path(self) -> str:
        """The file of the bytes taken so far; what is pending in memory is not in it yet."""
        return self._path

    async def flush(self) -> None:
        """Put what was taken so far into the file: it outlives this process, though not yet a power cut."""
        await self._flush()

    async def verify(self, expected: Descriptor | Digest | None = None) -> Digest:
        """Check size and digest of what was received without publishing it; returns the digest.

        For receivers that need the bytes once: verify, then `discard`.

        Raises:
            DigestMismatch, SizeMismatch: not what was expected; the ingest is dropped.
            StoreFull: no space left; the ingest is kept for a later resume.
        """
        await self._flush()
        wanted = expected if expected is not None else self._expected
        digest = Digest(f"{self._algorithm}:{self._hasher.hexdigest()}")
        if isinstance(wanted, Descriptor) and wanted.size_bytes != self._written:
            await self.restart()
            raise SizeMismatch(
                f"blob {wanted.digest} has {self._written} bytes instead of {wanted.size_bytes}"
            )
        target = wanted.digest if isinstance(wanted, Descriptor) else wanted
        if target is not None and algorithm(target) != self._algorithm:
            digest = await offload.thread(digest_file, self._path, algorithm(target))
        if target is not None and target != digest:
            await self.restart()
            raise DigestMismatch(f"expected digest {target}, received {digest}")
        return digest

    async def commit(self, expected: Descriptor | Digest | None = None) -> BlobInfo:
        """Make the ingested bytes a blob; afterwards the ingest no longer exists.

        Durable on return and held by the ingest's lease. Safe to repeat: bytes that are
        already a blob give that blob. A bare digest checks no size.

        Raises:
            DigestMismatch, SizeMismatch: not what was expected; the ingest is dropped.
            StoreFull: no space left; the ingest is kept for a later resume.
        """
        digest = await self.verify(expected)
        info = await self._publish(self._fd, self._path, digest, self._written, self._lease)
        self._gone = True
        await offload.thread(shutil.rmtree, self._folder, ignore_errors=True)
        return info

    async def discard(self) -> None:
        """Forget the bytes received; nothing is left to resume."""
        self._gone = True
        await offload.thread(shutil.rmtree, self._folder, ignore_errors=True)

    def open(self, ref: str, now_ns: int) -> None:
        """Open or create the files and hash what is there already. Blocks: run in a thread."""
        ensure_directory(self._folder)
        state = os.path.join(self._folder, "state.json")
        if not os.path.exists(state):
            with open(
                os.open(state, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600), "w", encoding="utf-8"
            ) as file:
                json.dump({"ref": ref, "created_ns": now_ns}, file)
        flags = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(self._path, flags, 0o600)
        limit = self._expected.size_bytes if self._expected else None
        if limit is not None and os.fstat(self._fd).st_size > limit:
            os.ftruncate(self._fd, 0)
        while chunk := os.read(self._fd, CHUNK_BYTES):
            self._hasher.update(chunk)
            self._written += len(chunk)

    async def close(self) -> None:
        """Keep the received bytes for a resume and close the file."""
        try:
            if not self._gone:
                await self._flush()
        except OrlopError:
            self._pending.clear()  # what is on disk stays resumable
        finally:
            os.close(self._fd)

    async def _flush(self) -> None:
        if self._pending:
            data, self._pending = self._pending, bytearray()
            await self._blocking(self._append, data)

    def _append(self, data: bytes | bytearray | memoryview) -> None:
        failpoints.hit("blobs.ingest.write")
        try:
            write_all(self._fd, data)
        except OSError:
            # A short write leaves bytes that were not hashed: cut the file back to what was.
            os.ftruncate(self._fd, self._written)
            os.lseek(self._fd, self._written, os.SEEK_SET)
            raise
        self._hasher.update(data)
        self._written += len(data)

    async def _blocking(self, work: Callable[..., None], *args: object) -> None:
        try:
            await offload.thread(work, *args)
        except OSError as error:
            raise full_or(error, "the blob store") from error


def digest_file(path: str, name: str) -> Digest:
    """Hash a file in chunks. Blocks: run in a thread."""
    hasher = new_hasher(name)
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(CHUNK_BYTES):
            hasher.update(chunk)
    return Digest(f"{name}:{hasher.hexdigest()}")
