"""The default network `bridge`: decided anew at every start from the flags and what was before."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from orlop.base import ids
from orlop.engine.network_model import BRIDGE, IpamDocument, IpamPool, NetworkRecord
from orlop.engine.network_settings import NetworkSettings
from orlop.network.ipam import Network, choose_subnet

__all__ = ["DefaultPlace", "decide_default"]

Interfaces = list[ipaddress.IPv4Interface | ipaddress.IPv6Interface]


@dataclass(frozen=True, slots=True)
class DefaultPlace:
    """What two engines of one host must not share.

    Args:
        data_root: of the engine.
        is_usual: it is the one that nobody has to name.
        addresses: gives those of an interface that somebody else made.
    """

    data_root: str
    is_usual: bool
    addresses: Callable[[str], Interfaces] = lambda _name: []

    @property
    def table(self) -> str:
        """Name of the engine's nftables table."""
        if self.is_usual:
            return "orlop"
        return f"orlop-{hashlib.sha256(self.data_root.encode()).hexdigest()[:8]}"

    def bridge_of(self, network_id: str) -> str:
        """Name of the default network's interface."""
        return "orlop0" if self.is_usual else f"br-{network_id[:12]}"


def decide_default(
    old: NetworkRecord | None,
    settings: NetworkSettings,
    place: DefaultPlace,
    taken: Collection[Network],
    now_ns: int,
) -> NetworkRecord:
    """The record of the default network.

    Args:
        old: that of the start before; its id, and its subnet when the flags say nothing else, stay.
        settings: the flags.
        place: names.
        taken: subnets of other networks, and what the host reaches otherwise.
        now_ns: the time.

    Raises:
        InvalidInput, NoPoolLeft: there is no subnet.
        BridgeFailed: the interface that the flags name is not there.
    """
    network_id = old.id if old else ids.new_hex_id()
    bridge = settings.bridge or place.bridge_of(network_id)
    pools = _pools(old, settings, place, taken)
    options = {
        "com.docker.network.bridge.default_bridge": "true",
        "com.docker.network.bridge.enable_icc": str(settings.has_icc).lower(),
        "com.docker.network.bridge.enable_ip_masquerade": str(settings.masquerades).lower(),
        "com.docker.network.bridge.host_binding_ipv4": settings.default_address or "0.0.0.0",
        "com.docker.network.bridge.name": bridge,
        "com.docker.network.driver.mtu": str(settings.mtu or 1500),
    }
    record = NetworkRecord(
        id=network_id,
        name=BRIDGE,
        created_ns=old.created_ns if old else now_ns,
        enable_ipv6=any(":" in pool.subnet for pool in pools),
        bridge=bridge,
        owns_bridge=not settings.bridge,
        ipam=IpamDocument("default", None, tuple(pools)),
        options=options,
        labels={},
    )
    _ = record.subnets  # raises when they make no sense
    return record


def _pools(
    old: NetworkRecord | None, settings: NetworkSettings, place: DefaultPlace, taken: Collection[Network]
) -> list[IpamPool]:
    if settings.bridge:
        given = [one for one in place.addresses(settings.bridge) if not one.ip.is_link_local]
        pools = [IpamPool(str(one.network), gateway=str(one.ip)) for one in given]
    elif settings.bip:
        own = ipaddress.ip_interface(settings.bip)
        pools = [IpamPool(str(own.network), gateway=str(own.ip))]
    else:
        pools = [
            replace(pool, ip_range="")
            for pool in ((old.ipam.config or ()) if old and old.owns_bridge else ())
            if ":" not in pool.subnet
        ]
    if not any(":" not in pool.subnet for pool in pools):
        pools.append(_chosen(settings, 4, taken))
    if settings.has_ipv6 and not any(":" in pool.subnet for pool in pools):
        before = [pool for pool in ((old.ipam.config or ()) if old else ()) if ":" in pool.subnet]
        pools += before[:1] or [_chosen(settings, 6, taken)]
    if settings.fixed_cidr:
        pools[0] = replace(pools[0], ip_range=settings.fixed_cidr)
    return pools


def _chosen(settings: NetworkSettings, version: int, taken: Collection[Network]) -> IpamPool:
    subnet = choose_subnet(settings.pools, version, taken)
    return IpamPool(str(subnet.network), gateway=str(subnet.gateway))
