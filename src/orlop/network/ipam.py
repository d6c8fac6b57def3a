"""Addresses: which subnet a new network gets, and which address an endpoint.

Pure: what is taken is told by the caller, who reads it from the networks and endpoints that live.
Nothing is stored, so nothing can leak; a crash forgets no address and remembers none too many.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from orlop.base.errors import InvalidInput, Kind, OrlopError

__all__ = [
    "DEFAULT_POOLS",
    "AddressTaken",
    "NoAddressLeft",
    "NoPoolLeft",
    "Pool",
    "Subnet",
    "SubnetOverlap",
    "check_overlap",
    "choose_address",
    "choose_subnet",
    "mac_of",
    "parse_subnet",
]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class NoPoolLeft(OrlopError):
    """Every subnet of the default pools is in use."""

    kind: ClassVar[Kind] = Kind.INVALID
    code: ClassVar[str] = "no-pool-left"


class NoAddressLeft(OrlopError):
    """A subnet has no free address."""

    kind: ClassVar[Kind] = Kind.EXHAUSTED
    code: ClassVar[str] = "no-address-left"


class AddressTaken(OrlopError):
    """An endpoint already has the address that was asked for."""

    kind: ClassVar[Kind] = Kind.FORBIDDEN
    code: ClassVar[str] = "address-taken"


class SubnetOverlap(OrlopError):
    """A subnet overlaps another network's, or one that the host reaches otherwise."""

    kind: ClassVar[Kind] = Kind.FORBIDDEN
    code: ClassVar[str] = "subnet-overlap"


@dataclass(frozen=True, slots=True)
class Pool:
    """A block of addresses that is dealt out in subnets of one size."""

    base: Network
    size: int  # prefix length of a subnet


@dataclass(frozen=True, slots=True)
class Subnet:
    """What a network has of one IP version. `reserved` are auxiliary addresses and the gateway."""

    network: Network
    gateway: Address | None
    ip_range: Network | None = None
    reserved: frozenset[Address] = frozenset()


def _pool(base: str, size: int) -> Pool:
    return Pool(ipaddress.ip_network(base), size)


DEFAULT_POOLS = (
    _pool("172.17.0.0/16", 24),
    _pool("172.18.0.0/15", 24),
    _pool("172.20.0.0/14", 24),
    _pool("172.24.0.0/13", 24),
    _pool("192.168.0.0/16", 24),
    _pool("fd6f:726c:6f70::/48", 64),
)
"""Small subnets: thousands of networks, where a pool of /16 and /20 is empty after thirty."""


def parse_subnet(subnet: str, ip_range: str = "", gateway: str = "", aux: Iterable[str] = ()) -> Subnet:
    """What a client asks for.

    Raises:
        InvalidInput: with dockerd's texts.
    """
    network = _parse_network(subnet, "invalid subnet")
    within = _parse_network(ip_range, "invalid ip-range") if ip_range else None
    if within is not None and (within.version != network.version or not _contains(network, within)):
        raise InvalidInput(f"invalid ip-range {ip_range}: parent subnet {network} does not contain it")
    addresses = [_parse_address(text) for text in (*([gateway] if gateway else []), *aux)]
    for address in addresses:
        if address not in network:
            raise InvalidInput(f"invalid address {address}: parent subnet {network} does not contain it")
    entry = addresses[0] if gateway else _first(network, within, frozenset(addresses))
    return Subnet(network, entry, within, frozenset(addresses) | ({entry} if entry else set()))


def _parse_network(text: str, problem: str) -> Network:
    try:
        found = ipaddress.ip_network(text.strip(), strict=False)
    except ValueError as error:
        raise InvalidInput(f"{problem} {text[:60]}: {error}") from error
    if ipaddress.ip_interface(text.strip()).ip != found.network_address:
        raise InvalidInput(f"{problem} {text[:60]}: it should be {found}")
    return found


def _parse_address(text: str) -> Address:
    try:
        return ipaddress.ip_address(text.strip().partition("/")[0])
    except ValueError as error:
        raise InvalidInput(f"invalid IP address: {text[:60]}") from error


def choose_subnet(pools: Sequence[Pool], version: int, taken: Collection[Network]) -> Subnet:
    """The first subnet of the pools that touches nothing taken: other networks, routes of the host.

    Raises:
        NoPoolLeft: there is none.
    """
    same = sorted((one for one in taken if one.version == version), key=lambda one: int(one.network_address))
    for pool in pools:
        if pool.base.version == version and (found := _first_free(pool, same)) is not None:
            entry = found.network_address + 1
            return Subnet(found, entry, None, frozenset({entry}))
    raise NoPoolLeft(
        "all predefined address pools have been fully subnetted",
        hint="give a --subnet, remove networks that nobody uses, or set default-address-pools",
    )


def _first_free(pool: Pool, taken: Sequence[Network]) -> Network | None:
    """Skips whole taken blocks, and looks at each once: a large pool is not walked subnet by subnet.

    `taken` is in the order of first addresses.
    """
    step = 1 << (pool.base.max_prefixlen - pool.size)
    at, end = int(pool.base.network_address), int(pool.base.broadcast_address)
    for one in taken:
        if int(one.network_address) >= at + step or at + step - 1 > end:
            break
        last = int(one.broadcast_address)
        if last >= at:
            at += -(-(last + 1 - at) // step) * step
    return type(pool.base)((at, pool.size)) if at + step - 1 <= end else None


def check_overlap(wanted: Network, taken: Iterable[Network]) -> None:
    """Refuse a subnet that overlaps one in use, with dockerd's text."""
    if any(one.version == wanted.version and one.overlaps(wanted) for one in taken):
        raise SubnetOverlap("Pool overlaps with other one on this address space")


def choose_address(
    subnet: Subnet, taken: Collection[Address], wanted: str = "", after: Address | None = None
) -> Address:
    """An address for an endpoint.

    Args:
        subnet: of the network.
        taken: addresses of its other endpoints.
        wanted: an address that the user asks for; anywhere in the subnet.
        after: the one that was given last: a fresh one is used before one that was just let go, so that
            nobody's cached name leads to a stranger.

    Raises:
        NoAddressLeft, AddressTaken: as named.
        InvalidInput: `wanted` is not an address of the subnet.
    """
    if wanted:
        return _wanted(subnet, taken, wanted)
    for address in _candidates(subnet, after):
        if address not in taken and address not in subnet.reserved:
            return address
    raise NoAddressLeft(
        f"no available IPv{subnet.network.version} addresses on this network's address pools: "
        f"{subnet.network}",
        hint="make a network with a larger subnet",
    )


def _wanted(subnet: Subnet, taken: Collection[Address], text: str) -> Address:
    address = _parse_address(text)
    if address.version != subnet.network.version or address not in subnet.network:
        raise InvalidInput(f"no configured subnet contains IP address {address}")
    if address in taken or address == subnet.gateway or address in _edges(subnet.network):
        raise AddressTaken("Address already in use", address=str(address))
    return address


def _candidates(subnet: Subnet, after: Address | None) -> Iterator[Address]:
    """Every host address once, beginning behind `after`."""
    block = subnet.ip_range or subnet.network
    first, last = int(block.network_address), int(block.broadcast_address)
    edges = _edges(subnet.network)
    kind = type(subnet.network.network_address)
    start = int(after) + 1 if after is not None and first <= int(after) < last else first
    for span in (range(start, last + 1), range(first, start)):
        for number in span:
            address = kind(number)
            if address not in edges:
                yield address


def _first(network: Network, ip_range: Network | None, reserved: frozenset[Address]) -> Address | None:
    subnet = Subnet(network, None, ip_range, reserved)
    return next((address for address in _candidates(subnet, None) if address not in reserved), None)


def _edges(network: Network) -> tuple[Address, ...]:
    """Addresses that no host can have: of the network, and of all of IPv4's hosts."""
    if network.prefixlen >= network.max_prefixlen - 1:
        return ()
    if network.version == 6:
        return (network.network_address,)
    return (network.network_address, network.broadcast_address)


def _contains(network: Network, other: Network) -> bool:
    return int(network.network_address) <= int(other.network_address) and (
        int(other.broadcast_address) <= int(network.broadcast_address)
    )


def mac_of(address: Address) -> bytes:
    """The link address of an endpoint: locally administered, and the same for the same IPv4 address."""
    return b"\x02\x42" + address.packed[-4:]
