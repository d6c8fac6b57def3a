"""The host's side of bridge networks: interfaces, settings of the kernel, rules.

Everything blocks for a millisecond or so: callers run it in a thread, one at a time. Every effect is
named after its owner (the bridge after its network, the table after its engine), every call may be
repeated, and `reconcile` makes the host look as it should, whatever a crash or a stranger left.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from orlop.base import failpoints
from orlop.base.errors import Kind, OrlopError
from orlop.kernel.netlink import Message, NetlinkError
from orlop.kernel.nftables import NftSocket
from orlop.kernel.rtnetlink import RouteSocket, change_link, delete_link, new_address, new_bridge
from orlop.network import firewall
from orlop.network.contract import BridgeSpec, PortRule
from orlop.network.ipam import Network

__all__ = ["BridgeFailed", "HostNetworks", "PortTaken"]


_LINK_LOCAL = ipaddress.ip_interface("fe80::1/64")


class BridgeFailed(OrlopError):
    """The kernel refused an interface, an address or a rule; the message says which and why."""

    kind = Kind.UNSUPPORTED
    code = "bridge-failed"


class PortTaken(OrlopError):
    """Another endpoint has the port of the host."""

    kind = Kind.CONFLICT
    code = "port-taken"


@dataclass(slots=True)
class HostNetworks:
    """What one engine has on its host, in the network namespace where it is used.

    Args:
        table: name of the engine's nftables table.
        has_firewall: False: the rules are somebody else's business (`--iptables=false`).
    """

    table: str
    has_firewall: bool = True

    def reconcile(
        self, bridges: Sequence[BridgeSpec], ports: Sequence[PortRule], known: Collection[str]
    ) -> None:
        """Make bridges and rules what they should be.

        Args:
            bridges: all networks.
            ports: of all running endpoints.
            known: bridges that were ours and whose networks are gone: they are removed.
        """
        with RouteSocket() as routes:
            for bridge in bridges:
                _ensure_bridge(routes, bridge)
            for name in set(known) - {bridge.bridge for bridge in bridges}:
                _remove_link(routes, name)
        self._commit(firewall.install(self.table, bridges, ports))

    def add_bridge(self, bridge: BridgeSpec) -> None:
        """Make a network's interface and rules.

        Raises:
            BridgeFailed: nothing is left behind.
        """
        with RouteSocket() as routes:
            known = {link.name for link in routes.links()}
            try:
                _ensure_bridge(routes, bridge)
                failpoints.hit("network.bridge.made")
                self._commit(firewall.add_bridge(self.table, bridge))
            except OSError as error:
                if bridge.is_ours and bridge.bridge not in known:
                    with contextlib.suppress(OSError):
                        _remove_link(routes, bridge.bridge)
                raise BridgeFailed(f"bridge {bridge.bridge}: {error.strerror}") from error

    def remove_bridge(self, bridge: BridgeSpec) -> None:
        """Take a network's interface and rules away; fine when they are gone."""
        if bridge.is_ours:
            with RouteSocket() as routes:
                _remove_link(routes, bridge.bridge)
        failpoints.hit("network.bridge.removed")
        with _fine(errno.ENOENT):
            self._commit(firewall.remove_bridge(self.table, bridge))

    def publish(self, ports: Sequence[PortRule]) -> None:
        """Let ports of the host lead to an endpoint; all or none.

        Raises:
            PortTaken: one of them leads elsewhere.
        """
        try:
            self._commit(firewall.add_ports(self.table, ports))
        except NetlinkError as error:
            if error.errno != errno.EEXIST:
                raise
            raise PortTaken("port is already allocated") from error

    def retract(self, ports: Sequence[PortRule]) -> None:
        """Take ports back; fine when they are gone."""
        for port in ports:
            with _fine(errno.ENOENT):
                self._commit(firewall.remove_ports(self.table, [port]))

    def is_installed(self) -> bool:
        """Whether the rules are there: somebody may have flushed them."""
        if not self.has_firewall:
            return True
        with NftSocket() as nft:
            return self.table in nft.tables()

    def has_interface(self, name: str) -> bool:
        """Whether the host has one of this name."""
        with RouteSocket() as routes:
            return routes.link(name) is not None

    def addresses(self, bridge: str) -> list[ipaddress.IPv4Interface | ipaddress.IPv6Interface]:
        """Of an interface that somebody else made.

        Raises:
            BridgeFailed: there is no such bridge.
        """
        with RouteSocket() as routes:
            link = routes.link(bridge)
            if link is None or link.kind != "bridge":
                raise BridgeFailed(f"bridge {bridge}: there is no bridge of this name")
            return [address for index, address in routes.addresses() if index == link.index]

    def uninstall(self) -> None:
        """Take the rules away."""
        self._commit(firewall.uninstall(self.table))

    def foreign_networks(self, own: Collection[str]) -> list[Network]:
        """What the host reaches already, but for our own bridges: a new subnet must not hide any of it."""
        with RouteSocket() as routes:
            names = {link.index: link.name for link in routes.links()}
            found: set[Network] = set()
            for version in (4, 6):
                for route in routes.routes(version):
                    if route.destination is not None and names.get(route.link) not in own:
                        found.add(route.destination)
            for index, address in routes.addresses():
                if names.get(index) not in own:
                    found.add(address.network)
        return sorted((one for one in found if not one.is_link_local), key=str)

    def _commit(self, changes: Sequence[Message]) -> None:
        if self.has_firewall and changes:
            with NftSocket() as nft:
                nft.commit(changes)


@contextlib.contextmanager
def _fine(number: int) -> Iterator[None]:
    """One refusal that does not matter."""
    try:
        yield
    except NetlinkError as error:
        if error.errno != number:
            raise


def _ensure_bridge(routes: RouteSocket, spec: BridgeSpec) -> None:
    """The interface with its gateway addresses, up; an existing one is completed."""
    link = routes.link(spec.bridge)
    if not spec.is_ours:
        if link is None or link.kind != "bridge":
            raise OSError(errno.ENODEV, "there is no bridge of this name")
        _open_up(routes, link.index, spec)
        return
    if link is None:
        routes.send([new_bridge(spec.bridge, mac=_bridge_mac(spec.id), mtu=spec.mtu)])
        link = routes.link(spec.bridge)
        assert link is not None
    elif link.kind != "bridge":
        raise OSError(errno.EEXIST, f"interface {spec.bridge} exists and is no bridge")
    _set(f"ipv6/conf/{spec.bridge}/accept_ra", "0")  # a container cannot give the host routes
    has_ipv6 = any(subnet.network.version == 6 for subnet in spec.subnets)
    _set(f"ipv6/conf/{spec.bridge}/disable_ipv6", "0" if has_ipv6 else "1")
    present = {address for index, address in routes.addresses() if index == link.index}
    for subnet in spec.subnets:
        if subnet.gateway is None:
            continue
        address = ipaddress.ip_interface(f"{subnet.gateway}/{subnet.network.prefixlen}")
        if address not in present:
            routes.send([new_address(link.index, address)])
    if has_ipv6 and _LINK_LOCAL not in present:  # one that is usable at once, where the kernel's own waits
        routes.send([change_link(link.index, has_ipv6_address=False), new_address(link.index, _LINK_LOCAL)])
    _open_up(routes, link.index, spec)


def _open_up(routes: RouteSocket, index: int, spec: BridgeSpec) -> None:
    routes.send([change_link(index, is_up=True)])
    # 127.0.0.1:port of the host leads to containers; what comes in with such addresses is dropped
    _set(f"ipv4/conf/{spec.bridge}/route_localnet", "1")
    if not spec.is_internal:
        _set("ipv4/ip_forward", "1")
        if any(subnet.network.version == 6 for subnet in spec.subnets):
            _set("ipv6/conf/all/forwarding", "1")


def _remove_link(routes: RouteSocket, name: str) -> None:
    link = routes.link(name)
    if link is not None and link.kind == "bridge":
        routes.send([delete_link(link.index)])


def _bridge_mac(network_id: str) -> bytes:
    """Fixed, so that it does not follow that of the lowest port."""
    return b"\x02\x42" + bytes.fromhex(network_id[:8])


def _set(name: str, value: str) -> None:
    """A setting below /proc/sys/net; one that is so already is left alone (it may be read-only)."""
    path = os.path.join("/proc/sys/net", name)
    try:
        with open(path) as file:
            if file.read().strip() == value:
                return
        with open(path, "w") as file:
            file.write(value)
    except FileNotFoundError:  # no IPv6 here
        return
