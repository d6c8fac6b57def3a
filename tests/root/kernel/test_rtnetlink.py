"""Links, addresses and routes, in namespaces made for the test."""

from __future__ import annotations

import errno
import ipaddress
import os
import threading

import pytest

from orlop.kernel import namespaces
from orlop.kernel.netlink import NetlinkError
from orlop.kernel.rtnetlink import (
    Route,
    RouteSocket,
    change_link,
    delete_link,
    new_address,
    new_bridge,
    new_macvlan,
    new_route,
    new_veth,
    permanent_neighbour,
    port_settings,
)

pytestmark = pytest.mark.root


@pytest.fixture
def spaces():
    """Two network namespaces: (fd, socket of rtnetlink in it) twice."""
    made = []

    def make():  # a thread of its own: the test goes on in the namespace where it was
        for _ in range(2):
            namespaces.unshare(namespaces.CLONE_NEWNET)
            made.append((os.open("/proc/thread-self/ns/net", os.O_RDONLY), RouteSocket()))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    yield made
    for fd, routes in made:
        routes.close()
        os.close(fd)


def test_a_bridge_with_a_port_whose_peer_is_elsewhere(spaces):
    (_, here), (there_fd, there) = spaces
    here.send([new_bridge("br0", mac=b"\x02\x42\x00\x00\x00\x01", mtu=1400)])
    bridge = here.link("br0")
    peer_mac = b"\x02\x42\x0a\x00\x00\x02"
    here.send(
        [
            change_link(bridge.index, is_up=True, has_ipv6_address=False),
            new_veth("port0", "eth0", peer_netns=there_fd, peer_mac=peer_mac, mtu=1400, master=bridge.index),
        ]
    )

    port, eth = here.link("port0"), there.link("eth0")
    here.send([port_settings(port.index, hairpin=True, isolated=True)])
    assert (bridge.kind, bridge.mac, bridge.mtu) == ("bridge", b"\x02\x42\x00\x00\x00\x01", 1400)
    assert (port.kind, port.master, port.is_up) == ("veth", bridge.index, True)
    assert (eth.mac, eth.mtu, eth.is_up) == (peer_mac, 1400, False)
    assert {link.name for link in here.links()} >= {"lo", "br0", "port0"}


def test_addresses_and_routes_of_both_versions(spaces):
    (_, here), (there_fd, there) = spaces
    here.send([new_veth("a", "b", peer_netns=there_fd)])
    index = there.link("b").index
    four, six = ipaddress.ip_interface("10.9.0.2/24"), ipaddress.ip_interface("fd00:9::2/64")
    there.send(
        [change_link(index, is_up=True, name="eth7"), new_address(index, four), new_address(index, six)]
    )
    gateways = ipaddress.ip_address("10.9.0.1"), ipaddress.ip_address("fd00:9::1")
    there.send(
        [
            new_route(Route(None, gateways[0]), 4),
            new_route(Route(ipaddress.ip_network("10.77.0.0/16"), gateways[0], metric=5), 4),
            new_route(Route(None, gateways[1], link=index), 6),
            permanent_neighbour(index, gateways[0], b"\x02\x42\x00\x00\x00\x01"),
        ]
    )

    assert there.link("eth7").index == index
    assert (index, four) in there.addresses(4)
    assert (index, six) in there.addresses()
    assert Route(None, gateways[0], index) in there.routes(4)
    assert Route(ipaddress.ip_network("10.77.0.0/16"), gateways[0], index, 5) in there.routes(4)
    assert gateways[1] in [route.gateway for route in there.routes(6)]


def test_refusals_name_the_message_and_the_reason(spaces):
    (_, here), _ = spaces
    here.send([new_bridge("br0")])

    with pytest.raises(NetlinkError) as refused:
        here.send([new_bridge("br1"), new_bridge("br0"), new_bridge("br2")])

    assert (refused.value.errno, refused.value.index) == (errno.EEXIST, 1)
    assert here.link("br2") is not None  # later messages of a batch happen
    with pytest.raises(NetlinkError) as refused:
        here.send([new_route(Route(None, ipaddress.ip_address("10.0.0.1")), 4)])
    assert refused.value.errno == errno.ENETUNREACH
    assert refused.value.strerror == "Nexthop has invalid gateway"


def test_links_that_are_not_there(spaces):
    (_, here), _ = spaces
    assert here.link("nope") is None
    assert here.link("x" * 40) is None
    with pytest.raises(NetlinkError):
        here.send([delete_link(4711)])


def test_removing_one_end_of_a_pair_removes_the_other(spaces):
    (_, here), (there_fd, there) = spaces
    here.send([new_veth("a", "b", peer_netns=there_fd)])

    here.send([delete_link(here.link("a").index)])

    assert there.link("b") is None


def test_a_macvlan_elsewhere(spaces):
    (_, here), (there_fd, there) = spaces
    here.send([new_bridge("parent")])
    parent = here.link("parent").index

    here.send([new_macvlan("mv0", parent, netns=there_fd, mode="private", mac=b"\x02\x42\x00\x00\x00\x09")])

    assert (there.link("mv0").kind, there.link("mv0").mac) == ("macvlan", b"\x02\x42\x00\x00\x00\x09")


def test_many_links_arrive_in_one_dump(spaces):
    (_, here), _ = spaces
    for start in range(0, 300, 50):
        here.send([new_bridge(f"br{number}") for number in range(start, start + 50)])

    assert len(here.links()) >= 301
