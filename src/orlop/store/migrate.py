"""Schema migrations: numbered SQL files, forward only, each applied once and remembered.

Files are `schema/NNNN_<noun>.sql`; several packages own one each. A file that was applied
never changes again: its checksum is stored beside its name and compared at every start.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources

from orlop.base.errors import Kind, OrlopError

__all__ = ["Migration", "SchemaMismatch", "builtin_migrations", "migrate"]

_NAME = re.compile(r"[0-9]{4}_[a-z0-9_]+\.sql\Z")
_TABLE = (
    "CREATE TABLE IF NOT EXISTS schema_migration "
    "(name TEXT PRIMARY KEY, checksum TEXT NOT NULL) WITHOUT ROWID"
)


class SchemaMismatch(OrlopError):
    """The database was written by a version of Orlop whose schema this one does not have."""

    kind = Kind.UNSUPPORTED
    code = "schema-mismatch"


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file."""

    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """sha256 of the text."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def builtin_migrations() -> list[Migration]:
    """The files of the package, in order of their numbers."""
    folder = resources.files("orlop.store").joinpath("schema")
    names = sorted(entry.name for entry in folder.iterdir() if _NAME.match(entry.name))
    return [Migration(name, folder.joinpath(name).read_text("utf-8")) for name in names]


def migrate(connection: sqlite3.Connection, migrations: Sequence[Migration]) -> list[str]:
    """Apply what is missing, in one transaction; returns the names applied.

    Raises:
        SchemaMismatch: a known migration changed, or an applied one is unknown here.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(_TABLE)
        applied = dict(connection.execute("SELECT name, checksum FROM schema_migration"))
        _check_applied(applied, migrations)
        fresh = [migration for migration in migrations if migration.name not in applied]
        for migration in fresh:
            for statement in _statements(migration.sql):
                connection.execute(statement)
            connection.execute(
                "INSERT INTO schema_migration VALUES (?, ?)", (migration.name, migration.checksum)
            )
        connection.execute("COMMIT")
    except BaseException:
        connection.rollback()
        raise
    return [migration.name for migration in fresh]


def _check_applied(applied: dict[str, str], migrations: Sequence[Migration]) -> None:
    known = {migration.name: migration.checksum for migration in migrations}
    for name, checksum in applied.items():
        if name not in known:
            raise SchemaMismatch(
                f"the state database has schema step {name!r}, which this version does not know",
                hint="it was written by a newer Orlop: start that version, or use another --data-root",
            )
        if known[name] != checksum:
            raise SchemaMismatch(
                f"schema step {name!r} differs from the one the state database was made with",
                hint="start the version of Orlop that made it, or use another --data-root",
            )


def _statements(script: str) -> Iterator[str]:
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""
    if any(line.strip() and not line.lstrip().startswith("--") for line in pending.splitlines()):
        yield pending  # a last statement without its semicolon
