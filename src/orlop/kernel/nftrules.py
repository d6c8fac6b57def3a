"""What nftables rules are made of: matches and statements as encoded expressions.

A rule is a list of expressions. Those that load something put it into registers; those that
compare or look up read them. Registers are numbered in words of four bytes. Numbers are in
network order, but for the words of connection tracking.

Source: linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import ipaddress
import socket
import struct

from orlop.kernel.netlink import attribute, nested, text

__all__ = [
    "ACCEPT",
    "DROP",
    "ESTABLISHED",
    "FROM_DNAT",
    "IFNAMSIZ",
    "MASQUERADE",
    "RETURN",
    "TO_LOCAL",
    "Expression",
    "be32",
    "comes_from",
    "dnat_by_map",
    "goes_between",
    "in_set",
    "interface",
    "is_from",
    "is_protocol",
    "is_to",
    "jump",
]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Expression = tuple[bytes, ...]
"""One or more encoded expressions that belong together: a match, or a statement."""

IFNAMSIZ = 16
_REG_VERDICT, _REG1 = 0, 8  # NFT_REG32_00
_CMP_EQ, _CMP_NEQ = 0, 1
_META_IIFNAME, _META_OIFNAME, _META_NFPROTO, _META_L4PROTO = 6, 7, 15, 16
_CT_STATE, _CT_STATUS = 0, 2
_STATE_ESTABLISHED_RELATED = 0x2 | 0x4
_IPS_DST_NAT = 1 << 5
_FIB_DADDR, _FIB_ADDRTYPE, _RTN_LOCAL = 1 << 1, 3, 2
_BASE_NETWORK, _BASE_TRANSPORT = 1, 2
_NF_DROP, _NF_ACCEPT, _NFT_JUMP, _NFT_RETURN = 0, 1, -3, -5


def be32(kind: int, value: int) -> bytes:
    """An attribute with four bytes in network order."""
    return attribute(kind, struct.pack("!I", value & 0xFFFFFFFF))


def _expression(name: str, *values: bytes) -> bytes:
    return text(1, name) + nested(2, *values)


def _meta(key: int, register: int = _REG1) -> bytes:
    return _expression("meta", be32(1, register), be32(2, key))


def _compare(value: bytes, operator: int = _CMP_EQ) -> bytes:
    return _expression("cmp", be32(1, _REG1), be32(2, operator), nested(3, attribute(1, value)))


def _payload(base: int, offset: int, length: int, register: int = _REG1) -> bytes:
    return _expression("payload", be32(1, register), be32(2, base), be32(3, offset), be32(4, length))


def _bitmask(mask: bytes) -> bytes:
    zero = bytes(len(mask))
    return _expression(
        "bitwise",
        be32(1, _REG1),
        be32(2, _REG1),
        be32(3, len(mask)),
        nested(4, attribute(1, mask)),
        nested(5, attribute(1, zero)),
    )


def _verdict(code: int, chain: str = "") -> bytes:
    value = be32(1, code) + (text(2, chain) if chain else b"")
    return _expression("immediate", be32(1, _REG_VERDICT), nested(2, nested(2, value)))


def _native_mask(mask: int) -> Expression:
    """Connection-tracking words are numbers in the host's order."""
    return (_bitmask(struct.pack("=I", mask)), _compare(bytes(4), _CMP_NEQ))


ACCEPT: Expression = (_verdict(_NF_ACCEPT),)
DROP: Expression = (_verdict(_NF_DROP),)
RETURN: Expression = (_verdict(_NFT_RETURN),)
MASQUERADE: Expression = (_expression("masq"),)
ESTABLISHED: Expression = (
    _expression("ct", be32(1, _REG1), be32(2, _CT_STATE)),
    *_native_mask(_STATE_ESTABLISHED_RELATED),
)
FROM_DNAT: Expression = (
    _expression("ct", be32(1, _REG1), be32(2, _CT_STATUS)),
    *_native_mask(_IPS_DST_NAT),
)
TO_LOCAL: Expression = (
    _expression("fib", be32(1, _REG1), be32(2, _FIB_ADDRTYPE), be32(3, _FIB_DADDR)),
    _compare(struct.pack("=I", _RTN_LOCAL)),
)


def jump(chain: str) -> Expression:
    """Go through another chain, then on."""
    return (_verdict(_NFT_JUMP, chain),)


def interface(direction: str, name: str, *, is_not: bool = False) -> Expression:
    """The packet comes in (`in`) or goes out (`out`) by an interface, or does not."""
    key = _META_IIFNAME if direction == "in" else _META_OIFNAME
    return (_meta(key), _compare(name.encode().ljust(IFNAMSIZ, b"\0"), _CMP_NEQ if is_not else _CMP_EQ))


def in_set(direction: str, name: str, *, is_not: bool = False) -> Expression:
    """The interface's name is in a set."""
    key = _META_IIFNAME if direction == "in" else _META_OIFNAME
    flags = be32(5, int(is_not))
    return (_meta(key), _expression("lookup", text(1, name), be32(2, _REG1), flags))


def goes_between(name: str) -> Expression:
    """(incoming, outgoing) interface names are in a set of pairs."""
    lookup = _expression("lookup", text(1, name), be32(2, _REG1))
    return (_meta(_META_IIFNAME), _meta(_META_OIFNAME, _REG1 + IFNAMSIZ // 4), lookup)


def comes_from(version: int, name: str) -> Expression:
    """The source address is in an interval set."""
    offset, length = (12, 4) if version == 4 else (8, 16)
    lookup = _expression("lookup", text(1, name), be32(2, _REG1))
    return (*is_protocol(version), _payload(_BASE_NETWORK, offset, length), lookup)


def is_protocol(version: int) -> Expression:
    """The packet is of IP version 4 or 6."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    return (_meta(_META_NFPROTO), _compare(bytes([family])))


def is_from(network: Network, *, is_not: bool = False) -> Expression:
    """The source address is in a network."""
    return _address(network, 12 if network.version == 4 else 8, is_not)


def is_to(network: Network, *, is_not: bool = False) -> Expression:
    """The destination address is in a network."""
    return _address(network, 16 if network.version == 4 else 24, is_not)


def _address(network: Network, offset: int, is_not: bool) -> Expression:
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
    lookup = _expression("lookup", text(1, name), be32(2, _REG1), be32(3, _REG1))
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    nat = _expression("nat", be32(1, 1), be32(2, family), be32(3, _REG1), be32(5, _REG1 + address // 4))
    return (*key, lookup, nat)
