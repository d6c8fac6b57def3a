"""nftables by netlink: a transaction is a list of values, and the kernel takes all of it or nothing.

    with NftSocket() as nft:
        nft.commit([new_table(table), new_chain(...), new_rule(table, "forward", [*iifname("br0"), DROP])])

Source: linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from orlop.kernel.netlink import (
    ACK,
    CREATE,
    DUMP,
    Message,
    NetlinkError,
    NetlinkSocket,
    attribute,
    nested,
    parse_attributes,
    text,
)
from orlop.kernel.nftrules import Expression, be32

__all__ = [
    "BaseChain",
    "NftSocket",
    "SetSpec",
    "add_elements",
    "add_networks",
    "delete_elements",
    "delete_networks",
    "delete_table",
    "new_chain",
    "new_rule",
    "new_set",
    "new_table",
    "pack",
]

_NETLINK_NETFILTER = 12
_SUBSYSTEM = 10 << 8
_BATCH_BEGIN, _BATCH_END = 16, 17
_NEWTABLE, _GETTABLE, _DELTABLE = 0, 1, 2
_NEWCHAIN = 3
_NEWRULE = 6
_NEWSET = 9
_NEWSETELEM, _DELSETELEM = 12, 14
_FAMILY_INET = 1
_APPEND = 0x800
_NAME = 1  # of tables, and the table's name in everything else

_NF_DROP, _NF_ACCEPT = 0, 1
_SET_INTERVAL, _SET_MAP, _SET_CONCAT = 0x4, 0x8, 0x80
_INTERVAL_END = 1
_TYPE_IFNAME = 41
_HOOKS = {"prerouting": 0, "input": 1, "forward": 2, "output": 3, "postrouting": 4}

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class BaseChain:
    """Where a chain hooks in: `kind` is filter or nat; lower priorities see a packet earlier."""

    kind: str
    hook: str
    priority: int
    drops_by_default: bool = False


@dataclass(frozen=True, slots=True)
class SetSpec:
    """A set or map of a table. Keys are concatenations: the length of each field in bytes.

    `data` of a map is the same for what keys lead to. `types` are nft's numbers of the fields'
    types, so that `nft list` shows them well.
    """

    name: str
    key: tuple[int, ...]
    data: tuple[int, ...] = ()
    key_types: tuple[int, ...] = ()
    data_types: tuple[int, ...] = ()
    is_interval: bool = False  # keys are ranges: see `range_elements`


def pack(*fields: bytes) -> bytes:
    """A concatenated key or datum: every field padded to four bytes."""
    return b"".join(field + bytes(-len(field) % 4) for field in fields)


# --- changes ----------------------------------------------------------------------------------


def new_table(name: str) -> Message:
    """A table for IPv4 and IPv6; fine when it is there."""
    return _change(_NEWTABLE, text(_NAME, name), CREATE)


def delete_table(name: str) -> Message:
    """Remove a table and everything in it. ENOENT when it is not there: make it first."""
    return _change(_DELTABLE, text(_NAME, name))


def new_chain(table: str, name: str, base: BaseChain | None = None) -> Message:
    """A chain; a plain one is entered by `jump`. Fine when it is there."""
    payload = text(_NAME, table) + text(3, name)
    if base is not None:
        hook = be32(1, _HOOKS[base.hook]) + attribute(2, struct.pack("!i", base.priority))
        payload += nested(4, hook) + text(7, base.kind)
        payload += be32(5, _NF_DROP if base.drops_by_default else _NF_ACCEPT)
    return _change(_NEWCHAIN, payload, CREATE)


def new_rule(table: str, chain: str, expressions: Iterable[Expression]) -> Message:
    """A rule at the end of a chain."""
    encoded = [nested(1, one) for group in expressions for one in group]
    return _change(_NEWRULE, text(_NAME, table) + text(2, chain) + nested(4, *encoded), CREATE | _APPEND)


def new_set(table: str, spec: SetSpec, number: int) -> Message:
    """A named set or map; `number` is unique in the transaction. Fine when it is there."""
    flags = (_SET_MAP if spec.data else 0) | (_SET_CONCAT if len(spec.key) > 1 else 0)
    flags |= _SET_INTERVAL if spec.is_interval else 0
    payload = text(_NAME, table) + text(2, spec.name) + be32(3, flags)
    payload += be32(4, _type_of(spec.key_types)) + be32(5, _length_of(spec.key))
    if spec.data:
        payload += be32(6, _type_of(spec.data_types)) + be32(7, _length_of(spec.data))
    if len(spec.key) > 1:
        fields = [nested(1, be32(1, length)) for length in spec.key]
        payload += nested(9, nested(2, *fields))
    if spec.key_types == (_TYPE_IFNAME,):  # for `nft list`, which takes keys for network order otherwise
        payload += attribute(13, bytes([0, 4]) + struct.pack("=I", 1))
    return _change(_NEWSET, payload + be32(10, number), CREATE)


def add_elements(table: str, name: str, elements: Iterable[tuple[bytes, bytes]]) -> Message:
    """Put (key, datum) into a map, or (key, b"") into a set. EEXIST for a key that leads elsewhere."""
    return _elements(_NEWSETELEM, table, name, map(_element, elements), CREATE)


def delete_elements(table: str, name: str, keys: Iterable[bytes]) -> Message:
    """Take keys out; ENOENT when one is not there."""
    return _elements(_DELSETELEM, table, name, (_element((key, b"")) for key in keys), 0)


def add_networks(table: str, name: str, networks: Iterable[Network]) -> Message:
    """Put address ranges into an interval set."""
    return _elements(_NEWSETELEM, table, name, _ranges(networks), CREATE)


def delete_networks(table: str, name: str, networks: Iterable[Network]) -> Message:
    """Take address ranges out; ENOENT when one is not there."""
    return _elements(_DELSETELEM, table, name, _ranges(networks), 0)


def _element(item: tuple[bytes, bytes]) -> bytes:
    key, datum = item
    return nested(1, nested(1, attribute(1, key)) + (nested(2, attribute(1, datum)) if datum else b""))


def _ranges(networks: Iterable[Network]) -> Iterator[bytes]:
    """A range is its first address, and the one behind its last, marked as an end."""
    for network in networks:
        yield _element((network.network_address.packed, b""))
        behind = int(network.broadcast_address) + 1
        if behind < 1 << network.max_prefixlen:
            end = behind.to_bytes(network.max_prefixlen // 8, "big")
            yield nested(1, nested(1, attribute(1, end)) + be32(3, _INTERVAL_END))


def _elements(kind: int, table: str, name: str, elements: Iterable[bytes], flags: int) -> Message:
    return _change(kind, text(1, table) + text(2, name) + nested(3, *elements), flags)


def _change(kind: int, payload: bytes, flags: int = 0) -> Message:
    return Message(_SUBSYSTEM | kind, flags, _generic(_FAMILY_INET) + payload)


def _generic(family: int, resource: int = 0) -> bytes:
    return struct.pack("!BBH", family, 0, resource)


def _type_of(types: Sequence[int]) -> int:
    """The number that nft has for a concatenation: six bits a field."""
    number = 0
    for one in types:
        number = number << 6 | one
    return number


def _length_of(fields: Sequence[int]) -> int:
    return fields[0] if len(fields) == 1 else sum(-(-length // 4) * 4 for length in fields)


# --- the kernel -------------------------------------------------------------------------------


class NftSocket(NetlinkSocket):
    """nfnetlink of the network namespace in which it is made."""

    def __init__(self) -> None:
        super().__init__(_NETLINK_NETFILTER)

    def commit(self, changes: Sequence[Message]) -> None:
        """Do all of it or nothing.

        Raises:
            NetlinkError: of the first refusal; `index` is the change's place. Nothing has changed.
        """
        begin = Message(_BATCH_BEGIN, 0, _generic(0, 10))
        end = Message(_BATCH_END, 0, _generic(0, 10))
        acknowledged = [Message(change.type, change.flags | ACK, change.payload) for change in changes]
        try:
            self.send([begin, *acknowledged, end])
        except NetlinkError as error:
            error.index = max(error.index - 1, 0)  # the batch begins with a message of its own
            raise

    def tables(self) -> list[str]:
        """Names of the tables of our family."""
        request = Message(_SUBSYSTEM | _GETTABLE, DUMP, _generic(_FAMILY_INET))
        found = []
        for reply in self.ask(request):
            values = dict(parse_attributes(reply.payload[4:]))
            found.append(bytes(values[_NAME]).rstrip(b"\0").decode("ascii", "replace"))
        return found
