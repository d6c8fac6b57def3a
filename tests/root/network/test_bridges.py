"""Bridges and rules between real namespaces: who reaches whom."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import queue
import socket
import threading

import pytest

from orlop.kernel import namespaces
from orlop.kernel.rtnetlink import (
    Route,
    RouteSocket,
    change_link,
    new_address,
    new_route,
    new_veth,
    port_settings,
)
from orlop.network.contract import BridgeSpec, PortRule
from orlop.network.host import HostNetworks, PortTaken
from orlop.network.ipam import parse_subnet

pytestmark = pytest.mark.root
TABLE = "orlop-test"
QUICK = 0.4  # seconds until nobody answers
ip = ipaddress.ip_address


class Space:
    """A network namespace with a thread that lives in it."""

    def __init__(self):
        self._jobs = queue.Queue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self.fd = self(lambda: os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))

    def _run(self):
        namespaces.unshare(namespaces.CLONE_NEWNET | namespaces.CLONE_NEWNS)
        with RouteSocket() as routes:
            routes.send([change_link(1, is_up=True)])
        while (job := self._jobs.get()) is not None:
            work, answer = job
            try:
                answer.put((work(), None))
            except BaseException as error:
                answer.put((None, error))

    def __call__(self, work):
        answer = queue.Queue()
        self._jobs.put((work, answer))
        value, error = answer.get(timeout=20)
        if error is not None:
            raise error
        return value

    def close(self):
        self._jobs.put(None)
        self._thread.join()
        os.close(self.fd)

    def join(self, host, bridge, address, gateway, name="eth0"):
        """An endpoint on a bridge of the host's namespace."""

        def port():
            with RouteSocket() as routes:
                master = routes.link(bridge).index
                count = len(routes.links())
                routes.send([new_veth(f"port{count}", name, peer_netns=self.fd, master=master)])
                routes.send([port_settings(routes.link(f"port{count}").index, hairpin=True)])

        def end():
            with RouteSocket() as routes:
                index = routes.link(name).index
                routes.send(
                    [change_link(index, is_up=True), new_address(index, ipaddress.ip_interface(address))]
                )
                if gateway:
                    routes.send([new_route(Route(None, ip(gateway), index), ip(gateway).version)])

        host(port)
        self(end)

    def serve(self, address, port):
        """Answer connections with the address of whoever connects."""
        server = self(lambda: socket.create_server((address, port), family=_family(address)))

        def run():
            with contextlib.suppress(OSError):
                while True:
                    peer, source = server.accept()
                    peer.sendall(source[0].encode())
                    peer.close()

        threading.Thread(target=run, daemon=True).start()
        return server

    def reach(self, address, port, timeout=8.0):
        """Whom the server sees, or None when it cannot be reached in time."""

        def connect():
            try:
                with socket.create_connection((address, port), timeout=timeout) as sock:
                    return sock.makefile().read()
            except OSError:
                return None

        return self(connect)


def _family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def bridge(number, **settings):
    subnets = (parse_subnet(f"10.9.{number}.0/24"), parse_subnet(f"fd00:9:{number}::/64"))
    return BridgeSpec(f"{number:064x}", f"br{number}", subnets, **settings)


@pytest.fixture
def world():
    """The host's namespace with two networks and an internal one, endpoints, and a neighbour outside."""
    made = [Space() for _ in range(6)]
    host, one, two, three, inner, outside = made
    networks = HostNetworks(TABLE)
    specs = [bridge(1), bridge(2), bridge(3, is_internal=True)]
    host(lambda: networks.reconcile([], [], []))
    for spec in specs:
        host(lambda spec=spec: networks.add_bridge(spec))
    one.join(host, "br1", "10.9.1.2/24", "10.9.1.1")
    two.join(host, "br1", "10.9.1.3/24", "10.9.1.1")
    three.join(host, "br2", "10.9.2.2/24", "10.9.2.1")
    inner.join(host, "br3", "10.9.3.2/24", "10.9.3.1")
    outside_wire(host, outside)
    world = {"host": host, "one": one, "two": two, "three": three, "inner": inner, "outside": outside}
    servers = [space.serve("0.0.0.0", 80) for space in made]
    world |= {"networks": networks, "specs": specs}
    yield world
    for server in servers:
        server.close()
    for space in made:
        space.close()


def outside_wire(host, outside):
    """Another machine on the host's network: 192.0.2.2 beside the host's 192.0.2.1."""

    def wire():
        with RouteSocket() as routes:
            routes.send([new_veth("uplink", "eth0", peer_netns=outside.fd)])
            routes.send([new_address(routes.link("uplink").index, ipaddress.ip_interface("192.0.2.1/24"))])

    def end():
        with RouteSocket() as routes:
            index = routes.link("eth0").index
            routes.send([change_link(index, is_up=True)])
            routes.send([new_address(index, ipaddress.ip_interface("192.0.2.2/24"))])
            # a neighbour that tries to go round the published ports
            routes.send([new_route(Route(ipaddress.ip_network("10.9.0.0/16"), ip("192.0.2.1"), index), 4)])

    host(wire)
    outside(end)


def port(host_port, address, target, host_address=None, protocol="tcp"):
    return PortRule(protocol, host_address and ip(host_address), host_port, ip(address), target)


def test_endpoints_reach_their_own_network_and_the_world_under_the_host_s_name(world):
    assert world["one"].reach("10.9.1.3", 80) == "10.9.1.2"
    assert world["one"].reach("192.0.2.2", 80) == "192.0.2.1"
    assert world["host"].reach("10.9.1.2", 80) == "10.9.1.1"


def test_networks_do_not_reach_each_other_and_nobody_comes_in(world):
    assert world["one"].reach("10.9.2.2", 80, QUICK) is None
    assert world["three"].reach("10.9.1.2", 80, QUICK) is None
    assert world["outside"].reach("10.9.1.2", 80, QUICK) is None


def test_an_internal_network_has_no_way_out(world):
    assert world["inner"].reach("192.0.2.2", 80, QUICK) is None
    assert world["inner"].reach("10.9.1.2", 80, QUICK) is None
    assert world["one"].reach("10.9.3.2", 80, QUICK) is None


def test_published_ports_are_reached_from_everywhere(world):
    world["host"](lambda: world["networks"].publish([port(8080, "10.9.1.2", 80)]))

    assert world["outside"].reach("192.0.2.1", 8080) == "192.0.2.2"  # the client's own address
    assert world["host"].reach("127.0.0.1", 8080) == "10.9.1.1"
    assert world["host"].reach("192.0.2.1", 8080) is not None
    assert world["two"].reach("10.9.1.1", 8080) == "10.9.1.1"  # hairpin
    assert world["one"].reach("192.0.2.1", 8080) == "10.9.1.1"  # itself, through the host
    assert world["three"].reach("10.9.2.1", 8080) is not None  # through a published port, across networks

    world["host"](lambda: world["networks"].retract([port(8080, "10.9.1.2", 80)]))
    assert world["outside"].reach("192.0.2.1", 8080, QUICK) is None


def test_a_port_bound_to_loopback_is_not_for_neighbours(world):
    world["host"](lambda: world["networks"].publish([port(8081, "10.9.1.2", 80, "127.0.0.1")]))

    assert world["host"].reach("127.0.0.1", 8081) == "10.9.1.1"
    assert world["outside"].reach("192.0.2.1", 8081, QUICK) is None
    assert world["outside"].reach("127.0.0.1", 8081, QUICK) is None


def test_containers_do_not_reach_the_host_s_loopback(world):
    def send_to_loopback():
        with open("/proc/sys/net/ipv4/conf/eth0/route_localnet", "w") as file:
            file.write("1")
        with RouteSocket() as routes:
            index = routes.link("eth0").index
            routes.send([new_route(Route(ipaddress.ip_network("127.0.0.2/32"), ip("10.9.1.1"), index), 4)])

    world["one"](send_to_loopback)
    server = world["host"].serve("127.0.0.2", 4000)

    assert world["host"].reach("127.0.0.2", 4000) == "127.0.0.1"
    assert world["one"].reach("127.0.0.2", 4000, QUICK) is None
    server.close()


def test_a_port_leads_to_one_endpoint_only(world):
    networks = world["networks"]
    world["host"](lambda: networks.publish([port(8080, "10.9.1.2", 80)]))

    with pytest.raises(PortTaken):
        world["host"](lambda: networks.publish([port(8082, "10.9.1.3", 80), port(8080, "10.9.1.3", 80)]))

    assert world["outside"].reach("192.0.2.1", 8080) == "192.0.2.2"
    assert world["outside"].reach("192.0.2.1", 8082, QUICK) is None  # none of the two


def test_a_flushed_firewall_comes_back(world):
    networks, ports = world["networks"], [port(8080, "10.9.1.2", 80)]
    world["host"](networks.uninstall)
    assert world["one"].reach("10.9.2.2", 80) is not None  # nothing separates them now

    world["host"](lambda: networks.reconcile(world["specs"], ports, []))

    assert world["one"].reach("10.9.2.2", 80, QUICK) is None
    assert world["outside"].reach("192.0.2.1", 8080) == "192.0.2.2"
    assert world["one"].reach("10.9.1.3", 80) == "10.9.1.2"


def test_what_was_ours_and_is_not_known_any_more_goes(world):
    networks, specs = world["networks"], world["specs"]

    world["host"](lambda: networks.reconcile(specs[:1], [], ["br2", "br3", "br9"]))

    def names():
        with RouteSocket() as routes:
            return {link.name for link in routes.links()}

    assert "br1" in world["host"](names)
    assert not {"br2", "br3"} & world["host"](names)


def test_removing_a_network_may_be_repeated(world):
    networks, (first, *_) = world["networks"], world["specs"]
    for _ in range(2):
        world["host"](lambda: networks.remove_bridge(first))

    world["host"](lambda: networks.add_bridge(first))


def test_networks_of_the_host_are_known(world):
    networks = world["networks"]

    found = world["host"](lambda: networks.foreign_networks(["br1", "br2"]))

    assert ipaddress.ip_network("192.0.2.0/24") in found
    assert ipaddress.ip_network("10.9.3.0/24") in found
    assert ipaddress.ip_network("10.9.1.0/24") not in found


def test_ipv6_is_forwarded_and_published_too(world):
    one, three, host = world["one"], world["three"], world["host"]

    def add(address, gateway):
        def work():
            with RouteSocket() as routes:
                index = routes.link("eth0").index
                routes.send([new_address(index, ipaddress.ip_interface(address))])
                routes.send([new_route(Route(None, ip(gateway), index), 6)])

        return work

    one(add("fd00:9:1::2/64", "fd00:9:1::1"))
    three(add("fd00:9:2::2/64", "fd00:9:2::1"))
    server = one.serve("::", 81)
    host(lambda: world["networks"].publish([port(8080, "fd00:9:1::2", 81)]))

    assert host.reach("fd00:9:1::2", 81) == "fd00:9:1::1"
    assert three.reach("fd00:9:1::2", 81, QUICK) is None
    assert three.reach("fd00:9:2::1", 8080) is not None
    server.close()
