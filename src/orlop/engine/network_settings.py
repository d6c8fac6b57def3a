"""The engine's settings of networks (`orlopd` flags), read and checked. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orlop.base.errors import InvalidInput
from orlop.network.ipam import DEFAULT_POOLS, Pool

__all__ = ["NetworkSettings", "read_network_settings"]


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """`bridge` is empty for a bridge of ours, `none`, or the name of an interface that exists."""

    bridge: str = ""
    bip: str = ""
    fixed_cidr: str = ""
    pools: tuple[Pool, ...] = DEFAULT_POOLS
    has_icc: bool = True
    default_address: str = ""  # of published ports
    masquerades: bool = True
    has_firewall: bool = True
    mtu: int = 0
    has_ipv6: bool = False

    @property
    def has_bridge(self) -> bool:
        """There is a default network."""
        return self.bridge != "none"


def read_network_settings(values: Mapping[str, Any]) -> NetworkSettings:
    """From flags by name.

    Raises:
        InvalidInput: one has no meaning.
    """
    bridge, bip = values.get("bridge", ""), values.get("bip", "")
    if bridge and bip:
        raise InvalidInput("You specified -b & --bip, mutually exclusive options. Please specify only one")
    if len(bridge.encode()) > 15 or "/" in bridge or any(char.isspace() for char in bridge):
        raise InvalidInput(f"invalid bridge name: {bridge[:60]!r}")
    if bip:
        _parse("bip", bip, ipaddress.ip_interface)
    if cidr := values.get("fixed-cidr", ""):
        _parse("fixed-cidr", cidr, ipaddress.ip_network)
    if address := values.get("ip", ""):
        _parse("ip", address, ipaddress.ip_address)
    mtu = values.get("mtu", 0)
    if mtu and not 68 <= mtu <= 65535:
        raise InvalidInput(f"invalid default MTU: {mtu}")
    pools = tuple(_pool(text) for text in values.get("default-address-pool", ()))
    return NetworkSettings(
        bridge=bridge,
        bip=bip,
        fixed_cidr=cidr,
        pools=_with_ipv6(pools) if pools else DEFAULT_POOLS,
        has_icc=values.get("icc", True),
        default_address=address,
        masquerades=values.get("ip-masq", True),
        has_firewall=values.get("iptables", True),
        mtu=mtu,
        has_ipv6=values.get("ipv6", False),
    )


def _with_ipv6(pools: Sequence[Pool]) -> tuple[Pool, ...]:
    """Own pools replace ours of the same version."""
    versions = {pool.base.version for pool in pools}
    return (*pools, *(pool for pool in DEFAULT_POOLS if pool.base.version not in versions))


def _pool(text: str) -> Pool:
    """`base=10.10.0.0/16,size=24`."""
    parts = dict(part.strip().partition("=")[::2] for part in text.split(","))
    if set(parts) != {"base", "size"} or not parts["size"].isdecimal():
        raise InvalidInput(
            f'invalid argument "{text[:60]}" for "--default-address-pool" flag: '
            "base=NETWORK,size=PREFIX is wanted"
        )
    base = _parse("default-address-pool", parts["base"], ipaddress.ip_network)
    size = int(parts["size"][:4])
    if not base.prefixlen <= size <= base.max_prefixlen:
        raise InvalidInput(f"the pool size {size} does not fit {base}")
    return Pool(base, size)


def _parse(name: str, text: str, parse: Any) -> Any:
    try:
        return parse(text)
    except ValueError as error:
        raise InvalidInput(f'invalid argument "{text[:60]}" for "--{name}" flag: {error}') from error
