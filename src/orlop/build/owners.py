"""Who new files belong to: names looked up in the passwd and group files of a tree."""

from __future__ import annotations

import os

from orlop.base.errors import InvalidInput
from orlop.build.graph import Owner, Principal
from orlop.build.trees import Tree, resolve
from orlop.wire.tar import EntryKind

__all__ = ["resolve_owner"]

MAX_TABLE_BYTES = 1 << 20
_MAX_ID = (1 << 32) - 2


def resolve_owner(tree: Tree, owner: Owner, *, is_strict: bool) -> tuple[int, int]:
    """Numeric user and group.

    A named user brings the group of its passwd entry, a number alone is both. An unknown name is
    root unless `is_strict`.

    Raises:
        InvalidInput: an unknown name, in the words of the classic builder.
    """
    uid = gid = 0
    if owner.user is not None:
        uid, gid = _user(tree, owner.user, is_strict=is_strict)
    if owner.group is not None:
        gid = _group(tree, owner.group, is_strict=is_strict)
    return uid, gid


def _user(tree: Tree, user: Principal, *, is_strict: bool) -> tuple[int, int]:
    if not user.name:
        return user.id, user.id
    for fields in _table(tree, b"etc/passwd", 4):
        if fields[0] == user.name:
            uid, gid = _number(fields[2]), _number(fields[3])
            if uid is not None and gid is not None:
                return uid, gid
    if is_strict:
        raise InvalidInput(
            "unable to convert uid/gid chown string to host mapping: "
            f"can't find uid for user {user.name}: no such user: {user.name}",
            hint="the name is looked up in /etc/passwd of the image being built; a number always works",
        )
    return 0, 0


def _group(tree: Tree, group: Principal, *, is_strict: bool) -> int:
    if not group.name:
        return group.id
    for fields in _table(tree, b"etc/group", 3):
        gid = _number(fields[2]) if fields[0] == group.name else None
        if gid is not None:
            return gid
    if is_strict:
        raise InvalidInput(
            "unable to convert uid/gid chown string to host mapping: "
            f"can't find gid for group {group.name}: no such group: {group.name}",
            hint="the name is looked up in /etc/group of the image being built; a number always works",
        )
    return 0


def _table(tree: Tree, path: bytes, width: int) -> list[list[str]]:
    found = resolve(tree, path)
    node = tree.find(found)
    if node is None or node.kind is not EntryKind.FILE or node.size > MAX_TABLE_BYTES:
        return []
    data = b"".join(
        os.pread(piece.fd, piece.size, piece.offset) for piece in tree.pieces(found, node) if piece.fd >= 0
    )
    rows = [line.split(":") for line in data.decode("utf-8", "replace").split("\n")]
    return [row for row in rows if len(row) >= width]


def _number(text: str) -> int | None:
    if not (text.isascii() and text.isdecimal() and len(text) <= 10):
        return None
    value = int(text)
    return value if value <= _MAX_ID else None
