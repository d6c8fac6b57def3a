"""Who a container's process is: Docker's `user[:group]` against the image's passwd and group.

Pure: the files come in as bytes. A decimal is always an id and never looked up as a name,
so a passwd line called `1000` means nothing (I8). Texts of errors are those of
moby/sys/user, which clients show and match.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = ["MAX_FILE_BYTES", "Identity", "UserUnknown", "resolve"]

MAX_FILE_BYTES = 4 << 20
MAX_GROUPS = 65536  # NGROUPS_MAX
_MAX_ID = 2**31 - 1
_NUMBER = re.compile(r"[+-]?[0-9]+\Z", re.ASCII)
_RANGE_TEXT = f"uids and gids must be in range 0-{_MAX_ID}"


class UserUnknown(ValueError):
    """The user or group cannot be found or is out of range; the text is Docker's."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Resolved ids; `groups` are the supplementary ones, the primary first."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


@dataclass(frozen=True, slots=True)
class _User:
    name: str
    uid: int
    gid: int
    home: str


@dataclass(frozen=True, slots=True)
class _Group:
    name: str
    gid: int
    members: tuple[str, ...]


def resolve(user: str, extra_groups: Sequence[str], passwd: bytes, group: bytes) -> Identity:
    """Find the ids that `user` means.

    Args:
        user: `""` (uid 0), `name`, `uid`, `name:group`, `uid:gid` and their mixtures.
        extra_groups: names or ids of `--group-add`.
        passwd: the image's /etc/passwd, empty when it has none.
        group: the image's /etc/group, likewise.

    Raises:
        UserUnknown: a name is in neither file, or a number is no id.
    """
    name, _, group_name = user.partition(":")
    group_name = group_name.partition(":")[0]
    account = _find_user(name, passwd)
    gid, memberships = _find_groups(account, group_name, group)
    extra = [_extra_group(item, group) for item in extra_groups]
    groups = tuple(dict.fromkeys([gid, *memberships, *extra]))
    return Identity(account.uid, gid, groups[:MAX_GROUPS], account.home or "/")


def _number(text: str) -> int | None:
    return int(text) if _NUMBER.match(text) and len(text) < 32 else None


def _find_user(name: str, passwd: bytes) -> _User:
    wanted = 0 if not name else _number(name)
    for account in _users(passwd):
        if account.uid == wanted if wanted is not None else account.name == name:
            return account
    if wanted is None:
        if name.isascii() and name.lstrip("+-").isdigit():
            raise UserUnknown(_RANGE_TEXT)
        raise UserUnknown(f"unable to find user {name}: no matching entries in passwd file")
    if not 0 <= wanted <= _MAX_ID:
        raise UserUnknown(_RANGE_TEXT)
    return _User("", wanted, 0, "/")


def _find_groups(account: _User, group_name: str, group: bytes) -> tuple[int, list[int]]:
    """(primary gid, supplementary gids). An explicit group means no memberships, as in Docker."""
    if not group_name:
        if not account.name:
            return account.gid, []
        return account.gid, [entry.gid for entry in _groups(group) if account.name in entry.members]
    wanted = _number(group_name)
    for entry in _groups(group):
        if entry.gid == wanted if wanted is not None else entry.name == group_name:
            return entry.gid, []
    if wanted is None:
        raise UserUnknown(f"unable to find group {group_name}: no matching entries in group file")
    if not 0 <= wanted <= _MAX_ID:
        raise UserUnknown(_RANGE_TEXT)
    return wanted, []


def _extra_group(item: str, group: bytes) -> int:
    wanted = _number(item)
    for entry in _groups(group):
        if entry.gid == wanted if wanted is not None else entry.name == item:
            return entry.gid
    if wanted is None or not 0 <= wanted <= _MAX_ID:
        raise UserUnknown(f"Unable to find group {item}")
    return wanted


def _users(data: bytes) -> Iterator[_User]:
    for fields in _lines(data):
        if len(fields) >= 4:
            uid, gid = _id(fields[2]), _id(fields[3])
            if uid is not None and gid is not None:
                yield _User(fields[0], uid, gid, fields[5] if len(fields) > 5 else "")


def _groups(data: bytes) -> Iterator[_Group]:
    for fields in _lines(data):
        if len(fields) >= 3:
            gid = _id(fields[2])
            if gid is not None:
                members = tuple(fields[3].split(",")) if len(fields) > 3 else ()
                yield _Group(fields[0], gid, members)


def _id(text: str) -> int | None:
    """An id of a file's line; lines with anything else are passed over."""
    value = _number(text)
    return value if value is not None and 0 <= value <= _MAX_ID else None


def _lines(data: bytes) -> Iterator[list[str]]:
    for line in data[:MAX_FILE_BYTES].split(b"\n"):
        stripped = line.strip()
        if stripped and not stripped.startswith(b"#"):
            yield stripped.decode("utf-8", "surrogateescape").split(":")
