"""The one state database: SQLite, one writer thread with group commit, readers beside it.

A unit of work is a plain function of a `Tx`. The writer thread takes whatever is queued,
runs each unit inside its own savepoint of one transaction, commits once (WAL,
synchronous=FULL) and only then answers. A unit that fails undoes its own savepoint; the
others of the batch are committed. Readers run on their own connections in threads and see
a snapshot; they never wait for the writer.

A unit must not do I/O of its own, must not keep the `Tx`, and may run later than a
cancellation of its caller: a cancelled `write` has either happened completely or not at all.

On a full disk, units that free space must still succeed: a reserve file beside the database
is given up for them and taken back when there is room again.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from orlop.base import failpoints
from orlop.base.errors import Kind, OrlopError
from orlop.store.migrate import Migration, builtin_migrations, migrate
from orlop.store.reserve import Reserve

__all__ = [
    "DATABASE_NAME",
    "ConstraintFailed",
    "Database",
    "DatabaseClosed",
    "DatabaseCorrupt",
    "DatabaseError",
    "StoreFull",
    "Tx",
    "check_header",
]

T = TypeVar("T")
DATABASE_NAME = "state.db"  # in the data root
_APPLICATION_ID = 0x4F524C50  # "ORLP"
_MAX_BATCH = 256
_READERS = 3
_WAL_LIMIT_BYTES = 64 << 20


class DatabaseError(OrlopError):
    """The database refused a statement: a bug of ours, or the disk's."""

    kind = Kind.INTERNAL
    code = "database-error"


class DatabaseCorrupt(OrlopError):
    """The file is not a database, or its pages are damaged. It is never replaced silently."""

    kind = Kind.CORRUPT
    code = "database-corrupt"
    remedy = "stop the engine and restore the data root from a backup; orlop fsck tells what is damaged"


class DatabaseClosed(OrlopError):
    """The engine is stopping."""

    kind = Kind.UNAVAILABLE
    code = "database-closed"


class ConstraintFailed(OrlopError):
    """A row collides with another one or names one that does not exist."""

    kind = Kind.CONFLICT
    code = "constraint-failed"


class StoreFull(OrlopError):
    """No space is left on the data root's file system."""

    kind = Kind.EXHAUSTED
    code = "store-full"
    remedy = "make room with docker system prune, or give the data root a larger disk"


class Tx:
    """What a unit of work sees of the database; valid only while the unit runs."""

    __slots__ = ("_connection",)

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def execute(self, sql: str, args: Sequence[object] = ()) -> sqlite3.Cursor:
        """Run one statement; rows can be unpacked and are indexed by number and by name.

        Raises:
            ConstraintFailed: uniqueness or a foreign key is violated.
            DatabaseCorrupt, StoreFull, DatabaseError: as named.
        """
        try:
            return self._connection.execute(sql, args)
        except sqlite3.Error as error:
            raise _translate(error) from error

    def executemany(self, sql: str, rows: Iterable[Sequence[object]]) -> None:
        """Run one statement for every row of arguments."""
        try:
            self._connection.executemany(sql, rows)
        except sqlite3.Error as error:
            raise _translate(error) from error

    def value(self, sql: str, args: Sequence[object] = ()) -> Any:
        """The first column of the first row, or None."""
        row = self.execute(sql, args).fetchone()
        return None if row is None else row[0]


@dataclass(slots=True)
class _Unit:
    work: Callable[[Tx], Any]
    future: Future[Any]
    frees_space: bool = False
    result: Any = None
    error: BaseException | None = None

    def run(self, connection: sqlite3.Connection) -> None:
        connection.execute("SAVEPOINT unit")
        try:
            self.result = self.work(Tx(connection))
        except BaseException as error:  # noqa: BLE001 - belongs to the caller, who gets it
            connection.execute("ROLLBACK TO unit")
            self.error = error
        connection.execute("RELEASE unit")

    def answer(self) -> None:
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class Database:
    """The open database; made by `open`, usable from any thread and any event loop."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._queue: queue.SimpleQueue[_Unit | None] = queue.SimpleQueue()
        self._state = threading.Lock()  # orders enqueueing before closing
        self._closed = False
        self._local = threading.local()
        self._reader_connections: list[sqlite3.Connection] = []
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="db-read")
        self._reserve = Reserve(f"{path}.reserve")
        self._writer = threading.Thread(target=self._write_loop, name="db-write", daemon=True)

    @classmethod
    def open(cls, path: str, migrations: Sequence[Migration] | None = None) -> Self:
        """Open or create the database at `path` and bring its schema up to date.

        A new database appears under its name only when it is complete, so an existing
        file that is empty or damaged is an error and never a fresh start.

        Raises:
            DatabaseCorrupt, SchemaMismatch, StoreFull: as named.
        """
        steps = builtin_migrations() if migrations is None else migrations
        try:
            if not os.path.lexists(path):
                _create(path, steps)
            check_header(path)
            connection = _connect(path)
            try:
                migrate(connection, steps)
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise _translate(error, path) from error
        database = cls(path)
        database._writer.start()
        return database

    async def write(self, work: Callable[[Tx], T], *, frees_space: bool = False) -> T:
        """Run `work` in the writer thread; returns its value after the durable commit.

        Args:
            work: the unit; it may be run twice when `frees_space`.
            frees_space: the unit deletes; on a full disk it may use the reserve.
        """
        return await asyncio.wrap_future(self._submit(work, frees_space=frees_space))

    def write_sync(self, work: Callable[[Tx], T], *, frees_space: bool = False) -> T:
        """`write` for threads and offline tools."""
        return self._submit(work, frees_space=frees_space).result()

    async def read(self, work: Callable[[Tx], T]) -> T:
        """Run `work` on a snapshot of the last committed state."""
        return await asyncio.wrap_future(self._submit_read(work))

    def read_sync(self, work: Callable[[Tx], T]) -> T:
        """`read` for threads and offline tools."""
        return self._submit_read(work).result()

    def close(self) -> None:
        """Finish what is queued, then close; may be repeated. Blocks for the last commit."""
        with self._state:
            if self._closed:
                return
            self._closed = True
            self._queue.put(None)
        self._readers.shutdown(wait=True)
        for connection in self._reader_connections:
            connection.close()
        self._writer.join()

    def _submit(self, work: Callable[[Tx], T], *, frees_space: bool) -> Future[T]:
        future: Future[T] = Future()
        with self._state:
            self._refuse_closed()
            self._queue.put(_Unit(work, future, frees_space))
        return future

    def _submit_read(self, work: Callable[[Tx], T]) -> Future[T]:
        with self._state:
            self._refuse_closed()
            return self._readers.submit(self._run_read, work)

    def _refuse_closed(self) -> None:
        if self._closed:
            raise DatabaseClosed("the state database is closed", hint="the engine is stopping")

    def _run_read(self, work: Callable[[Tx], T]) -> T:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        try:
            if connection is None:
                connection = self._local.connection = _connect(self.path, read_only=True)
                self._reader_connections.append(connection)
            connection.execute("BEGIN")
            try:
                return work(Tx(connection))
            finally:
                connection.rollback()
        except sqlite3.Error as error:
            raise _translate(error, self.path) from error

    def _write_loop(self) -> None:
        connection = _connect(self.path)
        while (unit := self._queue.get()) is not None:
            batch = [unit]
            stop = False
            while len(batch) < _MAX_BATCH and not stop:
                try:
                    following = self._queue.get_nowait()
                except queue.Empty:
                    break
                if following is None:
                    stop = True
                else:
                    batch.append(following)
            live = [unit for unit in batch if unit.future.set_running_or_notify_cancel()]
            self._run_live(connection, live)
            if stop:
                break
        connection.close()

    def _run_live(self, connection: sqlite3.Connection, live: Sequence[_Unit]) -> None:
        failure = self._run_batch(connection, live)
        urgent = [unit for unit in live if unit.frees_space]
        if isinstance(failure, StoreFull) and urgent and self._reserve.give_up():
            for unit in urgent:
                unit.error = None
            self._run_batch(connection, urgent)
        for unit in live:
            unit.answer()
        self._reserve.take_back()

    def _run_batch(self, connection: sqlite3.Connection, batch: Sequence[_Unit]) -> OrlopError | None:
        """Run and commit; a failure of the whole is set on every unit and returned."""
        try:
            connection.execute("BEGIN IMMEDIATE")
            for unit in batch:
                unit.run(connection)
            failpoints.hit("db.commit.before")
            connection.execute("COMMIT")
            failpoints.hit("db.commit.after")
        except (sqlite3.Error, OSError) as error:
            failure = _translate(error, self.path)
            if connection.in_transaction:
                connection.rollback()
            for unit in batch:
                unit.error = unit.error or failure
            return failure
        return None


def _connect(path: str, *, read_only: bool = False) -> sqlite3.Connection:
    # Connections move between threads only at close, which joins them first.
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA temp_store=MEMORY")
    connection.execute(f"PRAGMA journal_size_limit={_WAL_LIMIT_BYTES}")
    if read_only:
        connection.execute("PRAGMA query_only=ON")
    return connection


def _create(path: str, steps: Sequence[Migration]) -> None:
    """Make a complete database beside `path`, then give it the name."""
    fresh = f"{path}.new"
    for leftover in (fresh, f"{fresh}-wal", f"{fresh}-shm", f"{fresh}-journal"):
        if os.path.lexists(leftover):
            os.unlink(leftover)
    os.close(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    connection = _connect(fresh)
    try:
        connection.execute(f"PRAGMA application_id={_APPLICATION_ID}")
        migrate(connection, steps)
        connection.execute("PRAGMA journal_mode=WAL")
    finally:
        connection.close()
    _fsync(fresh, os.O_RDONLY)
    failpoints.hit("db.create.before-rename")
    os.rename(fresh, path)
    _fsync(os.path.dirname(os.path.abspath(path)), os.O_RDONLY | os.O_DIRECTORY)


def check_header(path: str) -> None:
    """Refuse a file that is no database of ours. Raises DatabaseCorrupt."""
    with open(path, "rb") as file:
        header = file.read(72)
    application = int.from_bytes(header[68:72], "big")
    if not header.startswith(b"SQLite format 3\0") or application != _APPLICATION_ID:
        raise DatabaseCorrupt(
            f'"{path}" is not an Orlop state database',
            hint="restore it from a backup, or move it away and run `orlop fsck` to see what can be kept",
        )


def _fsync(path: str, flags: int) -> None:
    fd = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _translate(error: sqlite3.Error | OSError, path: str = "") -> OrlopError:
    name = getattr(error, "sqlite_errorname", "") or ""
    where = f' "{path}"' if path else ""
    if name.startswith("SQLITE_CONSTRAINT"):
        return ConstraintFailed(str(error))
    if name == "SQLITE_FULL" or (isinstance(error, OSError) and error.errno in {28, 122}):
        return StoreFull(
            f"cannot write the state database{where}: no space left on device",
            hint="free some space; nothing that was committed is lost",
        )
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return DatabaseCorrupt(
            f"the state database{where} is damaged: {error}",
            hint="restore it from a backup, or move it away and run `orlop fsck` to see what can be kept",
        )
    return DatabaseError(f"state database{where}: {error}", sqlite=name)
