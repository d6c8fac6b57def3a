"""Leases: what is in flight is held until its owner has made it reachable, or time is up.

A lease is a row with an expiry; what it holds are typed edges (kind, key) written in the
same transaction as the thing itself, so that collection never sees a thing unheld. Expiry
counts on the monotonic clock within a boot (clock jumps expire nothing) and on the wall
clock after a reboot. A crash leaves leases behind on purpose: the parts of an interrupted
pull stay until the lease expires, and the next pull finds them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from orlop.base import ids
from orlop.base.clock import Clock, SystemClock
from orlop.base.errors import Kind, OrlopError
from orlop.base.ids import LeaseId
from orlop.store.db import Database, Tx

__all__ = ["DEFAULT_TTL_S", "LeaseInfo", "LeaseLost", "Leases", "read_boot_id", "tx_hold", "tx_unhold"]

DEFAULT_TTL_S = 86_400.0
_NANO = 1_000_000_000


class LeaseLost(OrlopError):
    """The lease ended while something still wanted to be held by it."""

    kind = Kind.CONFLICT
    code = "lease-lost"


@dataclass(frozen=True, slots=True)
class LeaseInfo:
    """A lease as it is listed."""

    id: LeaseId
    purpose: str
    created_ns: int
    expires_ns: int
    refs: int


def read_boot_id() -> str:
    """The kernel's id of this boot."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def tx_hold(tx: Tx, lease: LeaseId, kind: str, key: str) -> None:
    """Let `lease` hold a thing; call it in the transaction that writes the thing's row.

    Raises:
        LeaseLost: the lease does not exist (any more).
    """
    if tx.value("SELECT 1 FROM lease WHERE id = ?", (lease,)) is None:
        raise LeaseLost(
            f"lease {lease} ended before {kind} {key} was written", hint="start the operation again"
        )
    tx.execute("INSERT OR IGNORE INTO lease_ref VALUES (?, ?, ?)", (lease, kind, key))


def tx_unhold(tx: Tx, lease: LeaseId, kind: str, key: str) -> None:
    """Stop holding one thing; fine when it was not held."""
    tx.execute("DELETE FROM lease_ref WHERE lease = ? AND kind = ? AND key = ?", (lease, kind, key))


class Leases:
    """Makes, renews and ends leases."""

    def __init__(self, db: Database, clock: Clock | None = None, boot_id: str | None = None) -> None:
        self._db = db
        self._clock = clock or SystemClock()
        self._boot_id = boot_id or read_boot_id()

    @asynccontextmanager
    async def hold(
        self, purpose: str, ttl_s: float = DEFAULT_TTL_S, *, keep_on_failure: bool = False
    ) -> AsyncIterator[LeaseId]:
        """Hold things for the length of the block.

        Args:
            purpose: for people who list leases: `pull docker.io/library/alpine`.
            ttl_s: how long the lease outlives a crash.
            keep_on_failure: leave the lease to expire when the block raises, so that a
                later attempt finds what this one has made.
        """
        lease = await self.create(purpose, ttl_s)
        try:
            yield lease
        except BaseException:
            if not keep_on_failure:
                await self.release(lease)
            raise
        await self.release(lease)

    async def create(self, purpose: str, ttl_s: float = DEFAULT_TTL_S) -> LeaseId:
        """A lease without a block; the caller releases it."""
        lease = LeaseId(ids.new_token())
        wall, monotonic = self._expiry(ttl_s)
        row = (lease, purpose, self._clock.now_ns(), wall, self._boot_id, monotonic)
        await self._db.write(
            lambda tx: tx.execute("INSERT INTO lease VALUES (?, ?, ?, ?, ?, ?)", row).close()
        )
        return lease

    async def renew(self, lease: LeaseId, ttl_s: float = DEFAULT_TTL_S) -> None:
        """Start the time to live again. Raises LeaseLost when it is gone."""
        wall, monotonic = self._expiry(ttl_s)

        def work(tx: Tx) -> int:
            return tx.execute(
                "UPDATE lease SET expires_ns = ?, boot_id = ?, expires_monotonic_ns = ? WHERE id = ?",
                (wall, self._boot_id, monotonic, lease),
            ).rowcount

        if await self._db.write(work) == 0:
            raise LeaseLost(f"lease {lease} does not exist", hint="start the operation again")

    async def release(self, lease: LeaseId) -> None:
        """End a lease and its edges; may be repeated."""
        await self._db.write(
            lambda tx: tx.execute("DELETE FROM lease WHERE id = ?", (lease,)).close(), frees_space=True
        )

    async def list(self) -> list[LeaseInfo]:
        """All leases, oldest first."""

        def work(tx: Tx) -> list[LeaseInfo]:
            rows = tx.execute(
                "SELECT id, purpose, created_ns, expires_ns,"
                " (SELECT count(*) FROM lease_ref WHERE lease = lease.id) AS refs"
                " FROM lease ORDER BY created_ns, id"
            )
            return [LeaseInfo(LeaseId(row[0]), row[1], row[2], row[3], row[4]) for row in rows]

        return await self._db.read(work)

    def tx_expire(self, tx: Tx) -> int:
        """Delete the leases whose time is up; returns how many."""
        return tx.execute(
            "DELETE FROM lease WHERE"
            " CASE WHEN boot_id = ? THEN expires_monotonic_ns <= ? ELSE expires_ns <= ? END",
            (self._boot_id, round(self._clock.monotonic_s() * _NANO), self._clock.now_ns()),
        ).rowcount

    def _expiry(self, ttl_s: float) -> tuple[int, int]:
        ttl_ns = round(ttl_s * _NANO)
        return self._clock.now_ns() + ttl_ns, round(self._clock.monotonic_s() * _NANO) + ttl_ns
