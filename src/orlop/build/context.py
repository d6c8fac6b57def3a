"""A sent context: one spooled tar, never unpacked, read by jobs.

The file is `<data_root>/build/ctx-<token>`; it goes when the build ends, and a crash leaves it
to the sweep at the next start. Small contexts are read in a thread here, where the fork of a
worker would cost more than the reading; both ways run the same job.
"""

from __future__ import annotations

import base64
import errno
import os
import posixpath
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from orlop.aio import offload
from orlop.base import ids
from orlop.base.errors import InvalidInput, Kind, OrlopError
from orlop.build import jobs
from orlop.build.cachekey import Selection
from orlop.build.opjson import encode_selection
from orlop.procs.workers import Workers
from orlop.store.compress import Decompressor, decompressor, sniff
from orlop.store.files import ensure_directory, full_or
from orlop.wire.ignorefile import IgnoreRules

__all__ = ["Context", "ContextTooLarge", "spool_context", "sweep_contexts"]

MAX_CONTEXT_BYTES = 64 << 30
MAX_DOCKERFILE_BYTES = 16 << 20
_SMALL_BYTES = 2 << 20
_CHUNK = 1 << 20
_MAX_VECTOR = 1024  # IOV_MAX
_PREFIX = "ctx-"
IGNORE_NAME = ".dockerignore"

Body = AsyncIterator[bytes]


class ContextTooLarge(OrlopError):
    """The context, inflated, goes on beyond the limit."""

    kind = Kind.INVALID
    code = "context-too-large"


class Context:
    """A spooled context; `fd` belongs to the block of `spool_context`."""

    def __init__(self, fd: int, workers: Workers) -> None:
        self.fd = fd
        self._workers = workers
        self._ignore: str | None = None
        self._hidden: list[str] = []
        self._digests: dict[Selection, str] = {}

    @property
    def size_bytes(self) -> int:
        """Bytes of the tar."""
        return os.fstat(self.fd).st_size

    def tree(self, fd_number: int) -> dict[str, Any]:
        """How a job's payload names this context, given the number of its descriptor."""
        return {"kind": "context", "fd": fd_number, "ignore": self._ignore, "hidden": self._hidden}

    async def read_dockerfile(self, path: str, *, applies_ignore: bool) -> bytes:
        """The Dockerfile; afterwards the context shows what the build may see.

        The ignore file is read too. By itself it only hides the Dockerfile and itself, since
        clients filter before they send; with `applies_ignore` all its rules count here.

        Raises:
            InvalidInput: no such Dockerfile, in the words of the classic builder.
            TarError: the context is not a tar.
        """
        name = posixpath.normpath(posixpath.join("/", path)).lstrip("/") or "Dockerfile"
        beside = f"{name}{IGNORE_NAME}"
        names = [name, beside, IGNORE_NAME]
        if name == "Dockerfile":
            names.append("dockerfile")  # the classic builder looks for it too
        result = await self._run(
            "build.files", {"tree": self.tree(0), "paths": names, "limit_bytes": MAX_DOCKERFILE_BYTES}
        )
        files = {
            key: None if text is None else base64.b64decode(text) for key, text in result["files"].items()
        }
        found = files[name] if files[name] is not None else files.get("dockerfile")
        rules = files[beside] if files[beside] is not None else files[IGNORE_NAME]
        if rules is not None:
            self._apply(rules, [name, beside, IGNORE_NAME], applies_all=applies_ignore)
        if found is None:
            # docker CLI and docker-py users know this text
            raise InvalidInput(
                f"Cannot locate specified Dockerfile: {name}",
                hint="the path is relative to the build context",
            )
        return found

    def _apply(self, rules: bytes, own: list[str], *, applies_all: bool) -> None:
        text = rules.decode("utf-8", "surrogateescape")
        parsed = IgnoreRules.parse(text)
        if applies_all:
            self._ignore = text
        self._hidden = [name for name in own if parsed.is_ignored(name)]

    async def digests(self, selections: Sequence[Selection]) -> list[str]:
        """Digests of what the selections take, each computed once per build.

        Raises:
            SourceMissing: a path does not exist.
        """
        missing = [selection for selection in selections if selection not in self._digests]
        if missing:
            job = {"tree": self.tree(0), "selections": [encode_selection(one) for one in missing]}
            result = await self._run("build.digests", job)
            self._digests.update(zip(missing, result["digests"], strict=True))
        return [self._digests[selection] for selection in selections]

    async def _run(self, job: str, payload: dict[str, Any]) -> dict[str, Any]:
        if self.size_bytes > _SMALL_BYTES:
            return await self._workers.run(job, payload, fds=[self.fd])
        return await offload.thread(jobs.JOBS[job], payload, [self.fd], lambda _progress: None)


@asynccontextmanager
async def spool_context(data_root: str, body: Body, workers: Workers) -> AsyncIterator[Context]:
    """Write a body, inflated, to a file for the length of the block.

    Raises:
        BadCompression, ContextTooLarge, StoreFull: as named.
    """
    folder = os.path.join(data_root, "build")
    ensure_directory(folder)
    path = os.path.join(folder, _PREFIX + ids.new_token())
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        await _write_all(fd, body)
        yield Context(fd, workers)
    finally:
        os.close(fd)
        os.unlink(path)


async def _write_all(fd: int, body: Body) -> None:
    writer = _Spooler(fd)
    pending: list[bytes] = []
    size = 0
    try:
        async for chunk in body:
            pending.append(chunk)
            size += len(chunk)
            if size >= _CHUNK:
                await offload.thread(writer.write, pending)
                pending, size = [], 0
        await offload.thread(writer.write, pending)
        writer.finish()
    except OSError as error:
        raise full_or(error, "the build context") from error


class _Spooler:
    """Writes chunks to a file, inflated; what is not compressed is not copied once more."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._inflater: Decompressor | None = None
        self._is_plain = False
        self._size = 0

    def write(self, chunks: list[bytes]) -> None:
        """Take the next chunks of the body."""
        if self._inflater is None and chunks:
            head = b"".join(chunks)
            self._inflater = decompressor(sniff(head), MAX_CONTEXT_BYTES)
            self._is_plain = sniff(head) == "none"
        if self._is_plain:
            self._store(chunks)
        elif self._inflater is not None:
            for chunk in chunks:
                for piece in self._inflater.feed(chunk):
                    self._store([piece])

    def finish(self) -> None:
        """The body is complete. Raises BadCompression when it is torn."""
        if self._inflater is not None and not self._is_plain:
            self._inflater.finish()

    def _store(self, pieces: list[bytes]) -> None:
        for start in range(0, len(pieces), _MAX_VECTOR):
            batch = pieces[start : start + _MAX_VECTOR]
            total = sum(map(len, batch))
            self._size += total
            if self._size > MAX_CONTEXT_BYTES:
                raise ContextTooLarge(f"the build context is larger than {MAX_CONTEXT_BYTES >> 30} GiB")
            if os.writev(self._fd, batch) != total:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def sweep_contexts(data_root: str) -> int:
    """Remove what builds of an engine that is gone have left; returns bytes freed."""
    folder = os.path.join(data_root, "build")
    freed = 0
    if not os.path.isdir(folder):
        return 0
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        freed += os.lstat(path).st_size
        os.unlink(path)
    return freed
