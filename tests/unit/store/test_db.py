"""Database: group commit, isolation of units, recovery and refusal of damage."""

import asyncio
import os

import pytest

from orlop.base import failpoints
from orlop.store.db import (
    ConstraintFailed,
    Database,
    DatabaseClosed,
    DatabaseCorrupt,
    DatabaseError,
    StoreFull,
)
from orlop.store.migrate import Migration, SchemaMismatch

STEPS = [Migration("0001_thing.sql", "CREATE TABLE thing (name TEXT PRIMARY KEY);")]


@pytest.fixture
def db(tmp_path):
    database = Database.open(str(tmp_path / "state.db"), STEPS)
    yield database
    database.close()


@pytest.fixture(autouse=True)
def no_failpoints():
    yield
    failpoints.configure("")


def insert(name):
    return lambda tx: tx.execute("INSERT INTO thing VALUES (?)", (name,)).rowcount


def names(database):
    return [
        row["name"]
        for row in database.read_sync(
            lambda tx: tx.execute("SELECT name FROM thing ORDER BY name").fetchall()
        )
    ]


def test_what_was_written_is_read_back_after_reopening(db, tmp_path):
    assert db.write_sync(insert("a")) == 1
    db.close()

    again = Database.open(str(tmp_path / "state.db"), STEPS)

    assert names(again) == ["a"]
    again.close()


def test_a_failing_unit_of_a_batch_spoils_no_other(db):
    async def main():
        units = [db.write(insert("a")), db.write(insert("a")), db.write(insert("b")), db.write(boom)]
        return await asyncio.gather(*units, return_exceptions=True)

    def boom(tx):
        tx.execute("INSERT INTO thing VALUES ('never')")
        raise KeyError("mine")

    first, second, third, fourth = asyncio.run(main())

    assert (first, third) == (1, 1)
    assert isinstance(second, ConstraintFailed)
    assert isinstance(fourth, KeyError)
    assert names(db) == ["a", "b"]


def test_many_writers_share_commits(db, monkeypatch):
    commits = []
    monkeypatch.setattr(failpoints, "hit", commits.append)

    async def main():
        await asyncio.gather(*(db.write(insert(str(number))) for number in range(200)))

    asyncio.run(main())

    assert commits.count("db.commit.before") < 100
    assert len(names(db)) == 200


def test_a_failed_commit_fails_every_unit_and_keeps_nothing(db):
    failpoints.configure("db.commit.before=enospc@1")

    with pytest.raises(StoreFull):
        db.write_sync(insert("a"))

    assert names(db) == []
    assert db.write_sync(insert("b")) == 1


def test_on_a_full_disk_units_that_free_space_use_the_reserve(db):
    db.write_sync(insert("old"))
    failpoints.configure("db.commit.before=enospc@1")

    def delete(tx):
        return tx.execute("DELETE FROM thing WHERE name = 'old'").rowcount

    async def main():
        units = [db.write(insert("new")), db.write(delete, frees_space=True)]
        return await asyncio.gather(*units, return_exceptions=True)

    failed, deleted = asyncio.run(main())

    assert isinstance(failed, StoreFull)
    assert deleted == 1
    assert names(db) == []
    db.write_sync(lambda tx: None)  # the writer answers before it takes the reserve back
    assert os.stat(db.path + ".reserve").st_blocks > 0


def test_a_reader_sees_no_half_transaction_and_cannot_write(db):
    with pytest.raises(DatabaseError):
        db.read_sync(insert("a"))

    assert names(db) == []


def test_a_closed_database_refuses_work(db):
    db.close()

    with pytest.raises(DatabaseClosed):
        db.write_sync(insert("a"))


def test_closing_finishes_what_was_queued(db, tmp_path):
    async def main():
        pending = [asyncio.ensure_future(db.write(insert(str(number)))) for number in range(50)]
        await asyncio.sleep(0)
        db.close()
        return await asyncio.gather(*pending)

    assert asyncio.run(main()) == [1] * 50


@pytest.mark.parametrize("damage", [b"", b"garbage" * 100, b"SQLite format 3\0" + bytes(200)])
def test_a_damaged_file_is_refused_and_left_alone(tmp_path, damage):
    path = tmp_path / "state.db"
    path.write_bytes(damage)

    with pytest.raises(DatabaseCorrupt) as caught:
        Database.open(str(path), STEPS)

    assert caught.value.hint
    assert path.read_bytes() == damage


def test_a_crash_while_creating_leaves_no_database(tmp_path):
    path = tmp_path / "state.db"
    failpoints.configure("db.create.before-rename=error")
    with pytest.raises(OSError):
        Database.open(str(path), STEPS)
    failpoints.configure("")

    assert not path.exists()
    Database.open(str(path), STEPS).close()


def test_the_file_is_private(db):
    db.write_sync(insert("a"))

    assert os.stat(db.path).st_mode & 0o777 == 0o600
    assert all(os.stat(db.path + end).st_mode & 0o777 == 0o600 for end in ("-wal", "-shm"))


def test_later_migrations_are_applied_once(db, tmp_path):
    db.write_sync(insert("a"))
    db.close()
    more = [
        *STEPS,
        Migration("0002_more.sql", "CREATE TABLE more (n INTEGER);\nINSERT INTO more VALUES (7);"),
    ]

    for _ in range(2):
        again = Database.open(str(tmp_path / "state.db"), more)
        assert again.read_sync(lambda tx: tx.value("SELECT count(*) FROM more")) == 1
        assert names(again) == ["a"]
        again.close()


def test_a_changed_or_unknown_migration_is_refused(db, tmp_path):
    db.close()

    for steps in ([Migration("0001_thing.sql", "CREATE TABLE other (n);")], []):
        with pytest.raises(SchemaMismatch):
            Database.open(str(tmp_path / "state.db"), steps)
