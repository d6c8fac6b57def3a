"""Links, addresses and routes of a network namespace.

Changes are values (`Message`), so that several go to the kernel in one call:

    with RouteSocket() as routes:
        routes.send([new_bridge("br0"), ...])

Source: linux/rtnetlink.h, linux/if_link.h; rtnetlink(7).
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
import sys
from dataclasses import dataclass, field

from orlop.kernel.netlink import (
    ACK,
    CREATE,
    DUMP,
    EXCL,
    REPLACE,
    Message,
    NetlinkSocket,
    attribute,
    nested,
    parse_attributes,
    text,
    u8,
    u32,
)

__all__ = [
    "Address",
    "Interface",
    "Link",
    "Network",
    "Route",
    "RouteSocket",
    "change_link",
    "delete_link",
    "new_address",
    "new_bridge",
    "new_macvlan",
    "new_route",
    "new_veth",
    "permanent_neighbour",
    "port_settings",
]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NEWLINK, _DELLINK, _GETLINK, _SETLINK = 16, 17, 18, 19
_NEWADDR, _GETADDR = 20, 22
_NEWROUTE, _GETROUTE = 24, 26
_NEWNEIGH = 28
_IFF_UP = 0x1

_LINK = struct.Struct("=BxHiII")  # family, type, index, flags, change
_ADDRESS = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_ROUTE = struct.Struct("=BBBBBBBBI")  # family, dst len, src len, tos, table, protocol, scope, type, flags
_NEIGHBOUR = struct.Struct("=BxxxiHBB")  # family, index, state, flags, type

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU = 1, 3, 4
_IFLA_LINK, _IFLA_MASTER, _IFLA_PROTINFO, _IFLA_LINKINFO = 5, 10, 12, 18
_IFLA_NET_NS_FD, _IFLA_AF_SPEC = 28, 26
_INFO_KIND, _INFO_DATA = 1, 2
_VETH_PEER = 1
_MACVLAN_MODE = 1
_MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
_BR_FORWARD_DELAY = 1
_BRPORT_MODE, _BRPORT_ISOLATED = 4, 33
_IFLA_INET6_ADDR_GEN_MODE = 8
_ADDR_GEN_NONE = 1

_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST, _IFA_FLAGS = 1, 2, 4, 8
_IFA_F_NODAD = 0x02
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_PREFSRC, _RTA_TABLE = 1, 4, 5, 6, 7, 15
_RT_MAIN, _RTPROT_STATIC, _RTN_UNICAST = 254, 4, 1
_SCOPE_UNIVERSE, _SCOPE_LINK = 0, 253
_NDA_DST, _NDA_LLADDR = 1, 2
_NUD_PERMANENT = 0x80


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface. `kind` is "" for a physical one; `mac` is bytes; `master` an index or 0."""

    index: int
    name: str
    kind: str = ""
    mac: bytes = b""
    mtu: int = 0
    master: int = 0
    is_up: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """A route of the main table. `destination` None is the default route."""

    destination: Network | None
    gateway: Address | None = None
    link: int = 0
    metric: int = 0


@dataclass(frozen=True, slots=True)
class _Peer:
    name: str
    mac: bytes = b""
    mtu: int = 0
    netns_fd: int = -1
    extra: bytes = field(default=b"")


# --- changes ----------------------------------------------------------------------------------


def new_bridge(name: str, *, mac: bytes = b"", mtu: int = 0) -> Message:
    """Make a bridge, down, without spanning tree; EEXIST when the name is taken."""
    data = nested(_INFO_DATA, u32(_BR_FORWARD_DELAY, 0))
    return _new_link(name, "bridge", data, _describe(mac, mtu))


def new_veth(
    name: str,
    peer: str,
    *,
    peer_netns: int,
    mtu: int = 0,
    peer_mac: bytes = b"",
    master: int = 0,
) -> Message:
    """Make a pair of interfaces, one here and up, its peer, down, in another namespace (an fd)."""
    other = _LINK.pack(0, 0, 0, 0, 0) + text(_IFLA_IFNAME, peer) + _describe(peer_mac, mtu)
    other += u32(_IFLA_NET_NS_FD, peer_netns)
    mine = _describe(b"", mtu) + (u32(_IFLA_MASTER, master) if master else b"")
    data = nested(_INFO_DATA, attribute(_VETH_PEER, other))
    return _new_link(name, "veth", data, mine, is_up=True)


def new_macvlan(
    name: str, parent: int, *, netns: int, mode: str = "bridge", mac: bytes = b"", mtu: int = 0
) -> Message:
    """Make a macvlan interface of a parent link's in another namespace (an fd)."""
    mine = u32(_IFLA_LINK, parent) + u32(_IFLA_NET_NS_FD, netns) + _describe(mac, mtu)
    return _new_link(name, "macvlan", nested(_INFO_DATA, u32(_MACVLAN_MODE, _MACVLAN_MODES[mode])), mine)


def change_link(
    index: int,
    *,
    is_up: bool | None = None,
    name: str = "",
    mac: bytes = b"",
    mtu: int = 0,
    master: int | None = None,
    has_ipv6_address: bool = True,
) -> Message:
    """Change what is given of a link; without `has_ipv6_address` the kernel makes none by itself."""
    change = _IFF_UP if is_up is not None else 0
    payload = _LINK.pack(0, 0, index, _IFF_UP if is_up else 0, change)
    payload += _describe(mac, mtu) + (text(_IFLA_IFNAME, name) if name else b"")
    if master is not None:
        payload += u32(_IFLA_MASTER, master)
    if not has_ipv6_address:
        mode = nested(socket.AF_INET6, u8(_IFLA_INET6_ADDR_GEN_MODE, _ADDR_GEN_NONE))
        payload += nested(_IFLA_AF_SPEC, mode)
    return Message(_NEWLINK, ACK, payload)


def port_settings(index: int, *, hairpin: bool = False, isolated: bool = False) -> Message:
    """How a bridge treats one of its ports."""
    values = u8(_BRPORT_MODE, int(hairpin)) + u8(_BRPORT_ISOLATED, int(isolated))
    payload = _LINK.pack(socket.AF_BRIDGE, 0, index, 0, 0) + nested(_IFLA_PROTINFO, values)
    return Message(_SETLINK, ACK, payload)


def delete_link(index: int) -> Message:
    """Remove an interface; the peer of a veth goes with it."""
    return Message(_DELLINK, ACK, _LINK.pack(0, 0, index, 0, 0))


def new_address(index: int, address: Interface) -> Message:
    """Give a link an address; EEXIST when it has it. IPv6 is used at once, without asking around for it."""
    packed = address.ip.packed
    flags = _IFA_F_NODAD if address.version == 6 else 0
    payload = _ADDRESS.pack(_family(address.version), address.network.prefixlen, 0, 0, index)
    payload += attribute(_IFA_LOCAL, packed) + attribute(_IFA_ADDRESS, packed) + u32(_IFA_FLAGS, flags)
    if isinstance(address, ipaddress.IPv4Interface) and address.network.prefixlen < 31:
        payload += attribute(_IFA_BROADCAST, address.network.broadcast_address.packed)
    return Message(_NEWADDR, ACK | CREATE | EXCL, payload)


def new_route(route: Route, version: int) -> Message:
    """Add a route of IP version 4 or 6; one with the same destination and metric is replaced."""
    length = route.destination.prefixlen if route.destination is not None else 0
    scope = _SCOPE_UNIVERSE if route.gateway is not None or version == 6 else _SCOPE_LINK
    payload = _ROUTE.pack(_family(version), length, 0, 0, _RT_MAIN, _RTPROT_STATIC, scope, _RTN_UNICAST, 0)
    if route.destination is not None:
        payload += attribute(_RTA_DST, route.destination.network_address.packed)
    if route.gateway is not None:
        payload += attribute(_RTA_GATEWAY, route.gateway.packed)
    if route.link:
        payload += u32(_RTA_OIF, route.link)
    if route.metric:
        payload += u32(_RTA_PRIORITY, route.metric)
    return Message(_NEWROUTE, ACK | CREATE | REPLACE, payload)


def permanent_neighbour(index: int, address: Address, mac: bytes) -> Message:
    """Fix the link address behind an IP address."""
    payload = _NEIGHBOUR.pack(_family(address.version), index, _NUD_PERMANENT, 0, 0)
    payload += attribute(_NDA_DST, address.packed) + attribute(_NDA_LLADDR, mac)
    return Message(_NEWNEIGH, ACK | CREATE | REPLACE, payload)


def _new_link(name: str, kind: str, data: bytes, rest: bytes, *, is_up: bool = False) -> Message:
    flags = _IFF_UP if is_up else 0
    payload = _LINK.pack(0, 0, 0, flags, flags) + text(_IFLA_IFNAME, name) + rest
    payload += nested(_IFLA_LINKINFO, text(_INFO_KIND, kind), data)
    return Message(_NEWLINK, ACK | CREATE | EXCL, payload)


def _describe(mac: bytes, mtu: int) -> bytes:
    return (attribute(_IFLA_ADDRESS, mac) if mac else b"") + (u32(_IFLA_MTU, mtu) if mtu else b"")


def _family(version: int) -> int:
    return socket.AF_INET if version == 4 else socket.AF_INET6


# --- looking ----------------------------------------------------------------------------------


class RouteSocket(NetlinkSocket):
    """rtnetlink of the network namespace in which it is made."""

    def __init__(self) -> None:
        super().__init__(socket.NETLINK_ROUTE)

    def links(self) -> list[Link]:
        """All interfaces."""
        return [
            _link(reply.payload) for reply in self.ask(Message(_GETLINK, DUMP, _LINK.pack(0, 0, 0, 0, 0)))
        ]

    def link(self, name: str) -> Link | None:
        """The interface of that name, or None."""
        request = Message(_GETLINK, 0, _LINK.pack(0, 0, 0, 0, 0) + text(_IFLA_IFNAME, name))
        try:
            (reply,) = self.ask(request)
        except OSError as error:
            if error.errno in (errno.ENODEV, errno.EINVAL, errno.ERANGE):  # or no interface can have the name
                return None
            raise
        return _link(reply.payload)

    def addresses(self, version: int = 0) -> list[tuple[int, Interface]]:
        """(link index, address with its prefix) of all interfaces, of one IP version or both."""
        family = _family(version) if version else 0
        request = Message(_GETADDR, DUMP, _ADDRESS.pack(family, 0, 0, 0, 0))
        return [_address(reply.payload) for reply in self.ask(request)]

    def routes(self, version: int) -> list[Route]:
        """The unicast routes of the main table."""
        request = Message(_GETROUTE, DUMP, _ROUTE.pack(_family(version), 0, 0, 0, 0, 0, 0, 0, 0))
        found = (_route(reply.payload) for reply in self.ask(request))
        return [route for route in found if route is not None]


def _link(payload: memoryview) -> Link:
    _, _, index, flags, _ = _LINK.unpack_from(payload)
    values = dict(parse_attributes(payload[_LINK.size :]))
    info = dict(parse_attributes(values.get(_IFLA_LINKINFO, memoryview(b""))))
    return Link(
        index=index,
        name=_string(values.get(_IFLA_IFNAME)),
        kind=_string(info.get(_INFO_KIND)),
        mac=bytes(values.get(_IFLA_ADDRESS, b"")),
        mtu=_number(values.get(_IFLA_MTU)),
        master=_number(values.get(_IFLA_MASTER)),
        is_up=bool(flags & _IFF_UP),
    )


def _address(payload: memoryview) -> tuple[int, Interface]:
    _, prefix, _, _, index = _ADDRESS.unpack_from(payload)
    values = dict(parse_attributes(payload[_ADDRESS.size :]))
    packed = bytes(values.get(_IFA_LOCAL, values.get(_IFA_ADDRESS, b"")))
    return index, ipaddress.ip_interface((packed, prefix))


def _route(payload: memoryview) -> Route | None:
    _, length, _, _, table, _, _, kind, _ = _ROUTE.unpack_from(payload)
    values = dict(parse_attributes(payload[_ROUTE.size :]))
    if kind != _RTN_UNICAST or _number(values.get(_RTA_TABLE), table) != _RT_MAIN:
        return None
    target = values.get(_RTA_DST)
    gateway = values.get(_RTA_GATEWAY)
    return Route(
        destination=None if target is None else ipaddress.ip_network((bytes(target), length)),
        gateway=None if gateway is None else ipaddress.ip_address(bytes(gateway)),
        link=_number(values.get(_RTA_OIF)),
        metric=_number(values.get(_RTA_PRIORITY)),
    )


def _string(value: memoryview | None) -> str:
    return bytes(value).split(b"\0")[0].decode("ascii", "replace") if value is not None else ""


def _number(value: memoryview | None, default: int = 0) -> int:
    return default if value is None else int.from_bytes(value, sys.byteorder)
