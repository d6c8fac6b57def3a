"""What networks and endpoints are to those who make them real. Values; addresses are of `ipaddress`."""

from __future__ import annotations

from dataclasses import dataclass

from orlop.network.ipam import Address, Network, Subnet

__all__ = ["PROTOCOLS", "BridgeSpec", "PortRule"]

PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}


@dataclass(frozen=True, slots=True)
class BridgeSpec:
    """A bridge network on the host.

    `bridge` is the interface's name. An internal network has no way out and in but for its own
    endpoints. Without `masquerades` what leaves keeps its address, and somebody has to route
    the answers. Without `has_icc` endpoints do not reach each other. An interface that is not ours
    is neither made nor removed, and keeps the addresses it has.
    """

    id: str
    bridge: str
    subnets: tuple[Subnet, ...]
    is_internal: bool = False
    masquerades: bool = True
    has_icc: bool = True
    mtu: int = 0
    is_ours: bool = True

    @property
    def networks(self) -> tuple[Network, ...]:
        """Its address ranges."""
        return tuple(subnet.network for subnet in self.subnets)


@dataclass(frozen=True, slots=True)
class PortRule:
    """A port of the host that leads to an endpoint. `host_address` None is every address of the version."""

    protocol: str
    host_address: Address | None
    host_port: int
    address: Address  # of the endpoint, of the same IP version
    port: int
