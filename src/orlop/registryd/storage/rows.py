"""The rows of repositories, links, manifests and tags: units of work for the database.

Each function runs inside one transaction and does no I/O of its own. Schema: store/schema.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from orlop.oci.digest import Digest
from orlop.registryd.documents import Document
from orlop.registryd.names import is_digest
from orlop.registryd.paging import Page
from orlop.registryd.problems import Problem, Word
from orlop.registryd.storage.contract import ManifestRow, Missing, Referrer
from orlop.store.db import Tx

__all__ = [
    "BLOB",
    "MANIFEST",
    "LinkRow",
    "blob_size",
    "delete_manifest",
    "delete_manifest_row",
    "delete_tag",
    "find_link",
    "find_manifest",
    "find_repository",
    "homes_of",
    "insert_link",
    "insert_manifest",
    "list_referrers",
    "list_repositories",
    "list_tags",
    "mount",
    "renew_link",
    "size_of_reference",
    "unlink",
]

BLOB, MANIFEST = 0, 1
_MAX_HOMES = 100
_MAX_NAMED = 20  # missing blobs that an error names


@dataclass(frozen=True, slots=True)
class LinkRow:
    """A blob as a repository sees it; `is_named`: by one of its manifests."""

    size_bytes: int
    linked_ns: int
    is_named: bool


def find_repository(tx: Tx, name: str) -> int | None:
    """The id of a repository."""
    found = tx.value("SELECT id FROM registry_repository WHERE name = ?", (name,))
    return None if found is None else int(found)


def list_repositories(tx: Tx, page: Page) -> list[str]:
    """Names in order."""
    sql = "SELECT name FROM registry_repository WHERE name > ? ORDER BY name LIMIT ?"
    return [row[0] for row in tx.execute(sql, (page.last, page.count))]


def blob_size(tx: Tx, name: str, digest: Digest) -> int | None:
    """The size of a linked blob whose bytes are there."""
    found = find_link(tx, name, digest)
    return None if found is None else found.size_bytes


def find_link(tx: Tx, name: str, digest: Digest) -> LinkRow | None:
    """A linked blob whose bytes are there."""
    row = tx.execute(
        "SELECT blob.size_bytes, l.linked_ns, EXISTS (SELECT 1 FROM registry_reference AS f"
        " WHERE f.repository = r.id AND f.digest = l.digest AND f.kind = 0)"
        " FROM registry_repository AS r"
        " JOIN registry_link AS l ON l.repository = r.id JOIN blob ON blob.digest = l.digest"
        " WHERE r.name = ? AND l.digest = ?",
        (name, digest),
    ).fetchone()
    return None if row is None else LinkRow(row[0], row[1], bool(row[2]))


def renew_link(tx: Tx, name: str, digest: Digest, now_ns: int) -> bool:
    """Make a link young; False when it is gone."""
    sql = (
        "UPDATE registry_link SET linked_ns = ? WHERE digest = ?"
        " AND repository = (SELECT id FROM registry_repository WHERE name = ?)"
    )
    return tx.execute(sql, (now_ns, digest, name)).rowcount > 0


def homes_of(tx: Tx, digest: Digest) -> list[str]:
    """Repositories that link a blob."""
    sql = (
        "SELECT r.name FROM registry_link AS l JOIN registry_repository AS r ON r.id = l.repository"
        " WHERE l.digest = ? LIMIT ?"
    )
    return [row[0] for row in tx.execute(sql, (digest, _MAX_HOMES))]


def insert_link(tx: Tx, name: str, digest: Digest, now_ns: int) -> bool:
    """Link a blob; False when its bytes are not there (any more)."""
    if tx.value("SELECT 1 FROM blob WHERE digest = ?", (digest,)) is None:
        return False
    repository = _ensure_repository(tx, name, now_ns)
    tx.execute("INSERT OR REPLACE INTO registry_link VALUES (?, ?, ?)", (repository, digest, now_ns))
    return True


def mount(tx: Tx, source: str, target: str, digest: Digest, now_ns: int) -> bool:
    """Link a blob of another repository; False when that does not have it."""
    return blob_size(tx, source, digest) is not None and insert_link(tx, target, digest, now_ns)


def unlink(tx: Tx, name: str, digest: Digest) -> bool:
    """Drop a link."""
    sql = (
        "DELETE FROM registry_link WHERE digest = ?"
        " AND repository = (SELECT id FROM registry_repository WHERE name = ?)"
    )
    return tx.execute(sql, (digest, name)).rowcount > 0


def insert_manifest(
    tx: Tx, name: str, document: Document, tags: Sequence[str], now_ns: int, missing: Missing
) -> None:
    """Store a manifest with its references and tags; all or nothing.

    Raises:
        Problem: MANIFEST_BLOB_UNKNOWN.
    """
    repository = _ensure_repository(tx, name, now_ns)
    if missing is Missing.NOTHING:
        _refuse_missing(tx, repository, document)
    tx.execute(
        "INSERT INTO registry_manifest VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET media_type = excluded.media_type, pushed_ns = excluded.pushed_ns",
        (
            repository,
            document.digest,
            document.media_type,
            len(document.data),
            document.artifact_type,
            json.dumps(dict(document.annotations), ensure_ascii=False),
            document.subject,
            now_ns,
        ),
    )
    named = [(BLOB, entry.digest, entry.size_bytes) for entry in document.blobs]
    named += [(MANIFEST, entry.digest, entry.size_bytes) for entry in document.manifests]
    tx.executemany(
        "INSERT OR IGNORE INTO registry_reference VALUES (?, ?, ?, ?, ?)",
        [(repository, document.digest, *entry) for entry in named],
    )
    tx.executemany(
        "INSERT OR REPLACE INTO registry_tag VALUES (?, ?, ?, ?)",
        [(repository, tag, document.digest, now_ns) for tag in tags],
    )


def size_of_reference(tx: Tx, name: str, digest: Digest) -> int | None:
    """The size that a manifest of the repository gives for something it names."""
    found = tx.value(
        "SELECT size_bytes FROM registry_reference WHERE digest = ?"
        " AND repository = (SELECT id FROM registry_repository WHERE name = ?) LIMIT 1",
        (digest, name),
    )
    return None if found is None else int(found)


def find_manifest(tx: Tx, name: str, reference: str) -> ManifestRow | None:
    """The manifest of a tag or digest."""
    if is_digest(reference):
        where = "m.digest = ?"
    else:
        where = "m.digest = (SELECT digest FROM registry_tag WHERE repository = r.id AND name = ?)"
    row = tx.execute(
        "SELECT m.digest, m.media_type, m.size_bytes FROM registry_repository AS r"  # noqa: S608 - constants
        f" JOIN registry_manifest AS m ON m.repository = r.id WHERE r.name = ? AND {where}",
        (name, reference),
    ).fetchone()
    return None if row is None else ManifestRow(Digest(row[0]), row[1], row[2])


def delete_manifest(tx: Tx, name: str, digest: Digest, now_ns: int) -> bool:
    """Drop a manifest; its tags and references go with it."""
    repository = find_repository(tx, name)
    return repository is not None and delete_manifest_row(tx, repository, digest, now_ns)


def delete_manifest_row(tx: Tx, repository: int, digest: Digest, now_ns: int) -> bool:
    """`delete_manifest` by id. What it named becomes young: somebody may be about to name it again."""
    tx.execute(
        "UPDATE registry_link SET linked_ns = ? WHERE repository = ? AND digest IN"
        " (SELECT digest FROM registry_reference WHERE repository = ? AND manifest = ? AND kind = ?)",
        (now_ns, repository, repository, digest, BLOB),
    )
    sql = "DELETE FROM registry_manifest WHERE repository = ? AND digest = ?"
    return tx.execute(sql, (repository, digest)).rowcount > 0


def delete_tag(tx: Tx, name: str, tag: str) -> bool:
    """Drop a tag; its manifest stays."""
    sql = (
        "DELETE FROM registry_tag WHERE name = ?"
        " AND repository = (SELECT id FROM registry_repository WHERE name = ?)"
    )
    return tx.execute(sql, (tag, name)).rowcount > 0


def list_tags(tx: Tx, name: str, page: Page) -> list[str]:
    """Tags in order."""
    sql = (
        "SELECT t.name FROM registry_repository AS r JOIN registry_tag AS t ON t.repository = r.id"
        " WHERE r.name = ? AND t.name > ? ORDER BY t.name LIMIT ?"
    )
    return [row[0] for row in tx.execute(sql, (name, page.last, page.count))]


def list_referrers(tx: Tx, name: str, subject: Digest, artifact_type: str, page: Page) -> list[Referrer]:
    """Manifests about a subject."""
    rows = tx.execute(
        "SELECT m.digest, m.media_type, m.size_bytes, m.artifact_type, m.annotations"
        " FROM registry_repository AS r JOIN registry_manifest AS m ON m.repository = r.id"
        " WHERE r.name = ? AND m.subject = ? AND m.digest > ? AND (? = '' OR m.artifact_type = ?)"
        " ORDER BY m.digest LIMIT ?",
        (name, subject, page.last, artifact_type, artifact_type, page.count),
    )
    return [Referrer(Digest(row[0]), row[1], row[2], row[3], json.loads(row[4])) for row in rows]


def _ensure_repository(tx: Tx, name: str, now_ns: int) -> int:
    found = find_repository(tx, name)
    if found is None:
        tx.execute("INSERT INTO registry_repository (name, created_ns) VALUES (?, ?)", (name, now_ns))
        found = find_repository(tx, name)
        assert found is not None
    return found


def _refuse_missing(tx: Tx, repository: int, document: Document) -> None:
    linked = (
        "SELECT 1 FROM registry_link AS l JOIN blob ON blob.digest = l.digest"
        " WHERE l.repository = ? AND l.digest = ?"
    )
    stored = "SELECT 1 FROM registry_manifest WHERE repository = ? AND digest = ?"
    missing = [
        entry.digest
        for entry in document.blobs
        if entry.digest not in document.foreign and tx.value(linked, (repository, entry.digest)) is None
    ]
    missing += [
        entry.digest for entry in document.manifests if tx.value(stored, (repository, entry.digest)) is None
    ]
    if missing:
        raise Problem(
            Word.MANIFEST_BLOB_UNKNOWN,
            "the manifest names what is not in this repository",
            detail={"digests": missing[:_MAX_NAMED]},
        )
