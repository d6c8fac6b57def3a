"""The build cache: keys, the links between them, and what they gave. Survives restarts.

A record counts only while all its layers exist. Records are roots of collection: what they name
stays until they are pruned. Those that a running build relies on are pinned in memory.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from orlop.base import failpoints
from orlop.base.clock import Clock, SystemClock
from orlop.build.results import BuiltLayer, LayersResult
from orlop.build.solver import KeyLink, Match
from orlop.oci.digest import Digest
from orlop.store.db import Database, Tx
from orlop.store.layers import KIND_LAYER

__all__ = ["BuildCache", "CacheRecord", "Pins"]

KIND_BUILD = "build"
MAX_STEPS = 100_000
_SIZE = "SELECT coalesce(sum(content_bytes), 0) FROM layer WHERE diff_id IN (SELECT value FROM json_each(?))"
_COLUMNS = "key, layers, description, size_bytes, created_ns, used_ns, use_count"

Inputs = Sequence[Sequence[KeyLink]]


@dataclass(frozen=True, slots=True)
class CacheRecord:
    """A record as it is listed. `size_bytes` counts the files of the layers that the step added."""

    key: str
    description: str
    layers: tuple[BuiltLayer, ...]
    size_bytes: int
    created_ns: int
    used_ns: int
    use_count: int
    is_in_use: bool = False


class Pins:
    """Keys that one build relies on."""

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts
        self.keys: list[str] = []

    def add(self, key: str) -> None:
        """Keep a record until the build is over."""
        self._counts[key] += 1
        self.keys.append(key)


class BuildCache:
    """The cache of one engine; also the `Resource` that keeps its layers from collection."""

    kind = KIND_BUILD

    def __init__(self, db: Database, clock: Clock | None = None) -> None:
        self._db = db
        self._clock = clock or SystemClock()
        self._pinned: Counter[str] = Counter()

    @contextmanager
    def pins(self) -> Iterator[Pins]:
        """Pins for the length of a build."""
        pins = Pins(self._pinned)
        try:
            yield pins
        finally:
            self._pinned.subtract(pins.keys)
            self._pinned += Counter()  # drops what is no longer positive

    async def query(self, digest: str, inputs: Inputs, pins: Pins) -> tuple[Match, ...]:
        """Keys that every input leads to by `digest`, those with a usable result first, then the newest."""

        def work(tx: Tx) -> list[tuple[int, Match]]:
            return [_match(tx, key) for key in _targets(tx, digest, inputs)]

        found = await self._db.read(work)
        for _, match in found:
            pins.add(match.key)
        ordered = sorted(found, key=lambda pair: (pair[1].result is None, -pair[0]))
        return tuple(match for _, match in ordered)

    async def save(
        self,
        digest: str,
        inputs: Inputs,
        key: str,
        result: LayersResult,
        added: Sequence[Digest],
        description: str,
    ) -> None:
        """Write a record and the ways to it, in one transaction; the layers are durable by now."""
        now = self._clock.now_ns()
        layers = json.dumps([[layer.diff_id, layer.created_ns] for layer in result.layers])

        def work(tx: Tx) -> None:
            size = tx.value(_SIZE, (json.dumps(list(added)),))
            tx.execute("DELETE FROM build_record WHERE key = ?", (key,))
            tx.execute(
                f"INSERT INTO build_record ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, 0)",  # noqa: S608
                (key, layers, description[:1000], size, now, now),
            )
            tx.executemany(
                "INSERT OR IGNORE INTO build_record_layer VALUES (?, ?)",
                [(key, diff_id) for diff_id in result.diff_ids],
            )
            _insert_links(tx, digest, inputs, key)

        failpoints.hit("build.cache.before-row")
        await self._db.write(work)

    async def link(self, digest: str, inputs: Inputs, key: str) -> None:
        """Write further ways to an existing record."""
        await self._db.write(lambda tx: _insert_links(tx, digest, inputs, key))

    async def known_steps(self, ids: Sequence[str]) -> set[str]:
        """Those of the ids that some build has shown before."""

        def work(tx: Tx) -> set[str]:
            rows = tx.execute(
                "SELECT id FROM build_step WHERE id IN (SELECT value FROM json_each(?))",
                (json.dumps(list(ids)),),
            )
            return {row[0] for row in rows}

        return await self._db.read(work)

    async def forget_steps(self) -> None:
        """From now on no step has been shown before."""
        await self._db.write(lambda tx: tx.execute("DELETE FROM build_step"), frees_space=True)

    async def touch(self, keys: Iterable[str], steps: Iterable[str]) -> None:
        """Note what a build has used and shown, at its end."""
        now = self._clock.now_ns()
        used = [(now, key) for key in set(keys)]
        shown = [(step, now) for step in set(steps)]

        def work(tx: Tx) -> None:
            tx.executemany(
                "UPDATE build_record SET used_ns = ?, use_count = use_count + 1 WHERE key = ?", used
            )
            tx.executemany("INSERT OR REPLACE INTO build_step VALUES (?, ?)", shown)
            tx.execute(
                "DELETE FROM build_step WHERE (SELECT count(*) FROM build_step) > ?"
                " AND id NOT IN (SELECT id FROM build_step ORDER BY used_ns DESC LIMIT ?)",
                (MAX_STEPS, MAX_STEPS),
            )

        await self._db.write(work)

    async def records(self) -> list[CacheRecord]:
        """All records, least recently used first."""

        def work(tx: Tx) -> list[CacheRecord]:
            rows = tx.execute(f"SELECT {_COLUMNS} FROM build_record ORDER BY used_ns, key")  # noqa: S608
            return [_record(row, is_in_use=self._pinned[row[0]] > 0) for row in rows]

        return await self._db.read(work)

    async def remove(self, keys: Sequence[str]) -> list[str]:
        """Forget records, but not those that a running build relies on; the keys that went."""
        free = [key for key in keys if not self._pinned[key]]
        if free:
            await self._db.write(lambda tx: self.forget(tx, free), frees_space=True)
        return free

    # --- Resource ---

    def keys(self, tx: Tx) -> Iterable[str]:  # noqa: ARG002 - the protocol's shape
        """Records go by pruning, never by collection."""
        return ()

    def roots(self, tx: Tx) -> Iterable[tuple[str, str]]:
        """The layers of every record."""
        for row in tx.execute("SELECT DISTINCT diff_id FROM build_record_layer"):
            yield (KIND_LAYER, row[0])

    def edges(self, tx: Tx) -> Iterable[tuple[str, tuple[str, str]]]:  # noqa: ARG002
        """None: the roots are the layers themselves."""
        return ()

    def forget(self, tx: Tx, keys: Sequence[str]) -> None:
        """Delete records, and links that lead to no record any more.

        A link to a key without a record stays while a later step's record hangs on it.
        """
        tx.executemany("DELETE FROM build_record WHERE key = ?", [(key,) for key in keys])
        while tx.execute(
            "DELETE FROM build_link WHERE target NOT IN (SELECT key FROM build_record)"
            " AND target NOT IN (SELECT input_key FROM build_link)"
        ).rowcount:
            continue

    async def sweep(self, keys: Sequence[str] | None = None) -> int:  # noqa: ARG002
        """Records have no bytes of their own."""
        return 0


def _targets(tx: Tx, digest: str, inputs: Inputs) -> list[str]:
    """Keys reached from all inputs; an operation without inputs is its own key."""
    if not inputs:
        return [digest]
    common: set[str] | None = None
    for number, row in enumerate(inputs):
        found = {
            target
            for key, selector in row
            for (target,) in tx.execute(
                "SELECT target FROM build_link"
                " WHERE input_key = ? AND input = ? AND digest = ? AND selector = ?",
                (key, number, digest, selector),
            )
        }
        common = found if common is None else common & found
        if not common:
            return []
    return sorted(common or ())


def _match(tx: Tx, key: str) -> tuple[int, Match]:
    row = tx.execute("SELECT layers, created_ns FROM build_record WHERE key = ?", (key,)).fetchone()
    if row is None:
        return 0, Match(key, None)
    result = _result(row[0])
    missing = tx.value(
        "SELECT count(*) FROM json_each(?) WHERE value NOT IN (SELECT diff_id FROM layer)",
        (json.dumps(result.diff_ids),),
    )
    return row[1], Match(key, None if missing else result)


def _insert_links(tx: Tx, digest: str, inputs: Inputs, key: str) -> None:
    tx.executemany(
        "INSERT OR IGNORE INTO build_link VALUES (?, ?, ?, ?, ?)",
        [
            (input_key, number, digest, selector, key)
            for number, row in enumerate(inputs)
            for input_key, selector in row
        ],
    )


def _result(encoded: str) -> LayersResult:
    return LayersResult(
        tuple(BuiltLayer(Digest(diff_id), created) for diff_id, created in json.loads(encoded))
    )


def _record(row: Sequence[object], *, is_in_use: bool) -> CacheRecord:
    key, layers, description, size_bytes, created_ns, used_ns, use_count = row
    assert isinstance(layers, str)
    size, created, used, count = (int(str(value)) for value in (size_bytes, created_ns, used_ns, use_count))
    found = _result(layers).layers
    return CacheRecord(str(key), str(description), found, size, created, used, count, is_in_use)
