"""All containers in memory, found by id, prefix or name; their rows in the database.

Reads never wait. The one writer of a container's row is this module: `add` and `remove` return after
the durable commit, changes of the state are written behind: the truth of a running container
lies in its run dir, so what a crash can lose here is found again by the reconciliation. Writes of
one container never overtake each other: a later one replaces one that still waits.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from orlop.aio.scope import Background
from orlop.base import log
from orlop.base.errors import InvalidInput, Kind, NotFound, OrlopError
from orlop.base.ids import ContainerId
from orlop.engine.model import Container, Record, State
from orlop.images.uses import tx_touch
from orlop.store.db import Database, Tx
from orlop.wire import gojson

__all__ = ["AmbiguousPrefix", "Catalog", "NameInUse", "NoSuchContainer"]


_RETRY_S = 1.0
_FLUSH_TIMEOUT_S = 5.0


class NoSuchContainer(NotFound):
    """No container has this id, prefix or name."""

    code = "no-such-container"


class AmbiguousPrefix(InvalidInput):
    """More than one id starts like this."""

    code = "ambiguous-prefix"


class NameInUse(OrlopError):
    """Another container has the name."""

    kind = Kind.CONFLICT
    code = "name-in-use"


class Catalog:
    """The containers of this engine."""

    def __init__(self, db: Database, background: Background) -> None:
        self._db = db
        self._background = background
        self._by_id: dict[ContainerId, Container] = {}
        self._ids: list[ContainerId] = []
        self._by_name: dict[str, ContainerId] = {}
        self._being_made: dict[ContainerId, str] = {}
        self._dirty: dict[ContainerId, Container] = {}
        self._flusher: asyncio.Task[None] | None = None

    def __iter__(self) -> Iterator[Container]:
        return iter(tuple(self._by_id.values()))

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, container_id: str) -> bool:
        return container_id in self._by_id

    @property
    def names(self) -> dict[str, ContainerId]:
        """Names in use, reserved ones too. Read only."""
        return self._by_name

    @property
    def being_made(self) -> Mapping[ContainerId, str]:
        """Containers that will exist soon, and the images they use."""
        return self._being_made

    @contextmanager
    def making(self, container_id: ContainerId, image_id: str) -> Iterator[None]:
        """Its image counts as used while a container is made."""
        self._being_made[container_id] = image_id
        try:
            yield
        finally:
            del self._being_made[container_id]

    async def load(self) -> None:
        """Read all rows; a row that cannot be read is reported and left alone."""

        def work(tx: Tx) -> list[tuple[str, str, str]]:
            return [
                (row[0], row[1], row[2])
                for row in tx.execute("SELECT id, record, state FROM container ORDER BY created_ns, id")
            ]

        for container_id, record, state in await self._db.read(work):
            try:
                container = Container(
                    gojson.decode(Record, record.encode()), gojson.decode(State, state.encode())
                )
            except OrlopError as error:
                log.error("a container's row cannot be read", container=container_id, error=error)
                continue
            self.show(container)

    def find(self, reference: str) -> Container | None:
        """By full id, name (with or without slash), or unique prefix of the id.

        Raises:
            AmbiguousPrefix: several ids start with it.
        """
        exact = self._by_id.get(ContainerId(reference))
        if exact is not None:
            return exact
        by_name = self._by_name.get(reference.removeprefix("/"))
        if by_name is not None:
            return self._by_id.get(by_name)
        if not reference:
            return None
        start = bisect_left(self._ids, reference)
        matches = [item for item in self._ids[start : start + 2] if item.startswith(reference)]
        if len(matches) > 1:
            raise AmbiguousPrefix(f"Multiple IDs found with provided prefix: {reference[:64]}")
        return self._by_id.get(matches[0]) if matches else None

    def get(self, reference: str) -> Container:
        """Like `find`, for callers that need it.

        Raises:
            NoSuchContainer: with dockerd's text.
        """
        found = self.find(reference)
        if found is None:
            raise NoSuchContainer(f"No such container: {reference[:300]}")
        return found

    def reserve_name(self, name: str, container_id: ContainerId, *, prefix: str = "") -> None:
        """Take a name before the container exists; `release_name` gives it back.

        Raises:
            NameInUse: with dockerd's text.
        """
        owner = self._by_name.get(name)
        if owner is not None and owner != container_id:
            # docker CLI users and compose match on this text
            raise NameInUse(
                f'{prefix}Conflict. The container name "/{name}" is already in use by container "{owner}". '
                "You have to remove (or rename) that container to be able to reuse that name."
            )
        self._by_name[name] = container_id

    def release_name(self, name: str, container_id: ContainerId) -> None:
        """Give a reserved name back; fine when it is another's."""
        if self._by_name.get(name) == container_id:
            del self._by_name[name]

    @staticmethod
    def row_writer(container: Container) -> Callable[[Tx], None]:
        """What writes the row of a new container, in the transaction that makes its snapshot."""
        record = container.record
        row = (
            record.id,
            record.name,
            record.image_id,
            record.created_ns,
            gojson.encode(record).decode(),
            gojson.encode(container.state).decode(),
        )

        def write(tx: Tx) -> None:
            tx.execute("INSERT INTO container VALUES (?, ?, ?, ?, ?, ?)", row)
            tx_touch(tx, [record.image_id], record.created_ns)

        return write

    def show(self, container: Container) -> None:
        """From now on it is found and listed; its row is written, its name was reserved."""
        self._by_id[container.id] = container
        insort(self._ids, container.id)
        self._by_name[container.name] = container.id

    async def remove(self, container: Container) -> None:
        """Delete the row, then forget the container and its name. May be repeated."""
        self._dirty.pop(container.id, None)

        def work(tx: Tx) -> None:
            tx.execute("DELETE FROM container WHERE id = ?", (container.id,))
            tx_touch(tx, [container.record.image_id], container.state.finished_ns)

        await self._db.write(work, frees_space=True)
        self.forget(container)

    def forget(self, container: Container) -> None:
        """Take it out of the memory."""
        if self._by_id.pop(container.id, None) is not None:
            del self._ids[bisect_left(self._ids, container.id)]
        self.release_name(container.name, container.id)

    async def rename(self, container: Container, record: Record) -> None:
        """Store a record with another name. The new name is reserved already."""
        old = container.name
        await self._write_record(record)
        container.record = record
        self.release_name(old, container.id)

    async def update(self, container: Container, record: Record) -> None:
        """Store a changed record; durable on return."""
        await self._write_record(record)
        container.record = record

    def save_soon(self, container: Container) -> None:
        """Write the state behind; returns at once."""
        self._dirty[container.id] = container
        if self._flusher is None or self._flusher.done():
            self._flusher = self._background.spawn(self._flush(), name="save-states")

    async def flush(self) -> None:
        """Wait until all states that were to be saved are durable; not for ever on a full disk."""
        if self._flusher is not None and not self._flusher.done():
            await asyncio.wait([self._flusher], timeout=_FLUSH_TIMEOUT_S)

    async def _flush(self) -> None:
        while self._dirty:
            saved, self._dirty = self._dirty, {}
            rows = [(gojson.encode(container.state).decode(), container.id) for container in saved.values()]
            try:
                await self._db.write(_save_states(rows))
            except OrlopError as error:
                log.warning("states of containers could not be saved yet", error=error)
                self._dirty = {key: item for key, item in saved.items() if key in self._by_id} | self._dirty
                await asyncio.sleep(_RETRY_S)

    async def _write_record(self, record: Record) -> None:
        text = gojson.encode(record).decode()
        await self._db.write(
            lambda tx: tx.execute(
                "UPDATE container SET name = ?, record = ? WHERE id = ?", (record.name, text, record.id)
            ).close()
        )


def _save_states(rows: list[tuple[str, ContainerId]]) -> Callable[[Tx], None]:
    return lambda tx: tx.executemany("UPDATE container SET state = ? WHERE id = ?", rows)
