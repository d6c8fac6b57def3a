"""What networks are: requests, the stored record, the views of clients, and what a running container has.

`NetworkRecord` is the document of a row; fields may be added, never renamed. `LiveNetwork` is what one
start of a container was given: it lies as `network.json` in the run dir, for the engine that comes after
this one.

Spec: Docker Engine API v1.51, "Network".
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from orlop.engine.requests import EndpointSettings
from orlop.network.contract import BridgeSpec, PortRule
from orlop.network.ipam import Address, Subnet, parse_subnet
from orlop.runtime.spec import EndpointSpec
from orlop.wire.gojson import field

__all__ = [
    "BRIDGE",
    "NOTHING",
    "ConfigFrom",
    "ConnectRequest",
    "DisconnectRequest",
    "IpamDocument",
    "IpamPool",
    "LiveEndpoint",
    "LiveNetwork",
    "LivePort",
    "NetworkCreateRequest",
    "NetworkCreated",
    "NetworkRecord",
    "NetworkUser",
    "NetworkView",
]

Labels = dict[str, str]

BRIDGE = "bridge"  # the default network, and the driver of most
_OPTION = "com.docker.network.bridge."
_MTU = "com.docker.network.driver.mtu"
_FALSE = frozenset({"false", "f", "0"})


@dataclass(frozen=True, slots=True)
class IpamPool:
    """One subnet, as asked for or decided."""

    subnet: str = field(default="", omit_empty=True)
    ip_range: str = field("IPRange", default="", omit_empty=True)
    gateway: str = field(default="", omit_empty=True)
    auxiliary_addresses: Labels | None = field("AuxiliaryAddresses", default=None, omit_empty=True)

    def parsed(self) -> Subnet:
        """As addresses. Raises InvalidInput."""
        return parse_subnet(
            self.subnet, self.ip_range, self.gateway, tuple((self.auxiliary_addresses or {}).values())
        )


@dataclass(frozen=True, slots=True)
class IpamDocument:
    """How addresses are chosen."""

    driver: str = "default"
    options: Labels | None = None
    config: tuple[IpamPool, ...] | None = ()


@dataclass(frozen=True, slots=True)
class ConfigFrom:
    """Swarm's configuration networks: never used."""

    network: str = ""


@dataclass(frozen=True, slots=True)
class NetworkCreateRequest:
    """`POST /networks/create`."""

    name: str = ""
    check_duplicate: bool = False
    driver: str = ""
    scope: str = ""
    enable_ipv4: bool | None = field("EnableIPv4", default=None)
    enable_ipv6: bool | None = field("EnableIPv6", default=None)
    ipam: IpamDocument | None = field("IPAM", default=None)
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    config_from: ConfigFrom | None = None
    options: Labels | None = None
    labels: Labels | None = None


@dataclass(frozen=True, slots=True)
class NetworkCreated:
    """Answer to create."""

    id: str
    warning: str = ""


@dataclass(frozen=True, slots=True)
class ConnectRequest:
    """`POST /networks/{id}/connect`."""

    container: str = ""
    endpoint_config: EndpointSettings | None = None


@dataclass(frozen=True, slots=True)
class DisconnectRequest:
    """`POST /networks/{id}/disconnect`."""

    container: str = ""
    force: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkRecord:
    """A bridge network: what was asked for with every choice decided. `bridge` is the interface."""

    id: str
    name: str
    created_ns: int
    driver: str = BRIDGE
    enable_ipv4: bool = True
    enable_ipv6: bool = False
    internal: bool = False
    attachable: bool = False
    bridge: str = ""
    owns_bridge: bool = True  # False: an interface of the administrator's, never made nor removed
    ipam: IpamDocument = IpamDocument()
    options: Labels | None = None
    labels: Labels | None = None

    @property
    def subnets(self) -> tuple[Subnet, ...]:
        return tuple(pool.parsed() for pool in self.ipam.config or ())

    @property
    def mtu(self) -> int:
        text = (self.options or {}).get(_MTU, "")
        return int(text) if text.isdecimal() else 0

    @property
    def has_icc(self) -> bool:
        """Endpoints reach each other."""
        return self._is_on("enable_icc")

    @property
    def host_address(self) -> str:
        """Where ports are published that name no address of the host."""
        address = (self.options or {}).get(f"{_OPTION}host_binding_ipv4", "")
        return "" if address == "0.0.0.0" else address

    def spec(self) -> BridgeSpec:
        """For the host."""
        return BridgeSpec(
            id=self.id,
            bridge=self.bridge,
            subnets=self.subnets,
            is_internal=self.internal,
            masquerades=self._is_on("enable_ip_masquerade"),
            has_icc=self.has_icc,
            mtu=self.mtu,
            is_ours=self.owns_bridge,
        )

    def _is_on(self, name: str) -> bool:
        return (self.options or {}).get(_OPTION + name, "true").lower() not in _FALSE


@dataclass(frozen=True, slots=True)
class NetworkUser:
    """A running container on a network, as the network's inspect shows it."""

    name: str
    endpoint_id: str = field("EndpointID", default="")
    mac_address: str = ""
    ipv4_address: str = field("IPv4Address", default="")
    ipv6_address: str = field("IPv6Address", default="")


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkView:
    """One network as clients see it."""

    name: str
    id: str
    created: str
    scope: str = "local"
    driver: str
    enable_ipv4: bool = field("EnableIPv4", default=True)
    enable_ipv6: bool = field("EnableIPv6", default=False)
    ipam: IpamDocument = field("IPAM", default=IpamDocument())
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_from: ConfigFrom = ConfigFrom()
    config_only: bool = False
    containers: dict[str, NetworkUser]
    options: dict[str, str]
    labels: dict[str, str]


@dataclass(frozen=True, slots=True)
class LiveEndpoint:
    """An interface that a running container has, and the network it is on."""

    network_id: str
    network: str
    spec: EndpointSpec
    gateways: tuple[str, ...] = ()  # of the network, whether or not it leads out here

    @property
    def addresses(self) -> tuple[Address, ...]:
        return tuple(ipaddress.ip_interface(text).ip for text in self.spec.addresses)

    def interface(self, version: int) -> str:
        """Address with prefix length, "" when there is none."""
        found = (text for text in self.spec.addresses if ipaddress.ip_interface(text).version == version)
        return next(found, "")

    def gateway(self, version: int) -> str:
        """Of the network."""
        found = (text for text in self.gateways if ipaddress.ip_address(text).version == version)
        return next(found, "")


@dataclass(frozen=True, slots=True)
class LivePort:
    """A published port: `port` is the container's `80/tcp`."""

    port: str
    protocol: str
    host_ip: str
    host_port: int
    address: str
    target: int

    def rule(self) -> PortRule:
        """For the host."""
        host = ipaddress.ip_address(self.host_ip)
        address = ipaddress.ip_address(self.address)
        return PortRule(
            self.protocol, None if host.is_unspecified else host, self.host_port, address, self.target
        )


@dataclass(frozen=True, slots=True)
class LiveNetwork:
    """Everything that a running container has of networks."""

    endpoints: tuple[LiveEndpoint, ...] = ()
    ports: tuple[LivePort, ...] = ()

    def on(self, network_id: str) -> LiveEndpoint | None:
        """Its endpoint on a network."""
        return next((item for item in self.endpoints if item.network_id == network_id), None)


NOTHING = LiveNetwork()
