"""Uploads under way: ingests of the store that stay open from one request to the next.

The hash of what has come runs along; an ingest that nobody wrote to for a while is closed, and the
next request hashes its bytes again from the disk. The id and the repository make the ref of the
ingest, so an id says nothing in another repository.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from orlop.base import ids
from orlop.base.clock import Clock
from orlop.base.ids import LeaseId
from orlop.registryd.problems import Problem, Word
from orlop.store.blobs import BlobStore, Ingest

__all__ = ["OpenUploads", "upload_ref"]

MAX_OPEN = 256
IDLE_S = 60.0
BUSY_S = 15.0


@dataclass(slots=True)
class _Session:
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    ingest: Ingest | None = None
    used_s: float = 0.0


def upload_ref(name: str, upload_id: str) -> str:
    """What the store calls an upload; names have no blanks."""
    return f"registry {name} {upload_id}"


class OpenUploads:
    """The uploads of a process that were written to lately."""

    def __init__(self, blobs: BlobStore, lease: LeaseId, clock: Clock) -> None:
        self._blobs = blobs
        self._lease = lease
        self._clock = clock
        self._sessions: dict[str, _Session] = {}

    async def begin(self, name: str) -> str:
        """Make an empty upload; returns its id."""
        upload_id = ids.new_token(16)
        async with self._use(upload_ref(name, upload_id)):
            return upload_id

    @asynccontextmanager
    async def use(self, name: str, upload_id: str) -> AsyncIterator[Ingest]:
        """The ingest of an upload, for one user at a time.

        Raises:
            Problem: BLOB_UPLOAD_UNKNOWN, or BLOB_UPLOAD_INVALID when somebody else goes on writing it.
        """
        ref = upload_ref(name, upload_id)
        async with self._use(ref, must_exist=True) as session:
            assert session.ingest is not None
            yield session.ingest

    async def forget(self, name: str, upload_id: str) -> None:
        """Its ingest was committed or discarded; call it inside `use`."""
        session = self._sessions.pop(upload_ref(name, upload_id), None)
        if session is not None:
            await session.stack.aclose()

    async def close_idle(self, older_than_s: float = IDLE_S) -> None:
        """Let go of those that nobody writes to; their bytes stay."""
        deadline_s = self._clock.monotonic_s() - older_than_s
        for ref, session in tuple(self._sessions.items()):
            if session.used_s <= deadline_s and not session.lock.locked():
                await self._close(ref, session)

    async def close(self) -> None:
        """Let go of all."""
        for ref, session in tuple(self._sessions.items()):
            await self._close(ref, session)

    @asynccontextmanager
    async def _use(self, ref: str, *, must_exist: bool = False) -> AsyncIterator[_Session]:
        session = await self._lock(ref)
        try:
            if session.ingest is None:
                if must_exist and not self._blobs.has_ingest(ref):
                    raise Problem(Word.BLOB_UPLOAD_UNKNOWN, "no such upload")
                session.ingest = await session.stack.enter_async_context(self._blobs.ingest(ref, self._lease))
            yield session
        finally:
            session.used_s = self._clock.monotonic_s()
            session.lock.release()
            if session.ingest is None:
                self._sessions.pop(ref, None)
        if len(self._sessions) > MAX_OPEN:
            await self._close_oldest()

    async def _lock(self, ref: str) -> _Session:
        try:
            async with asyncio.timeout(BUSY_S):
                while True:
                    session = self._sessions.setdefault(ref, _Session())
                    await session.lock.acquire()
                    if self._sessions.get(ref) is session:
                        return session
                    session.lock.release()  # it was closed or ended while we waited
        except TimeoutError as error:
            raise Problem(
                Word.BLOB_UPLOAD_INVALID, "another request is writing this upload", status=409
            ) from error

    async def _close_oldest(self) -> None:
        idle = [(s.used_s, ref) for ref, s in self._sessions.items() if not s.lock.locked()]
        if idle:
            ref = min(idle)[1]
            await self._close(ref, self._sessions[ref])

    async def _close(self, ref: str, session: _Session) -> None:
        async with session.lock:
            if self._sessions.get(ref) is session:
                del self._sessions[ref]
                await session.stack.aclose()
