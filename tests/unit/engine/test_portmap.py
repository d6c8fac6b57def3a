"""Published ports: what is asked for, and which ports of the host it gets."""

from __future__ import annotations

import ipaddress
import socket

import pytest

from orlop.base.errors import InvalidInput
from orlop.engine.hostports import dynamic_range, is_free
from orlop.engine.portmap import PortInUse, choose_ports, read_wishes
from orlop.engine.requests import ContainerConfig, HostConfig, PortBinding

V4, V6 = ipaddress.ip_address("172.17.0.2"), ipaddress.ip_address("fd00::2")


def wishes(bindings, *, every=False, exposed=()):
    given = {port: tuple(PortBinding(*one) for one in pairs) for port, pairs in bindings.items()}
    host = HostConfig(port_bindings=given, publish_all_ports=every)
    return read_wishes(host, ContainerConfig(exposed_ports=frozenset(exposed)))


def chosen(bindings, *, addresses=(V4,), taken=(), busy=(), default_ip="", dynamic=(5000, 5001), **more):
    ports = choose_ports(
        wishes(bindings, **more),
        addresses,
        default_ip=default_ip,
        taken=set(taken),
        is_free=lambda protocol, ip, port: (protocol, ip, port) not in busy,
        dynamic=dynamic,
    )
    return [(port.port, port.host_ip, port.host_port, port.address) for port in ports]


def test_a_fixed_port_is_on_every_address_in_each_version_that_the_container_has():
    assert chosen({"80/tcp": [("", "8080")]}) == [("80/tcp", "0.0.0.0", 8080, str(V4))]
    assert chosen({"80/tcp": [("", "8080")]}, addresses=(V4, V6)) == [
        ("80/tcp", "0.0.0.0", 8080, str(V4)),
        ("80/tcp", "::", 8080, str(V6)),
    ]


def test_the_default_address_is_for_those_that_name_none():
    found = chosen({"80": [("", "8080"), ("10.0.0.1", "8081")]}, default_ip="127.0.0.1")

    assert [(ip, port) for _, ip, port, _ in found] == [("127.0.0.1", 8080), ("10.0.0.1", 8081)]


def test_random_ports_are_chosen_after_the_fixed_ones():
    found = chosen({"80/tcp": [("", "")], "81/tcp": [("", "5000")], "82/udp": [("", "0")]})

    assert {(port, number) for port, _, number, _ in found} == {
        ("81/tcp", 5000),
        ("80/tcp", 5001),
        ("82/udp", 5000),
    }


def test_the_first_free_port_of_a_range_is_taken():
    found = chosen(
        {"80/tcp": [("", "8000-8003")]}, taken=[("tcp", "0.0.0.0", 8000)], busy=[("tcp", "0.0.0.0", 8001)]
    )

    assert found[0][2] == 8002


def test_all_exposed_ports_are_published_once():
    found = chosen({"80/tcp": [("", "8080")]}, every=True, exposed=["80/tcp", "90-91/udp"])

    assert sorted((port, number) for port, _, number, _ in found) == [
        ("80/tcp", 8080),
        ("90/udp", 5000),
        ("91/udp", 5001),
    ]


@pytest.mark.parametrize(
    ("taken", "clashes"),
    [(("tcp", "0.0.0.0", 80), True), (("tcp", "10.0.0.1", 80), True), (("tcp", "10.0.0.2", 80), False), (("udp", "10.0.0.1", 80), False),
     (("tcp", "10.0.0.1", 81), False), (("tcp", "::", 80), False)],
)  # fmt: skip
def test_which_ports_clash(taken, clashes):
    ask = {"80/tcp": [("10.0.0.1", "80")]}
    if not clashes:
        assert chosen(ask, taken=[taken])
        return
    with pytest.raises(PortInUse, match=r"Bind for 10\.0\.0\.1:80 failed: port is already allocated"):
        chosen(ask, taken=[taken])


def test_a_port_of_the_host_is_named():
    with pytest.raises(PortInUse, match=r"0\.0\.0\.0:80:172\.17\.0\.2:90/tcp: address already in use"):
        chosen({"90/tcp": [("", "80")]}, busy=[("tcp", "0.0.0.0", 80)])


def test_no_port_is_left():
    with pytest.raises(PortInUse, match="all ports are allocated"):
        chosen({"80/tcp": [("", ""), ("", ""), ("", "")]})


@pytest.mark.parametrize(
    "bindings",
    [{"x": [("", "1")]}, {"0/tcp": [("", "1")]}, {"70000/tcp": [("", "1")]}, {"80/icmp": [("", "1")]}, {"80/tcp": [("", "-1")]}, {"80/tcp": [("", "9-1")]},
     {"80/tcp": [("", "70000")]}, {"80/tcp": [("nowhere", "1")]}, {"80/tcp\n": [("", "1")]}, {"80/tcp": [("", "1\n")]}],
)  # fmt: skip
def test_nonsense_is_refused(bindings):
    with pytest.raises(InvalidInput):
        wishes(bindings)


def test_an_ipv6_address_needs_an_ipv6_endpoint():
    with pytest.raises(InvalidInput, match="no IPv6 address"):
        chosen({"80/tcp": [("::1", "80")]})


def test_the_host_is_asked():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not is_free("tcp", "127.0.0.1", port)
        assert is_free("udp", "127.0.0.1", port)
        assert is_free("sctp", "127.0.0.1", port)
    assert is_free("tcp", "127.0.0.1", port)
    assert is_free("tcp", "203.0.113.1", port)


def test_the_dynamic_range_is_gone_round_once():
    found = dynamic_range(12345)

    assert sorted(found) == sorted(set(found))
    assert set(found) == set(dynamic_range(0))
