"""Collection while others push: what nobody needs goes, in short transactions.

    goes                    unless
    an untagged manifest    untagged ones are kept (the default), it is young, or a tag, an index or a
                            subject that stays leads to it
    a link of a blob        it is young, or a manifest of its repository names the blob
    a blob's row, bytes     a link, a manifest or a lease has it

Candidates are found on a snapshot beside the writer and checked again in the transaction that deletes
them, so a push sees each as there or gone. A link becomes young again when its last manifest is deleted
and when a client is told that the blob is there: it may take its time until it pushes the manifest.
"""

from __future__ import annotations

from collections.abc import Sequence

from orlop.base import failpoints
from orlop.base.clock import Clock
from orlop.oci.digest import Digest
from orlop.registryd.storage.rows import MANIFEST, delete_manifest_row
from orlop.store.blobs import BlobStore
from orlop.store.db import Database, Tx
from orlop.store.mark import Node, unreachable

__all__ = ["RegistryCollector"]

_BATCH = 500
_NANO = 1_000_000_000
_UNNAMED = (
    "NOT EXISTS (SELECT 1 FROM registry_reference AS f"
    " WHERE f.repository = registry_link.repository AND f.digest = registry_link.digest AND f.kind = 0)"
)
_UNUSED = (
    "NOT EXISTS (SELECT 1 FROM registry_link AS l WHERE l.digest = blob.digest)"
    " AND NOT EXISTS (SELECT 1 FROM registry_manifest AS m WHERE m.digest = blob.digest)"
    " AND NOT EXISTS (SELECT 1 FROM lease_ref AS h WHERE h.kind = 'blob' AND h.key = blob.digest)"
)


class RegistryCollector:
    """Collects in one registry.

    Args:
        db: the database of its rows.
        blobs: the bytes.
        clock: what is young is told by it.
        grace_s: how long something unused stays.
        removes_untagged: manifests without a tag go, too.
    """

    def __init__(
        self, db: Database, blobs: BlobStore, clock: Clock, grace_s: float, *, removes_untagged: bool
    ) -> None:
        self._db = db
        self._blobs = blobs
        self._clock = clock
        self._grace_ns = round(grace_s * _NANO)
        self._removes_untagged = removes_untagged

    async def run(self) -> tuple[int, int]:
        """Collect once: how many things went, and how many bytes were freed."""
        now_ns = self._clock.now_ns()
        limit_ns = now_ns - self._grace_ns
        count = 0
        if self._removes_untagged:
            count += await self._db.write(lambda tx: _forget_untagged(tx, limit_ns, now_ns), frees_space=True)
        count += await self._forget_links(limit_ns)
        gone = await self._forget_blobs()
        if not gone:
            return count, 0
        failpoints.hit("registry.collect.after-forget")
        return count + len(gone), await self._blobs.sweep(gone)

    def is_stale(self, linked_ns: int) -> bool:
        """True for a link that could be collected before long."""
        return linked_ns <= self._clock.now_ns() - self._grace_ns // 2

    async def _forget_links(self, limit_ns: int) -> int:
        find = f"SELECT repository, digest FROM registry_link WHERE linked_ns <= ? AND {_UNNAMED}"  # noqa: S608
        drop = (
            "DELETE FROM registry_link WHERE repository = ? AND digest = ?"  # noqa: S608 - constants
            f" AND linked_ns <= ? AND {_UNNAMED}"
        )
        found = await self._db.read(lambda tx: [tuple(row) for row in tx.execute(find, (limit_ns,))])
        count = 0
        for start in range(0, len(found), _BATCH):
            batch = [(*row, limit_ns) for row in found[start : start + _BATCH]]
            count += len(await self._drop(drop, batch))
        return count

    async def _forget_blobs(self) -> list[Digest]:
        find = f"SELECT digest FROM blob WHERE {_UNUSED}"  # noqa: S608 - constants
        drop = f"DELETE FROM blob WHERE digest = ? AND {_UNUSED}"  # noqa: S608
        found = await self._db.read(lambda tx: [tuple(row) for row in tx.execute(find)])
        gone: list[Digest] = []
        for start in range(0, len(found), _BATCH):
            gone += [Digest(str(row[0])) for row in await self._drop(drop, found[start : start + _BATCH])]
        return gone

    async def _drop(self, sql: str, batch: Sequence[tuple[object, ...]]) -> list[tuple[object, ...]]:
        """Run a deletion for each row of arguments; those that deleted something."""
        return await self._db.write(
            lambda tx: [row for row in batch if tx.execute(sql, row).rowcount > 0], frees_space=True
        )


def _forget_untagged(tx: Tx, limit_ns: int, now_ns: int) -> int:
    nodes = [_node(row) for row in tx.execute("SELECT repository, digest FROM registry_manifest")]
    roots = tx.execute(
        "SELECT repository, digest FROM registry_tag UNION"
        " SELECT repository, digest FROM registry_manifest WHERE pushed_ns > ?",
        (limit_ns,),
    )
    children = tx.execute(
        "SELECT repository, manifest, digest FROM registry_reference WHERE kind = ?", (MANIFEST,)
    )
    edges = [((str(row[0]), row[1]), (str(row[0]), row[2])) for row in children]
    abouts = tx.execute("SELECT repository, subject, digest FROM registry_manifest WHERE subject IS NOT NULL")
    edges += [((str(row[0]), row[1]), (str(row[0]), row[2])) for row in abouts]
    garbage = unreachable(nodes, [_node(row) for row in roots], edges)
    for repository, digest in garbage:
        delete_manifest_row(tx, int(repository), Digest(digest), now_ns)
    return len(garbage)


def _node(row: Sequence[object]) -> Node:
    return str(row[0]), str(row[1])
