"""Where a registry may send us: outwards as far as it is itself, never further in.

A registry at a public address may name public addresses only; one at a private address also
private ones; one on loopback also loopback. Link-local addresses (metadata services of clouds),
unspecified and multicast ones are never reached on somebody else's word. The rules are module
functions because they are part of the connection pool's key.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

from orlop.aio.http_client import IpAddress

__all__ = ["public_only", "reach_from"]


def reach_from(address: str) -> Callable[[IpAddress], bool]:
    """The rule for what a peer at this numeric address may send us to."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return public_only
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    if parsed.is_loopback:
        return with_loopback
    return public_only if parsed.is_global else with_private


def public_only(address: IpAddress) -> bool:
    """True for addresses of the internet."""
    return address.is_global and not _is_never(address)


def with_private(address: IpAddress) -> bool:
    """True for addresses of the internet and of private networks."""
    return not address.is_loopback and not _is_never(address)


def with_loopback(address: IpAddress) -> bool:
    """True for all but link-local, unspecified and multicast addresses."""
    return not _is_never(address)


def _is_never(address: IpAddress) -> bool:
    return address.is_link_local or address.is_multicast or address.is_unspecified
