"""From a create request to a network's record: every refusal and every choice. Pure.

The texts are dockerd's: its clients' tests know them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from orlop.base.errors import InvalidInput, Kind, NotFound, OrlopError
from orlop.engine.network_model import BRIDGE, IpamDocument, IpamPool, NetworkCreateRequest, NetworkRecord
from orlop.network.ipam import Network, Pool, Subnet, check_overlap, choose_subnet

__all__ = ["DriverMissing", "NetworkForbidden", "check_request", "decide"]

_NAME = re.compile(r"(?=.*\S)[^/\x00-\x1f\x7f]{1,255}\Z")  # dockerd takes any name that is not blank
_INTERFACE = re.compile(r"[^/\s:\0]{1,15}\Z")
_SWITCHES = frozenset({"true", "false", "t", "f", "1", "0"})
_PREFIX = "com.docker.network."
_BRIDGE_NAME = f"{_PREFIX}bridge.name"
_RESERVED = frozenset({BRIDGE, "default", "host", "none"})


class NetworkForbidden(OrlopError):
    """Not with this network."""

    kind = Kind.FORBIDDEN
    code = "network-forbidden"


class DriverMissing(OrlopError):
    """A driver of Docker's that this engine does not have."""

    kind = Kind.UNSUPPORTED
    code = "network-driver-missing"


def check_request(request: NetworkCreateRequest) -> None:
    """Refuse what can never be made.

    Raises:
        InvalidInput, NetworkForbidden, NotFound, DriverMissing: as named.
    """
    name = request.name
    if name in _RESERVED:
        raise NetworkForbidden(f"operation is not permitted on predefined {name} network")
    if not _NAME.match(name):
        raise InvalidInput(
            f"invalid network name {name[:100]!r}: it is blank, too long, or has a slash in it"
        )
    _check_driver(request.driver or BRIDGE)
    if request.config_only or (request.config_from and request.config_from.network) or request.ingress:
        raise DriverMissing("configuration and ingress networks belong to Swarm, which is not part of Orlop")
    if request.scope not in ("", "local"):
        raise InvalidInput(f"invalid network scope {request.scope[:60]!r}")
    if request.ipam is not None and request.ipam.driver not in ("", "default"):
        raise NotFound(f'could not find ipam driver "{request.ipam.driver[:100]}"')
    if request.enable_ipv4 is False and not request.enable_ipv6:
        raise InvalidInput("IPv4 or IPv6 must be enabled")
    _check_options(request.options or {})


def _check_driver(driver: str) -> None:
    if driver in ("host", "null"):
        raise NetworkForbidden(f'only one instance of "{driver}" network is allowed')
    if driver in ("macvlan", "ipvlan", "overlay"):
        raise DriverMissing(
            f"the network driver {driver} is not available", hint="bridge networks are: leave --driver out"
        )
    if driver != BRIDGE:
        shown = driver[:100]
        raise NotFound(f'could not find plugin {shown} in v1 plugin registry: plugin "{shown}" not found')


def _check_options(options: Mapping[str, str]) -> None:
    mtu = options.get(f"{_PREFIX}driver.mtu", "")
    if mtu and not (mtu.isascii() and mtu.isdecimal() and 68 <= int(mtu[:6]) <= 65535):
        raise InvalidInput(f"invalid value {mtu[:60]!r} for option {_PREFIX}driver.mtu")
    for word in ("enable_icc", "enable_ip_masquerade"):
        value = options.get(f"{_PREFIX}bridge.{word}", "true")
        if value.lower() not in _SWITCHES:
            raise InvalidInput(f"invalid value {value[:60]!r} for option {_PREFIX}bridge.{word}")
    name = options.get(_BRIDGE_NAME)
    if name is not None and (not _INTERFACE.match(name) or name in (".", "..", "lo")):
        raise InvalidInput(f"invalid value {name[:60]!r} for option {_BRIDGE_NAME}")


def decide(
    request: NetworkCreateRequest,
    network_id: str,
    created_ns: int,
    *,
    pools: Sequence[Pool],
    own: Collection[Network],
    foreign: Collection[Network],
) -> NetworkRecord:
    """The record of a new network.

    Args:
        request: checked by `check_request`.
        network_id: its id.
        created_ns: now.
        pools: where subnets come from that are not asked for.
        own: subnets of the other networks.
        foreign: what the host reaches otherwise; a subnet that is chosen touches none of it, one
            that is asked for must not hide a whole one.

    Raises:
        InvalidInput, SubnetOverlap, NoPoolLeft: no subnet.
    """
    versions = [4] if request.enable_ipv4 is not False else []
    versions += [6] if request.enable_ipv6 else []
    ipam = request.ipam or IpamDocument()
    given: list[tuple[IpamPool, Subnet]] = []
    for pool in ipam.config or ():
        if not pool.subnet:
            if pool.gateway or pool.ip_range or pool.auxiliary_addresses:
                raise InvalidInput("invalid IPAM config: a gateway, ip-range or aux-address needs a subnet")
            continue
        subnet = pool.parsed()
        if subnet.network.version in versions:
            _check_room(subnet.network, [one.network for _, one in given], own, foreign)
            given.append((pool, subnet))
    decided = [
        replace(pool, subnet=str(subnet.network), gateway=str(subnet.gateway or "")) for pool, subnet in given
    ]
    taken = [*own, *foreign, *(one.network for _, one in given)]
    missing = set(versions) - {subnet.network.version for _, subnet in given}
    decided += [_chosen(pools, version, taken) for version in sorted(missing)]
    options = dict(request.options or {})
    return NetworkRecord(
        id=network_id,
        name=request.name,
        created_ns=created_ns,
        enable_ipv4=4 in versions,
        enable_ipv6=6 in versions,
        internal=request.internal,
        attachable=request.attachable,
        bridge=options.get(_BRIDGE_NAME) or f"br-{network_id[:12]}",
        ipam=IpamDocument("default", dict(ipam.options or {}), tuple(decided)),
        options=options,
        labels=dict(request.labels or {}),
    )


def _check_room(
    wanted: Network, siblings: Collection[Network], own: Collection[Network], foreign: Collection[Network]
) -> None:
    check_overlap(wanted, [*siblings, *own])
    hidden = [one for one in foreign if one.version == wanted.version and one.prefixlen >= wanted.prefixlen]
    check_overlap(wanted, hidden)


def _chosen(pools: Sequence[Pool], version: int, taken: Collection[Network]) -> IpamPool:
    subnet = choose_subnet(pools, version, taken)
    return IpamPool(str(subnet.network), gateway=str(subnet.gateway))
