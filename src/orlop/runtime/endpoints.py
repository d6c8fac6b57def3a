"""A container's interfaces: made by its supervisor, on both ends, before the program begins and later on.

A netlink socket stays in the namespace where it was made, so the supervisor steps into the
container's for an instant, makes one, and does the rest from where it is. The pair of interfaces
lives as long as the namespace: a container that ends takes its endpoints with it.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
from collections.abc import Iterator
from typing import Any

from orlop.kernel.namespaces import CLONE_NEWNET, setns
from orlop.kernel.netlink import Message
from orlop.kernel.rtnetlink import (
    Route,
    RouteSocket,
    change_link,
    delete_link,
    new_address,
    new_route,
    new_veth,
    port_settings,
)
from orlop.runtime.spec import EndpointSpec, to_json

__all__ = ["EndpointFailed", "Endpoints", "inside_network"]


class EndpointFailed(OSError):
    """An interface could not be made; nothing of it is left."""


class Endpoints:
    """The endpoints of one container; `wanted` are made by `attach_wanted`."""

    def __init__(self, wanted: tuple[EndpointSpec, ...]) -> None:
        self._wanted = wanted
        self._netns_fd = -1
        self._present: dict[str, EndpointSpec] = {}

    @property
    def namespace(self) -> int:
        """An fd of the container's network namespace once an endpoint is there, else -1; borrowed."""
        return self._netns_fd

    def keep_namespace(self, fd: int) -> None:
        """The namespace that init is going to join, if it is there before init is; copied."""
        if self._wanted and fd >= 0:
            self._netns_fd = os.dup(fd)

    def attach_wanted(self, pid: int) -> None:
        """Make what the spec asks for; `pid` was born in its namespace, unless that was made before.

        Raises:
            EndpointFailed: the start must fail; what was made goes with the namespace.
        """
        if not self._wanted:
            return
        if self._netns_fd < 0:
            self._netns_fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        for spec in self._wanted:
            self._attach(spec)

    def attach(self, spec: EndpointSpec, pid: int) -> None:
        """Give a running container one more. Raises EndpointFailed."""
        if self._netns_fd < 0:
            self._netns_fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._attach(spec)

    def detach(self, endpoint_id: str) -> None:
        """Take one away; fine when it is gone."""
        spec = self._present.pop(endpoint_id, None)
        if spec is not None:
            with RouteSocket() as host:
                _delete(host, spec.host_name)

    def state(self) -> list[dict[str, Any]]:
        """Those that are there, for an engine that has just come."""
        return [to_json(spec) for spec in self._present.values()]

    def close(self) -> None:
        """Let go of the namespace."""
        if self._netns_fd >= 0:
            os.close(self._netns_fd)
            self._netns_fd = -1

    def _attach(self, spec: EndpointSpec) -> None:
        with RouteSocket() as host:
            try:
                _wire(host, spec, self._netns_fd)
                _switch_ipv6(spec, self._netns_fd)
                with _socket_in(self._netns_fd) as container:
                    _configure(container, spec)
            except OSError as error:
                with contextlib.suppress(OSError):
                    _delete(host, spec.host_name)
                raise EndpointFailed(
                    error.errno, f"{spec.name} on {spec.bridge}: {error.strerror}"
                ) from error
        self._present[spec.id] = spec


def _wire(host: RouteSocket, spec: EndpointSpec, netns_fd: int) -> None:
    bridge = host.link(spec.bridge)
    if bridge is None:
        raise FileNotFoundError(2, f"no interface {spec.bridge}")
    pair = new_veth(
        spec.host_name,
        spec.name,
        peer_netns=netns_fd,
        peer_mac=bytes.fromhex(spec.mac.replace(":", "")),
        mtu=spec.mtu,
        master=bridge.index,
    )
    host.send([pair])
    port = host.link(spec.host_name)
    assert port is not None
    # Hairpin: a container reaches itself under a published port of the host.
    host.send(
        [
            port_settings(port.index, hairpin=True, isolated=spec.is_isolated),
            change_link(port.index, has_ipv6_address=False),
        ]
    )


def _configure(container: RouteSocket, spec: EndpointSpec) -> None:
    link = container.link(spec.name)
    assert link is not None
    gateways = [ipaddress.ip_address(text) for text in spec.gateways]
    changes: list[Message] = [
        *(new_address(link.index, ipaddress.ip_interface(text)) for text in spec.addresses),
        change_link(link.index, is_up=True),
        *(new_route(Route(None, gateway, link.index), gateway.version) for gateway in gateways),
    ]
    container.send(changes)


def _delete(host: RouteSocket, name: str) -> None:
    link = host.link(name)
    if link is not None and link.kind == "veth":
        host.send([delete_link(link.index)])


@contextlib.contextmanager
def inside_network(netns_fd: int) -> Iterator[None]:
    """This process, which has one thread, is in another network namespace for the time being."""
    own = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(netns_fd, CLONE_NEWNET)
        try:
            yield
        finally:
            setns(own, CLONE_NEWNET)
    finally:
        os.close(own)


def _socket_in(netns_fd: int) -> RouteSocket:
    with inside_network(netns_fd):
        return RouteSocket()


def _switch_ipv6(spec: EndpointSpec, netns_fd: int) -> None:
    """An interface without an IPv6 address of ours has none at all."""
    if any(ipaddress.ip_interface(address).version == 6 for address in spec.addresses):
        return
    with inside_network(netns_fd), contextlib.suppress(FileNotFoundError):
        fd = os.open(f"/proc/sys/net/ipv6/conf/{spec.name}/disable_ipv6", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, b"1")
        finally:
            os.close(fd)
