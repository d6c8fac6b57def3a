"""Which networks a container is to join, by its record; and what its files and views say. Pure.

`Record.networking` names the networks; those that a create leaves open are decided by the network mode.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from orlop.base.errors import InvalidInput
from orlop.engine.hostconfig import check_words
from orlop.engine.model import Container, Record
from orlop.engine.network_model import BRIDGE, NOTHING, LiveEndpoint, LiveNetwork
from orlop.engine.requests import (
    ContainerConfig,
    EndpointSettings,
    HostConfig,
    NetworkingConfig,
    PortBinding,
)

__all__ = [
    "checked_wish",
    "dns_names",
    "endpoint_settings",
    "host_lines",
    "is_bridged",
    "networks_of",
    "port_bindings",
    "with_networks",
    "with_wishes",
]

_EMPTY = EndpointSettings()
_MAC = re.compile(r"[0-9a-f][02468ace](?::[0-9a-f]{2}){5}\Z")  # of one interface, not of a group


def is_bridged(mode: str) -> bool:
    """A container of this network mode has interfaces of its own."""
    return mode not in ("host", "none") and not mode.startswith("container:")


def networks_of(record: Record) -> dict[str, EndpointSettings]:
    """Networks by name, with what is asked of each; `host` and `none` among them."""
    mode = record.host.network_mode
    if mode.startswith("container:"):
        return {}
    given = record.networking.endpoints_config
    if not is_bridged(mode):
        return {mode: (given or {}).get(mode) or _EMPTY}
    if given is None:
        return {mode: _EMPTY}
    return {name: settings or _EMPTY for name, settings in given.items()}


def with_wishes(
    host: HostConfig, config: ContainerConfig, networking: NetworkingConfig, name_of: Callable[[str], str]
) -> NetworkingConfig:
    """What a create asks for, complete: every network under its name.

    Args:
        host: with its network mode decided.
        config: for the link address that clients of old send there.
        networking: of the request.
        name_of: the name of a network that is given by name or id; unknown ones stay as they are.

    Raises:
        InvalidInput: an address on the default network.
    """
    mode = host.network_mode
    if not is_bridged(mode):
        return networking
    given = {
        name_of(BRIDGE if name == "default" else name): settings or _EMPTY
        for name, settings in (networking.endpoints_config or {}).items()
    }
    own = name_of(mode)
    if not given or own != BRIDGE:
        given.setdefault(own, _EMPTY)
    if config.mac_address and own in given and not given[own].mac_address:
        given[own] = replace(given[own], mac_address=config.mac_address)
    return NetworkingConfig({name: checked_wish(name, wish) for name, wish in given.items()})


def checked_wish(name: str, wish: EndpointSettings) -> EndpointSettings:
    """What is asked of one network, without anything that a client copied from an inspect.

    Raises:
        InvalidInput: with dockerd's texts.
    """
    ipam = wish.ipam_config
    if name == BRIDGE and ipam is not None and (ipam.ipv4_address or ipam.ipv6_address):
        raise InvalidInput("user specified IP address is supported on user defined networks only")
    mac = wish.mac_address.lower().replace("-", ":")
    if mac and not _MAC.match(mac):
        raise InvalidInput(f"invalid MAC address: {wish.mac_address[:60]}")
    check_words(*(wish.aliases or ()))
    return EndpointSettings(
        ipam_config=ipam,
        links=wish.links,
        aliases=wish.aliases,
        mac_address=mac,
        driver_opts=wish.driver_opts,
        gw_priority=wish.gw_priority,
    )


def with_networks(record: Record, networks: Mapping[str, EndpointSettings]) -> Record:
    """The record with these networks."""
    return replace(record, networking=NetworkingConfig(dict(networks)))


def dns_names(record: Record, wish: EndpointSettings) -> tuple[str, ...]:
    """Names under which it is found on a network."""
    names = (record.name, *(wish.aliases or ()), record.id[:12], record.config.hostname)
    return tuple(dict.fromkeys(name for name in names if name))


def endpoint_settings(container: Container) -> dict[str, EndpointSettings]:
    """`NetworkSettings.Networks`."""
    live = {item.network: item for item in (container.network or NOTHING).endpoints}
    return {
        name: _shown(container.record, name, wish, live.get(name))
        for name, wish in networks_of(container.record).items()
    }


def _shown(record: Record, name: str, wish: EndpointSettings, live: LiveEndpoint | None) -> EndpointSettings:
    wish = replace(wish, dns_names=dns_names(record, wish) if name not in (BRIDGE, "host", "none") else None)
    if live is None:
        return wish
    ipv4, _, prefix4 = live.interface(4).partition("/")
    ipv6, _, prefix6 = live.interface(6).partition("/")
    return replace(
        wish,
        mac_address=live.spec.mac,
        network_id=live.network_id,
        endpoint_id=live.spec.id,
        gateway=live.gateway(4),
        ip_address=ipv4,
        ip_prefix_len=int(prefix4 or 0),
        ipv6_gateway=live.gateway(6),
        global_ipv6_address=ipv6,
        global_ipv6_prefix_len=int(prefix6 or 0),
    )


def port_bindings(record: Record, live: LiveNetwork | None) -> dict[str, tuple[PortBinding, ...] | None]:
    """`NetworkSettings.Ports` of a running container: exposed ports, and where they are published."""
    ports: dict[str, tuple[PortBinding, ...] | None] = dict.fromkeys(
        sorted(record.config.exposed_ports or ())
    )
    for item in (live or NOTHING).ports:
        binding = PortBinding(item.host_ip, str(item.host_port))
        ports[item.port] = (*(ports.get(item.port) or ()), binding)
    return ports


def host_lines(record: Record, live: LiveNetwork | None) -> list[str]:
    """Lines of /etc/hosts that name the container itself."""
    config = record.config
    names = [config.hostname]
    if config.domainname:
        names.insert(0, f"{config.hostname}.{config.domainname}")
    return [
        f"{address}\t{' '.join(names)}"
        for endpoint in (live or NOTHING).endpoints
        for address in endpoint.addresses
        if config.hostname
    ]
