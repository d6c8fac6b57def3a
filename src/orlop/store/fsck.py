"""The offline checker: does the data root keep the promises of the crash rules?

Checked, each finding named after what it is about:

    database   the file opens, its pages and foreign keys are whole
    row        every row's bytes exist, have its size and hash to its name (I1)
    edge       nothing that is in use is missing: images, snapshots, cache records, leases (I7)
    orphan     bytes without a row: garbage, swept at the next start (I2, I3)
    temporary  writes that were under way: resumed, or swept when they are old
    unmade     a snapshot without its directory, after a power cut: nothing in it was synced, it is made anew

The last three are harmless. Nothing is repaired and nothing is written. Run it while no engine
uses the data root; `deep=False` leaves out the hashing.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

from orlop.base.errors import OrlopError, describe_os_error
from orlop.oci.digest import Digest, algorithm, encoded
from orlop.store.db import DATABASE_NAME, check_header
from orlop.store.ingest import digest_file
from orlop.store.layerfile import read_head
from orlop.store.layerjobs import verify

__all__ = ["Finding", "check"]

# (what refers, table and column of the reference, table and column it must be found in)
_EDGES = (
    ("image config", "image", "id", "blob", "digest"),
    ("image document", "image_document", "digest", "blob", "digest"),
    ("image attachment", "image_attachment", "digest", "blob", "digest"),
    ("image layer", "image_layer", "diff_id", "layer", "diff_id"),
    ("snapshot layer", "snapshot_layer", "diff_id", "layer", "diff_id"),
    ("build record layer", "build_record_layer", "diff_id", "layer", "diff_id"),
    ("container snapshot", "container", "id", "snapshot", "key"),
    ("leased blob", "lease_ref WHERE kind = 'blob' AND", "key", "blob", "digest"),
    ("leased layer", "lease_ref WHERE kind = 'layer' AND", "key", "layer", "diff_id"),
    ("leased snapshot", "lease_ref WHERE kind = 'snapshot' AND", "key", "snapshot", "key"),
)
_SCRATCH = ("ingest", "staging", "trash")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be."""

    kind: str
    key: str
    detail: str

    @property
    def is_harmless(self) -> bool:
        """True for left-overs that the next start or the next transfer takes care of."""
        return self.kind in {"orphan", "temporary", "unmade"}

    def __str__(self) -> str:
        return f"{self.kind}: {self.key}: {self.detail}"


def check(data_root: str, *, deep: bool = True) -> list[Finding]:
    """Everything that is wrong below `data_root`; an empty or absent root has no findings.

    Blocks for as long as hashing all content takes.
    """
    path = os.path.join(data_root, DATABASE_NAME)
    findings = list(_temporaries(data_root))
    if not os.path.lexists(path):
        lost = [name for name in ("blobs/sha256", "layers") if _names(os.path.join(data_root, name))]
        findings += [Finding("database", path, f"is missing, but there are {name}") for name in lost]
        return findings
    try:
        check_header(path)
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            findings += _check_database(connection)
            findings += _check_edges(connection)
            findings += _check_blobs(connection, data_root, deep=deep)
            findings += _check_layers(connection, data_root, deep=deep)
            findings += _check_snapshots(connection, data_root)
    except (sqlite3.Error, OrlopError, OSError) as error:
        findings.append(Finding("database", path, _describe(error)))
    return findings


def _check_database(connection: sqlite3.Connection) -> Iterator[Finding]:
    for (line,) in connection.execute("PRAGMA integrity_check(20)"):
        if line != "ok":
            yield Finding("database", "pages", line)
    for table, row, parent, _ in connection.execute("PRAGMA foreign_key_check"):
        yield Finding("database", f"{table} row {row}", f"refers to nothing in {parent}")


def _check_edges(connection: sqlite3.Connection) -> Iterator[Finding]:
    tables = _tables(connection)
    for name, source, column, target, key in _EDGES:
        table, _, condition = source.partition(" ")
        if not {table, target} <= tables:
            continue
        where = f"{source} " if condition else f"{source} WHERE "
        query = f"SELECT DISTINCT {column} FROM {where}{column} NOT IN (SELECT {key} FROM {target})"  # noqa: S608 - constants
        for (missing,) in connection.execute(query):
            yield Finding("edge", str(missing), f"{name} is needed but not stored")


def _check_blobs(connection: sqlite3.Connection, data_root: str, *, deep: bool) -> Iterator[Finding]:
    rows = dict(connection.execute("SELECT digest, size_bytes FROM blob"))
    for digest, size_bytes in rows.items():
        path = os.path.join(data_root, "blobs", algorithm(digest), encoded(digest))
        try:
            found = os.lstat(path).st_size
            if found != size_bytes:
                yield Finding("row", digest, f"the blob has {found} bytes instead of {size_bytes}")
            elif deep and (actual := digest_file(path, algorithm(digest))) != digest:
                yield Finding("row", digest, f"the blob's bytes hash to {actual}")
        except OSError as error:
            yield Finding("row", digest, f"the blob cannot be read: {describe_os_error(error)}")
    for name in ("sha256", "sha512"):
        for entry in _names(os.path.join(data_root, "blobs", name)):
            if f"{name}:{entry}" not in rows:
                yield Finding("orphan", f"{name}:{entry}", "a blob file without a row")


def _check_layers(connection: sqlite3.Connection, data_root: str, *, deep: bool) -> Iterator[Finding]:
    if "layer" not in _tables(connection):
        return
    rows = dict(connection.execute("SELECT diff_id, size_bytes FROM layer"))
    for diff_id, size_bytes in rows.items():
        detail = _layer_fault(
            os.path.join(data_root, "layers", encoded(diff_id)), diff_id, size_bytes, deep=deep
        )
        if detail:
            yield Finding("row", diff_id, detail)
    known = {encoded(diff_id) for diff_id in rows}
    for entry in _names(os.path.join(data_root, "layers")):
        if entry not in known:
            yield Finding("orphan", entry, "a layer file without a row")


def _layer_fault(path: str, diff_id: Digest, size_bytes: int, *, deep: bool) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        return f"the layer cannot be read: {describe_os_error(error)}"
    try:
        tar_size = read_head(fd, diff_id).tar_size
        if tar_size != size_bytes:
            return f"the layer's tar has {tar_size} bytes instead of {size_bytes}"
        if deep:
            verify({"diff_id": diff_id}, [fd], lambda _: None)
    except (OrlopError, OSError, ValueError) as error:
        return _describe(error)
    finally:
        os.close(fd)
    return ""


def _check_snapshots(connection: sqlite3.Connection, data_root: str) -> Iterator[Finding]:
    if "snapshot" not in _tables(connection):
        return
    keys = {row[0] for row in connection.execute("SELECT key FROM snapshot")}
    found = set(_names(os.path.join(data_root, "snapshots")))
    for key in sorted(keys - found):
        yield Finding("unmade", key, "the snapshot's directory is missing")
    for key in sorted(found - keys):
        yield Finding("orphan", key, "a snapshot directory without a row")


def _temporaries(data_root: str) -> Iterator[Finding]:
    for folder in _SCRATCH:
        for name in _names(os.path.join(data_root, folder)):
            yield Finding("temporary", f"{folder}/{name}", "left by a write that did not end")
    for name in _names(data_root):
        if name.startswith(f"{DATABASE_NAME}.new"):
            yield Finding("temporary", name, "a database that was not completed")


def _tables(connection: sqlite3.Connection) -> set[str]:
    return {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []


def _describe(error: Exception) -> str:
    return describe_os_error(error) if isinstance(error, OSError) else str(error)
