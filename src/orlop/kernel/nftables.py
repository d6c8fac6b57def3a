"""nftables by netlink: a transaction is a list of values, and the kernel takes all of it or nothing.

    with NftSocket() as nft:
        nft.commit([new_table(table), new_chain(...), new_rule(table, "forward", [*iifname("br0"), DROP])])

Only the expressions that a firewall for containers needs. A rule is a list of expressions; those
that load something put it into registers, those that compare or look up read them. Numbers are
in network order throughout.

Source: linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from orlop.kernel.netlink import (
    ACK,
    CREATE,
    Message,
    NetlinkSocket,
    attribute,
    nested,
    parse_attributes,
    text,
)

__all__ = [
    "ACCEPT",
    "DROP",
    "ESTABLISHED",
    "FROM_DNAT",
    "MASQUERADE",
    "TO_LOCAL",
    "BaseChain",
    "Expression",
    "NftSocket",
    "SetSpec",
    "add_elements",
    "delete_elements",
    "delete_table",
    "dnat_by_map",
    "flush_chain",
    "in_set",
    "interface",
    "is_from",
    "is_protocol",
    "is_to",
    "jump",
    "new_chain",
    "new_rule",
    "new_set",
    "new_table",
    "remove_chain",
]

_NETLINK_NETFILTER = 12
_SUBSYSTEM = 10 << 8
_BATCH_BEGIN, _BATCH_END = 16, 17
_NEWTABLE, _GETTABLE, _DELTABLE = 0, 1, 2
_NEWCHAIN, _DELCHAIN = 3, 5
_NEWRULE, _DELRULE = 6, 8
_NEWSET = 9
_NEWSETELEM, _DELSETELEM = 12, 14
_FAMILY_INET = 1
_APPEND = 0x800
_NAME = 1  # of tables, and the table's name in everything else

_REG_VERDICT, _REG1, _REG2 = 0, 8, 9  # NFT_REG32_00 and on: four bytes each
_CMP_EQ, _CMP_NEQ = 0, 1
_META_IIFNAME, _META_OIFNAME, _META_NFPROTO, _META_L4PROTO = 6, 7, 15, 16
_CT_STATE, _CT_STATUS = 0, 2
_STATE_ESTABLISHED_RELATED = 0x2 | 0x4
_IPS_DST_NAT = 1 << 5
_FIB_DADDR, _FIB_ADDRTYPE, _RTN_LOCAL = 1 << 1, 3, 2
_BASE_NETWORK, _BASE_TRANSPORT = 1, 2
_NF_DROP, _NF_ACCEPT, _NFT_JUMP, _NFT_RETURN = 0, 1, -3, -5
_SET_INTERVAL, _SET_MAP, _SET_CONCAT = 0x4, 0x8, 0x80
_IFNAMSIZ = 16
_TYPE_IFNAME = 41
_HOOKS = {"prerouting": 0, "input": 1, "forward": 2, "output": 3, "postrouting": 4}

Expression = tuple[bytes, ...]
"""One or more encoded expressions that belong together: a match, or a statement."""


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
        hook = _be32(1, _HOOKS[base.hook]) + attribute(2, struct.pack("!i", base.priority))
        payload += nested(4, hook) + text(7, base.kind)
        payload += _be32(5, _NF_DROP if base.drops_by_default else _NF_ACCEPT)
    return _change(_NEWCHAIN, payload, CREATE)


def flush_chain(table: str, name: str) -> Message:
    """Remove all rules of a chain."""
    return _change(_DELRULE, text(_NAME, table) + text(2, name))


def remove_chain(table: str, name: str) -> Message:
    """Remove an empty chain that nothing jumps to."""
    return _change(_DELCHAIN, text(_NAME, table) + text(3, name))


def new_rule(table: str, chain: str, expressions: Iterable[Expression]) -> Message:
    """A rule at the end of a chain."""
    encoded = [nested(1, one) for group in expressions for one in group]
    return _change(_NEWRULE, text(_NAME, table) + text(2, chain) + nested(4, *encoded), CREATE | _APPEND)


def new_set(table: str, spec: SetSpec, number: int) -> Message:
    """A named set or map; `number` is unique in the transaction. Fine when it is there."""
    flags = (_SET_MAP if spec.data else 0) | (_SET_CONCAT if len(spec.key) > 1 else 0)
    payload = text(_NAME, table) + text(2, spec.name) + _be32(3, flags)
    payload += _be32(4, _type_of(spec.key_types)) + _be32(5, _length_of(spec.key))
    if spec.data:
        payload += _be32(6, _type_of(spec.data_types)) + _be32(7, _length_of(spec.data))
    if len(spec.key) > 1:
        fields = [nested(1, _be32(1, length)) for length in spec.key]
        payload += nested(9, nested(2, *fields))
    if spec.key_types == (_TYPE_IFNAME,):  # for `nft list`, which takes keys for network order otherwise
        payload += attribute(13, bytes([0, 4]) + struct.pack("=I", 1))
    return _change(_NEWSET, payload + _be32(10, number), CREATE)


def add_elements(table: str, name: str, elements: Iterable[tuple[bytes, bytes]]) -> Message:
    """Put (key, datum) into a map, or (key, b"") into a set. EEXIST for a key that leads elsewhere."""
    return _elements(_NEWSETELEM, table, name, elements, CREATE)


def delete_elements(table: str, name: str, keys: Iterable[bytes]) -> Message:
    """Take keys out; ENOENT when one is not there."""
    return _elements(_DELSETELEM, table, name, [(key, b"") for key in keys], 0)


def _elements(
    kind: int, table: str, name: str, elements: Iterable[tuple[bytes, bytes]], flags: int
) -> Message:
    encoded = []
    for key, datum in elements:
        value = nested(1, attribute(1, key))
        encoded.append(nested(1, value + (nested(2, attribute(1, datum)) if datum else b"")))
    return _change(kind, text(1, table) + text(2, name) + nested(3, *encoded), flags)


def _change(kind: int, payload: bytes, flags: int = 0) -> Message:
    return Message(_SUBSYSTEM | kind, flags, _generic(_FAMILY_INET) + payload)


def _generic(family: int, resource: int = 0) -> bytes:
    return struct.pack("!BBH", family, 0, resource)


def _be32(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("!I", value & 0xFFFFFFFF))


def _type_of(types: Sequence[int]) -> int:
    """The number that nft has for a concatenation: six bits a field."""
    number = 0
    for one in types:
        number = number << 6 | one
    return number


def _length_of(fields: Sequence[int]) -> int:
    return fields[0] if len(fields) == 1 else sum(-(-length // 4) * 4 for length in fields)


# --- expressions ------------------------------------------------------------------------------


def _expression(name: str, *values: bytes) -> bytes:
    return text(1, name) + nested(2, *values)


def _meta(key: int, register: int = _REG1) -> bytes:
    return _expression("meta", _be32(1, register), _be32(2, key))


def _compare(value: bytes, operator: int = _CMP_EQ) -> bytes:
    return _expression("cmp", _be32(1, _REG1), _be32(2, operator), nested(3, attribute(1, value)))


def _payload(base: int, offset: int, length: int, register: int = _REG1) -> bytes:
    return _expression("payload", _be32(1, register), _be32(2, base), _be32(3, offset), _be32(4, length))


def _bitmask(mask: bytes) -> bytes:
    zero = bytes(len(mask))
    return _expression(
        "bitwise",
        _be32(1, _REG1),
        _be32(2, _REG1),
        _be32(3, len(mask)),
        nested(4, attribute(1, mask)),
        nested(5, attribute(1, zero)),
    )


def _verdict(code: int, chain: str = "") -> bytes:
    value = _be32(1, code) + (text(2, chain) if chain else b"")
    return _expression("immediate", _be32(1, _REG_VERDICT), nested(2, nested(2, value)))


def _native_mask(mask: int) -> Expression:
    """Connection-tracking words are numbers in the host's order."""
    return (_bitmask(struct.pack("=I", mask)), _compare(bytes(4), _CMP_NEQ))


ACCEPT: Expression = (_verdict(_NF_ACCEPT),)
DROP: Expression = (_verdict(_NF_DROP),)
RETURN: Expression = (_verdict(_NFT_RETURN),)
MASQUERADE: Expression = (_expression("masq"),)
ESTABLISHED: Expression = (
    _expression("ct", _be32(1, _REG1), _be32(2, _CT_STATE)),
    *_native_mask(_STATE_ESTABLISHED_RELATED),
)
FROM_DNAT: Expression = (
    _expression("ct", _be32(1, _REG1), _be32(2, _CT_STATUS)),
    *_native_mask(_IPS_DST_NAT),
)
TO_LOCAL: Expression = (
    _expression("fib", _be32(1, _REG1), _be32(2, _FIB_ADDRTYPE), _be32(3, _FIB_DADDR)),
    _compare(struct.pack("=I", _RTN_LOCAL)),
)


def jump(chain: str) -> Expression:
    """Go through another chain, then on."""
    return (_verdict(_NFT_JUMP, chain),)


def interface(direction: str, name: str, *, is_not: bool = False) -> Expression:
    """The packet comes in (`in`) or goes out (`out`) by an interface, or does not."""
    key = _META_IIFNAME if direction == "in" else _META_OIFNAME
    return (_meta(key), _compare(name.encode().ljust(_IFNAMSIZ, b"\0"), _CMP_NEQ if is_not else _CMP_EQ))


def in_set(direction: str, name: str, *, is_not: bool = False) -> Expression:
    """The interface's name is in a set."""
    key = _META_IIFNAME if direction == "in" else _META_OIFNAME
    flags = _be32(5, int(is_not))
    return (_meta(key), _expression("lookup", text(1, name), _be32(2, _REG1), flags))


def is_protocol(version: int) -> Expression:
    """The packet is of IP version 4 or 6."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    return (_meta(_META_NFPROTO), _compare(bytes([family if version == 4 else 10])))


def is_from(network: ipaddress.IPv4Network | ipaddress.IPv6Network, *, is_not: bool = False) -> Expression:
    """The source address is in a network."""
    return _address(network, 12 if network.version == 4 else 8, is_not)


def is_to(network: ipaddress.IPv4Network | ipaddress.IPv6Network, *, is_not: bool = False) -> Expression:
    """The destination address is in a network."""
    return _address(network, 16 if network.version == 4 else 24, is_not)


def _address(network: ipaddress.IPv4Network | ipaddress.IPv6Network, offset: int, is_not: bool) -> Expression:
    length = network.max_prefixlen // 8
    value = network.network_address.packed
    if length == 4:
        steps = (_payload(_BASE_NETWORK, offset, 4), _bitmask(network.netmask.packed))
        return (*is_protocol(4), *steps, _compare(value, _CMP_NEQ if is_not else _CMP_EQ))
    steps = (_payload(_BASE_NETWORK, offset, 16), _bitmask(network.netmask.packed))
    return (*is_protocol(6), *steps, _compare(value, _CMP_NEQ if is_not else _CMP_EQ))


def dnat_by_map(version: int, name: str, *, with_address: bool) -> Expression:
    """Send the packet to where a map says: [address .] protocol . port leads to address . port.

    Packets that are not in the map go on.
    """
    address = 4 if version == 4 else 16
    key: list[bytes] = [*is_protocol(version)]
    register = _REG1
    if with_address:
        key.append(_payload(_BASE_NETWORK, 16 if version == 4 else 24, address, register))
        register += address // 4
    key.append(_meta(_META_L4PROTO, register))
    key.append(_payload(_BASE_TRANSPORT, 2, 2, register + 1))
    lookup = _expression("lookup", text(1, name), _be32(2, _REG1), _be32(3, _REG1))
    family = 2 if version == 4 else 10
    nat = _expression("nat", _be32(1, 1), _be32(2, family), _be32(3, _REG1), _be32(5, _REG1 + address // 4))
    return (*key, lookup, nat)


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
        except OSError as error:
            if hasattr(error, "index"):
                error.index = max(error.index - 1, 0)
            raise

    def tables(self) -> list[str]:
        """Names of the tables of our family."""
        request = Message(_SUBSYSTEM | _GETTABLE, 0x300, _generic(_FAMILY_INET))
        found = []
        for reply in self.ask(request):
            values = dict(parse_attributes(reply.payload[4:]))
            found.append(bytes(values[_NAME]).rstrip(b"\0").decode("ascii", "replace"))
        return found
