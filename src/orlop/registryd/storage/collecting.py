"""What collection may take from a registry: links and manifests that nobody needs.

    roots                                   edges
    a tag's manifest                        manifest -> link of each blob that it names
    every manifest, unless untagged ones    manifest -> manifests that it names
      are to go; young ones in any case     manifest -> manifests about it (referrers)
    links that are young or were asked      manifest -> its own bytes
      for lately                            link     -> the blob's bytes

One transaction marks and forgets; a push is another, so each sees the other done or not begun. A
client that was told "this blob exists" may take its time until it pushes the manifest: such an answer
makes the link young again, and after a start all links are young.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from orlop.base.clock import Clock
from orlop.registryd.storage.rows import BLOB, MANIFEST
from orlop.store.blobs import KIND_BLOB
from orlop.store.db import Tx
from orlop.store.mark import Node

__all__ = ["LinkRows", "ManifestRows"]

_LINK, _MANIFEST = "registry-link", "registry-manifest"
_MAX_TOUCHED = 1_000_000
_NANO = 1_000_000_000


class LinkRows:
    """Links of blobs to repositories, as a collectable resource. Keys: `<repository id> <digest>`."""

    kind = _LINK

    def __init__(self, clock: Clock, grace_s: float) -> None:
        self._clock = clock
        self._grace_ns = round(grace_s * _NANO)
        self._started_ns = clock.now_ns()
        self._touched: dict[tuple[str, str], int] = {}

    def touch(self, name: str, digest: str) -> None:
        """Somebody was told that the repository has this blob."""
        if len(self._touched) < _MAX_TOUCHED:
            self._touched[name, digest] = self._clock.now_ns()

    def keys(self, tx: Tx) -> Iterable[str]:
        for row in tx.execute("SELECT repository, digest FROM registry_link"):
            yield f"{row[0]} {row[1]}"

    def roots(self, tx: Tx) -> Iterable[Node]:
        deadline_ns = self._clock.now_ns() - self._grace_ns
        self._touched = {key: at_ns for key, at_ns in self._touched.items() if at_ns > deadline_ns}
        limit_ns = -1 if self._started_ns > deadline_ns else deadline_ns
        sql = "SELECT repository, digest FROM registry_link WHERE linked_ns > ?"
        yield from ((_LINK, f"{row[0]} {row[1]}") for row in tx.execute(sql, (limit_ns,)))
        by_name = {row[0]: row[1] for row in tx.execute("SELECT name, id FROM registry_repository")}
        yield from ((_LINK, f"{by_name[name]} {digest}") for name, digest in self._touched if name in by_name)

    def edges(self, tx: Tx) -> Iterable[tuple[str, Node]]:
        for row in tx.execute("SELECT repository, digest FROM registry_link"):
            yield f"{row[0]} {row[1]}", (KIND_BLOB, row[1])

    def forget(self, tx: Tx, keys: Sequence[str]) -> None:
        tx.executemany(
            "DELETE FROM registry_link WHERE repository = ? AND digest = ?", [key.split() for key in keys]
        )

    async def sweep(self, keys: Sequence[str] | None = None) -> int:  # noqa: ARG002 - rows have no bytes
        return 0


class ManifestRows:
    """Manifests, as a collectable resource. Keys: `<repository id> <digest>`."""

    kind = _MANIFEST

    def __init__(self, clock: Clock, grace_s: float, *, removes_untagged: bool) -> None:
        self._clock = clock
        self._grace_ns = round(grace_s * _NANO)
        self._removes_untagged = removes_untagged

    def keys(self, tx: Tx) -> Iterable[str]:
        for row in tx.execute("SELECT repository, digest FROM registry_manifest"):
            yield f"{row[0]} {row[1]}"

    def roots(self, tx: Tx) -> Iterable[Node]:
        limit_ns = self._clock.now_ns() - self._grace_ns if self._removes_untagged else -1
        sql = (
            "SELECT repository, digest FROM registry_tag UNION"
            " SELECT repository, digest FROM registry_manifest WHERE pushed_ns > ?"
        )
        yield from ((_MANIFEST, f"{row[0]} {row[1]}") for row in tx.execute(sql, (limit_ns,)))

    def edges(self, tx: Tx) -> Iterable[tuple[str, Node]]:
        kinds = {BLOB: _LINK, MANIFEST: _MANIFEST}
        for row in tx.execute("SELECT repository, manifest, kind, digest FROM registry_reference"):
            yield f"{row[0]} {row[1]}", (kinds[row[2]], f"{row[0]} {row[3]}")
        for row in tx.execute("SELECT repository, digest, subject FROM registry_manifest"):
            key = f"{row[0]} {row[1]}"
            yield key, (KIND_BLOB, row[1])
            if row[2] is not None:
                yield f"{row[0]} {row[2]}", (_MANIFEST, key)

    def forget(self, tx: Tx, keys: Sequence[str]) -> None:
        tx.executemany(
            "DELETE FROM registry_manifest WHERE repository = ? AND digest = ?", [key.split() for key in keys]
        )

    async def sweep(self, keys: Sequence[str] | None = None) -> int:  # noqa: ARG002 - rows have no bytes
        return 0
