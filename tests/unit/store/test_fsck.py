"""The checker finds every broken promise and nothing in a whole store."""

import asyncio
import os

import pytest

from orlop.store.fsck import check
from orlop.store.leases import tx_hold


@pytest.fixture
def filled(store):
    async def main():
        async with store.leases.hold("test", keep_on_failure=True):
            lease = await store.leases.create("kept")
            return await store.blobs.put(b"document", lease)

    digest = asyncio.run(main())
    store.db.close()
    return digest


def kinds(store, **options):
    return [(finding.kind, finding.key) for finding in check(str(store.root), **options)]


def execute(store, sql, *args):
    store.open()
    store.db.write_sync(lambda tx: tx.execute(sql, args).close())
    store.db.close()


def test_a_whole_store_has_no_findings(store, filled):
    assert kinds(store) == []


def test_a_fresh_root_has_no_findings(tmp_path):
    assert check(str(tmp_path)) == []


def test_damaged_short_and_missing_blobs_are_found(store, filled):
    path = store.blobs.path(filled)

    with open(path, "r+b") as file:
        file.write(b"D")
    assert kinds(store) == [("row", filled)]
    assert kinds(store, deep=False) == []
    os.truncate(path, 3)
    assert kinds(store, deep=False) == [("row", filled)]
    os.unlink(path)
    assert kinds(store) == [("row", filled)]


def test_edges_to_nothing_are_found(store, filled):
    execute(store, "INSERT INTO image VALUES (?, 0, 0, 0, '')", "sha256:" + "1" * 64)
    execute(store, "INSERT INTO image_layer VALUES (?, 0, ?, 5)", "sha256:" + "1" * 64, "sha256:" + "2" * 64)
    execute(store, "INSERT INTO lease_ref SELECT id, 'blob', ? FROM lease", "sha256:" + "3" * 64)

    assert [(kind, key[7]) for kind, key in kinds(store)] == [("edge", "1"), ("edge", "2"), ("edge", "3")]


def test_leftovers_are_harmless(store, filled):
    (store.root / "blobs" / "sha256" / ("4" * 64)).write_bytes(b"x")
    (store.root / "ingest" / "half").mkdir()
    (store.root / "state.db.new").write_bytes(b"")

    findings = check(str(store.root))

    assert sorted(finding.kind for finding in findings) == ["orphan", "temporary", "temporary"]
    assert all(finding.is_harmless for finding in findings)


def test_a_missing_or_damaged_database_is_found(store, filled):
    path = store.root / "state.db"
    data = path.read_bytes()
    path.write_bytes(data[:100] + b"\xff" * 2000 + data[2100:])
    assert {kind for kind, _ in kinds(store)} == {"database"}
    path.write_bytes(b"")
    assert kinds(store) == [("database", str(path))]
    path.unlink()
    assert kinds(store) == [("database", str(path))]


def test_a_held_thing_without_a_row_is_found(store, filled):
    store.open()

    async def main():
        lease = await store.leases.create("test")
        await store.db.write(lambda tx: tx_hold(tx, lease, "layer", "sha256:" + "5" * 64))

    asyncio.run(main())
    store.db.close()

    assert kinds(store) == [("edge", "sha256:" + "5" * 64)]
