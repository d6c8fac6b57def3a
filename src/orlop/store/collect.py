"""Collection: what no root and no lease reaches is forgotten, then unlinked.

One write transaction expires leases, marks and deletes rows; bytes go after it has
committed, so a crash in between leaves only bytes without rows, which `recover` sweeps.
Every kind of thing brings its own `Resource`; the composition root lists them. Edges lie
in the owners' tables and change in the transactions of the owners, so no lock is needed.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from orlop.base import failpoints
from orlop.store.db import Database, Tx
from orlop.store.leases import Leases
from orlop.store.mark import Node, unreachable

__all__ = ["Collector", "Reclaimed", "Resource"]


class Resource(Protocol):
    """One kind of collectable or collecting thing: blob, layer, image, container, cache record.

    The methods that take a `Tx` run inside one transaction and do no I/O of their own.
    """

    @property
    def kind(self) -> str:
        """The word in edges: `blob`."""

    def keys(self, tx: Tx) -> Iterable[str]:
        """Everything of this kind that collection may take away when nobody needs it."""

    def roots(self, tx: Tx) -> Iterable[Node]:
        """What is needed for its own sake; may name nodes of any kind."""

    def edges(self, tx: Tx) -> Iterable[tuple[str, Node]]:
        """For each key what it needs: (key, (kind, key))."""

    def forget(self, tx: Tx, keys: Sequence[str]) -> None:
        """Delete the rows of these keys, in the transaction of the mark."""

    async def sweep(self, keys: Sequence[str] | None = None) -> int:
        """Unlink the bytes of `keys` (None: of anything) without a row; idempotent. Returns bytes freed."""


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """What a collection took away."""

    keys: Mapping[str, tuple[str, ...]]  # by kind
    size_bytes: int


class Collector:
    """Runs collections over explicitly listed resources, one at a time."""

    def __init__(self, db: Database, leases: Leases, resources: Sequence[Resource]) -> None:
        self._db = db
        self._leases = leases
        self._resources = {resource.kind: resource for resource in resources}
        assert len(self._resources) == len(resources), "two resources of one kind"
        self._lock = asyncio.Lock()

    async def run(self) -> Reclaimed:
        """Forget and unlink everything that nobody needs; safe at any time, may be repeated."""
        async with self._lock:
            garbage = await self._db.write(self._forget_garbage, frees_space=True)
            failpoints.hit("collect.after-forget")
            freed = 0
            for kind, keys in garbage.items():
                freed += await self._resources[kind].sweep(keys)
            return Reclaimed({kind: tuple(keys) for kind, keys in garbage.items()}, freed)

    async def recover(self) -> int:
        """Unlink bytes that a crash left without a row; returns bytes freed. Call it at start."""
        async with self._lock:
            freed = 0
            for resource in self._resources.values():
                freed += await resource.sweep(None)
            return freed

    def _forget_garbage(self, tx: Tx) -> dict[str, list[str]]:
        self._leases.tx_expire(tx)
        resources = self._resources.values()
        nodes = [(resource.kind, key) for resource in resources for key in resource.keys(tx)]
        roots = [root for resource in resources for root in resource.roots(tx)]
        roots += [(kind, key) for kind, key in tx.execute("SELECT DISTINCT kind, key FROM lease_ref")]
        edges = (((resource.kind, key), node) for resource in resources for key, node in resource.edges(tx))
        garbage: defaultdict[str, list[str]] = defaultdict(list)
        for kind, key in sorted(unreachable(nodes, roots, edges)):
            garbage[kind].append(key)
        for kind, keys in garbage.items():
            self._resources[kind].forget(tx, keys)
        return dict(garbage)
