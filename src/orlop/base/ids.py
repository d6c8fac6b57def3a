"""Identifiers: how they are made, checked and found by prefix."""

from __future__ import annotations

import os
import re
from typing import NewType

__all__ = ["ContainerId", "ExecId", "LeaseId", "SnapshotKey", "is_hex_id", "new_hex_id", "new_token"]

ContainerId = NewType("ContainerId", str)  # 64 lower-case hex digits
ExecId = NewType("ExecId", str)  # 64 lower-case hex digits
LeaseId = NewType("LeaseId", str)
SnapshotKey = NewType("SnapshotKey", str)  # the owner's id: a container id or a build step's token

_HEX_ID = re.compile(r"[0-9a-f]{64}\Z")


def new_hex_id() -> str:
    """A fresh id of 64 hex digits whose first 12 are never all decimal.

    A short id that is a number would be taken for a uid, a port or a pid by the many
    scripts that pass it on; the Docker engine avoids it too.
    """
    while True:
        value = os.urandom(32).hex()
        if not value[:12].isdecimal():
            return value


def new_token(size_bytes: int = 8) -> str:
    """A short random name for temporary files and leases."""
    return os.urandom(size_bytes).hex()


def is_hex_id(value: str) -> bool:
    """True for a full 64-digit id; anything else must never be joined to a path."""
    return _HEX_ID.match(value) is not None
