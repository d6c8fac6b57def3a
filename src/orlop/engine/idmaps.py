"""Ranges of ids for containers with a user namespace: where they come from, and which are free. Pure.

A range belongs to a container from its creation to its removal and is written in its record, so
what is taken is derived from the records and survives every kind of end of the engine.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from orlop.base.errors import InvalidInput, Kind, OrlopError
from orlop.runtime.spec import IdMapping

__all__ = [
    "DEFAULT_POOL",
    "RANGE",
    "IdMap",
    "IdPool",
    "IdsExhausted",
    "allocate",
    "find_pool",
    "parse_pool",
    "parse_remap",
]

RANGE = 65536
"""Ids of an automatic range: all that images use, and `nobody`."""

MAX_ID = 2**32 - 2
_LOWEST = 65536  # below are the users of the host
_NUMBER = re.compile(r"[0-9]{1,10}\Z")
_POOL_OWNERS = ("orlop", "containers")
_REMAP_DEFAULT = "dockremap"  # the user whose ranges dockerd takes for "default"


class IdsExhausted(OrlopError):
    """Every range of the pool belongs to a container."""

    kind = Kind.EXHAUSTED
    code = "ids-exhausted"


@dataclass(frozen=True, slots=True)
class IdPool:
    """Host ids, users and groups alike, from which automatic ranges are cut."""

    start: int
    count: int


DEFAULT_POOL = IdPool(0x7000_0000, 0x1000_0000)
"""4,096 ranges just below 2**31: ids that no distribution, systemd or Podman gives away."""


@dataclass(frozen=True, slots=True)
class IdMap:
    """Which ids of the host the ids of a container are; part of its record.

    `owner` is the id of the container whose user namespace this one joins, "" = it has its own.
    `maps_binds` says whether binds of host directories are idmapped when nothing is said.
    """

    uids: tuple[IdMapping, ...]
    gids: tuple[IdMapping, ...]
    owner: str = ""
    maps_binds: bool = True

    def size(self) -> int:
        """How many groups it has from 0 on."""
        return max((item.size for item in self.gids if item.container_id == 0), default=0)


def allocate(pool: IdPool, taken: Iterable[IdMap]) -> IdMap:
    """The lowest range of the pool that overlaps no map.

    Raises:
        IdsExhausted: there is none.
    """
    used = sorted({(item.host_id, item.size) for one in taken for item in (*one.uids, *one.gids)})
    start, end = pool.start, pool.start + pool.count
    for first, size in used:
        if start + RANGE <= first:
            break
        while start < first + size and start + RANGE > first:
            start += RANGE
    if start + RANGE > end:
        raise IdsExhausted(
            f"no range of {RANGE} ids is free in the pool {pool.start}:{pool.count} of user namespaces",
            hint="remove containers, or enlarge the pool (--userns-pool)",
        )
    own = (IdMapping(0, start, RANGE),)
    return IdMap(own, own)


def parse_pool(text: str) -> IdPool:
    """`start:count`.

    Raises:
        InvalidInput: not of that form, or too small, or among the host's users.
    """
    first, _, count = text.partition(":")
    if not (_NUMBER.match(first) and _NUMBER.match(count)):
        raise InvalidInput(f"invalid userns-pool {text[:60]!r}: START:COUNT is wanted")
    pool = IdPool(int(first), int(count))
    if pool.count < RANGE or pool.start < _LOWEST or pool.start + pool.count - 1 > MAX_ID:
        raise InvalidInput(
            f"invalid userns-pool {text[:60]!r}: at least {RANGE} ids from {_LOWEST} to {MAX_ID} are wanted"
        )
    return pool


def find_pool(subuid: str, subgid: str) -> IdPool:
    """The range that both files give `orlop`, else `containers`; else the default."""
    for owner in _POOL_OWNERS:
        both = set(_entries(subuid, owner)) & set(_entries(subgid, owner))
        large = sorted(pair for pair in both if pair[1] >= RANGE and pair[0] >= _LOWEST)
        if large:
            return IdPool(*large[0])
    return DEFAULT_POOL


def parse_remap(text: str, subuid: str, subgid: str) -> IdMap:
    """The map of `userns-remap`: "default", `user`, `user:group`, `uid`, `uid:gid`.

    Raises:
        InvalidInput: the files have no range for these names.
    """
    user, _, group = text.partition(":")
    if text == "default":
        user = group = _REMAP_DEFAULT
    uids = _mappings(subuid, user, "subuid", text)
    gids = _mappings(subgid, group or user, "subgid", text)
    return IdMap(uids, gids, maps_binds=False)


def _mappings(content: str, owner: str, file: str, text: str) -> tuple[IdMapping, ...]:
    found, next_id = [], 0
    for start, count in _entries(content, owner):
        found.append(IdMapping(next_id, start, count))
        next_id += count
    if not found:
        raise InvalidInput(
            f"--userns-remap {text[:60]!r}: no {file} ranges found for {owner[:60]!r} in /etc/{file}",
            hint=f"add a line such as {owner[:60] or 'name'}:100000:65536 to /etc/{file}",
        )
    return tuple(found)


def _entries(content: str, owner: str) -> list[tuple[int, int]]:
    """(start, count) of an owner's lines, subuid(5); lines of another form are passed over."""
    found = []
    for line in content.splitlines():
        fields = line.strip().split(":")
        if len(fields) == 3 and fields[0] == owner and _NUMBER.match(fields[1]) and _NUMBER.match(fields[2]):
            start, count = int(fields[1]), int(fields[2])
            if count > 0 and start > 0 and start + count - 1 <= MAX_ID:
                found.append((start, count))
    return found
