"""Rows of networks."""

from __future__ import annotations

from collections.abc import Callable

from orlop.engine.network_model import NetworkRecord
from orlop.store.db import Tx
from orlop.wire import gojson

__all__ = ["all_rows", "delete_row", "replace_row"]


def all_rows(tx: Tx) -> list[tuple[str, str]]:
    """Ids and documents, oldest first."""
    return [
        (row[0], row[1]) for row in tx.execute("SELECT id, document FROM network ORDER BY created_ns, id")
    ]


def replace_row(record: NetworkRecord, old_id: str = "") -> Callable[[Tx], None]:
    """Write a row in the place of another, or of itself."""
    row = (record.id, record.name, record.created_ns, gojson.encode(record).decode())

    def work(tx: Tx) -> None:
        tx.execute("DELETE FROM network WHERE id = ?", (old_id or record.id,))
        tx.execute("INSERT INTO network VALUES (?, ?, ?, ?)", row)

    return work


def delete_row(network_id: str) -> Callable[[Tx], None]:
    """Delete a row; fine when it is gone."""
    return lambda tx: tx.execute("DELETE FROM network WHERE id = ?", (network_id,)).close()
