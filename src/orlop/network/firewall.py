"""The rules of one engine, as one nftables table of its own; other tables are never touched.

Pure: functions return the changes of a transaction. The rules stand once; what comes and goes are
elements of sets and maps, so that a change costs the same whether there are two networks or two
hundred. An `accept` here ends only our own chain: what the host's firewall drops stays dropped.

    sets  bridges   interfaces of our networks      internal  those without a way out
          within    (bridge, bridge)                sources4/6  address ranges that are masqueraded
    maps  ports4/6  protocol . port                 -> address . port    on every address of the host
          bound4/6  address . protocol . port       -> address . port    on one
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Sequence

from orlop.kernel.netlink import Message
from orlop.kernel.nftables import (
    BaseChain,
    SetSpec,
    add_elements,
    add_networks,
    delete_elements,
    delete_networks,
    delete_table,
    new_chain,
    new_rule,
    new_set,
    new_table,
    pack,
)
from orlop.kernel.nftrules import (
    ACCEPT,
    DROP,
    ESTABLISHED,
    FROM_DNAT,
    MASQUERADE,
    RETURN,
    TO_LOCAL,
    Expression,
    comes_from,
    dnat_by_map,
    goes_between,
    in_set,
    is_from,
    is_to,
    jump,
)
from orlop.network.contract import PROTOCOLS, BridgeSpec, PortRule

__all__ = ["add_bridge", "add_ports", "install", "remove_bridge", "remove_ports", "uninstall"]

_IFNAMSIZ = 16
_IFNAME, _PROTOCOL, _SERVICE, _IPV4, _IPV6 = 41, 12, 13, 7, 8  # nft's numbers of types
_LOOPBACK4 = ipaddress.ip_network("127.0.0.0/8")
_LOOPBACK6 = ipaddress.ip_network("::1/128")
_RAW, _DNAT, _FILTER, _SNAT = -300, -100, 0, 100


def _sets() -> list[SetSpec]:
    return [
        SetSpec("bridges", (_IFNAMSIZ,), key_types=(_IFNAME,)),
        SetSpec("internal", (_IFNAMSIZ,), key_types=(_IFNAME,)),
        SetSpec("within", (_IFNAMSIZ, _IFNAMSIZ), key_types=(_IFNAME, _IFNAME)),
        SetSpec("sources4", (4,), key_types=(_IPV4,), is_interval=True),
        SetSpec("sources6", (16,), key_types=(_IPV6,), is_interval=True),
        SetSpec("ports4", (1, 2), (4, 2), (_PROTOCOL, _SERVICE), (_IPV4, _SERVICE)),
        SetSpec("ports6", (1, 2), (16, 2), (_PROTOCOL, _SERVICE), (_IPV6, _SERVICE)),
        SetSpec("bound4", (4, 1, 2), (4, 2), (_IPV4, _PROTOCOL, _SERVICE), (_IPV4, _SERVICE)),
        SetSpec("bound6", (16, 1, 2), (16, 2), (_IPV6, _PROTOCOL, _SERVICE), (_IPV6, _SERVICE)),
    ]


_CHAINS: tuple[tuple[str, BaseChain | None, tuple[tuple[Expression, ...], ...]], ...] = (
    (
        "publish",
        None,
        (
            (is_to(_LOOPBACK6), RETURN),  # cannot leave the loopback interface
            (dnat_by_map(4, "bound4", with_address=True),),
            (dnat_by_map(6, "bound6", with_address=True),),
            (dnat_by_map(4, "ports4", with_address=False),),
            (dnat_by_map(6, "ports6", with_address=False),),
        ),
    ),
    (
        # Packets to 127.0.0.1 may leave through our bridges (route_localnet), but none may come in.
        "loopback",
        BaseChain("filter", "prerouting", _RAW),
        ((in_set("in", "bridges"), is_to(_LOOPBACK4), DROP),),
    ),
    ("prerouting", BaseChain("nat", "prerouting", _DNAT), ((TO_LOCAL, jump("publish")),)),
    ("output", BaseChain("nat", "output", _DNAT), ((TO_LOCAL, jump("publish")),)),
    (
        "forward",
        BaseChain("filter", "forward", _FILTER),
        (
            (ESTABLISHED, ACCEPT),
            (goes_between("within"), ACCEPT),  # bridged frames come by where br_netfilter is loaded
            (in_set("in", "internal"), DROP),
            (in_set("out", "internal"), DROP),
            (in_set("out", "bridges"), FROM_DNAT, ACCEPT),
            (in_set("out", "bridges"), DROP),  # neither from another network nor by a route from outside
        ),
    ),
    (
        "postrouting",
        BaseChain("nat", "postrouting", _SNAT),
        (
            (in_set("out", "bridges"), is_from(_LOOPBACK4), MASQUERADE),
            (in_set("out", "bridges"), FROM_DNAT, comes_from(4, "sources4"), MASQUERADE),
            (in_set("out", "bridges"), FROM_DNAT, comes_from(6, "sources6"), MASQUERADE),
            (in_set("out", "bridges", is_not=True), comes_from(4, "sources4"), MASQUERADE),
            (in_set("out", "bridges", is_not=True), comes_from(6, "sources6"), MASQUERADE),
        ),
    ),
)


def install(table: str, bridges: Sequence[BridgeSpec], ports: Iterable[PortRule]) -> list[Message]:
    """The whole table, whatever was there of it: one transaction, without a moment in between."""
    changes = [new_table(table), delete_table(table), new_table(table)]
    changes += [new_set(table, spec, number) for number, spec in enumerate(_sets(), 1)]
    changes += [new_chain(table, name, base) for name, base, _ in _CHAINS]
    changes += [new_rule(table, name, rule) for name, _, rules in _CHAINS for rule in rules]
    for bridge in bridges:
        changes += add_bridge(table, bridge)
    return changes + add_ports(table, ports)


def uninstall(table: str) -> list[Message]:
    """Take the table away; fine when it is not there."""
    return [new_table(table), delete_table(table)]


def add_bridge(table: str, bridge: BridgeSpec) -> list[Message]:
    """Rules of a network, before its first endpoint is there."""
    return [add_elements(table, name, [(key, b"")]) for name, key in _interface_keys(bridge)] + [
        add_networks(table, f"sources{network.version}", [network]) for network in _sources(bridge)
    ]


def remove_bridge(table: str, bridge: BridgeSpec) -> list[Message]:
    """Rules of a network, after its last endpoint."""
    return [delete_elements(table, name, [key]) for name, key in _interface_keys(bridge)] + [
        delete_networks(table, f"sources{network.version}", [network]) for network in _sources(bridge)
    ]


def _interface_keys(bridge: BridgeSpec) -> list[tuple[str, bytes]]:
    name = bridge.bridge.encode().ljust(_IFNAMSIZ, b"\0")
    found = [("bridges", name), ("within", name + name)]
    return [*found, ("internal", name)] if bridge.is_internal else found


def _sources(bridge: BridgeSpec) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    return bridge.networks if bridge.masquerades and not bridge.is_internal else ()


def add_ports(table: str, ports: Iterable[PortRule]) -> list[Message]:
    """Publish ports. The kernel refuses one that leads elsewhere already (EEXIST): then none is."""
    return [add_elements(table, _map_of(port), [(_key(port), _target(port))]) for port in ports]


def remove_ports(table: str, ports: Iterable[PortRule]) -> list[Message]:
    """Take ports back."""
    return [delete_elements(table, _map_of(port), [_key(port)]) for port in ports]


def _map_of(port: PortRule) -> str:
    return f"{'ports' if port.host_address is None else 'bound'}{port.address.version}"


def _key(port: PortRule) -> bytes:
    fields = [bytes([PROTOCOLS[port.protocol]]), struct.pack("!H", port.host_port)]
    return pack(*fields) if port.host_address is None else pack(port.host_address.packed, *fields)


def _target(port: PortRule) -> bytes:
    return pack(port.address.packed, struct.pack("!H", port.port))
