from __future__ import annotations

import ipaddress

import pytest

from orlop.base.errors import InvalidInput
from orlop.network.ipam import (
    DEFAULT_POOLS,
    AddressTaken,
    NoAddressLeft,
    NoPoolLeft,
    Pool,
    SubnetOverlap,
    check_overlap,
    choose_address,
    choose_subnet,
    mac_of,
    parse_subnet,
)

net = ipaddress.ip_network
ip = ipaddress.ip_address


def test_subnets_are_dealt_out_in_order_around_what_is_taken():
    first = choose_subnet(DEFAULT_POOLS, 4, [])
    second = choose_subnet(DEFAULT_POOLS, 4, [first.network])
    beyond = choose_subnet(DEFAULT_POOLS, 4, [net("172.16.0.0/12")])

    assert (str(first.network), str(first.gateway)) == ("172.17.0.0/24", "172.17.0.1")
    assert str(second.network) == "172.17.1.0/24"
    assert str(beyond.network) == "192.168.0.0/24"
    assert str(choose_subnet(DEFAULT_POOLS, 6, [net("10.0.0.0/8")]).network) == "fd6f:726c:6f70::/64"


def test_a_small_neighbour_blocks_only_its_subnet():
    found = choose_subnet(DEFAULT_POOLS, 4, [net("172.17.0.9/32"), net("172.17.1.128/25")])

    assert str(found.network) == "172.17.2.0/24"


def test_pools_end():
    pool = (Pool(net("10.1.0.0/30"), 31),)
    taken = [net("10.1.0.0/31"), net("10.1.0.2/31")]

    with pytest.raises(NoPoolLeft, match="all predefined address pools have been fully subnetted"):
        choose_subnet(pool, 4, taken)


def test_hundreds_of_networks_fit():
    taken = []
    for _ in range(600):
        taken.append(choose_subnet(DEFAULT_POOLS, 4, taken).network)

    assert len(set(taken)) == 600


def test_overlaps_are_refused():
    check_overlap(net("10.0.0.0/8"), [net("192.168.0.0/24"), net("fd00::/8")])
    with pytest.raises(SubnetOverlap, match="Pool overlaps with other one on this address space"):
        check_overlap(net("10.0.0.0/8"), [net("10.9.0.0/24")])


@pytest.mark.parametrize(
    ("words", "gateway"),
    [
        (("10.9.0.0/24",), "10.9.0.1"),
        (("10.9.0.0/24", "", "10.9.0.254"), "10.9.0.254"),
        (("10.9.0.0/24", "10.9.0.128/25"), "10.9.0.128"),
        (("10.9.0.0/24", "", "", ("10.9.0.1",)), "10.9.0.2"),
        (("fd00:9::/64",), "fd00:9::1"),
        (("10.9.0.0/31",), "10.9.0.0"),
    ],
)
def test_the_gateway_is_the_first_address_unless_named(words, gateway):
    assert str(parse_subnet(*words).gateway) == gateway


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("10.9.0.0",), None),
        (("10.9.0.7/24",), "it should be 10.9.0.0/24"),
        (("nonsense",), "invalid subnet nonsense"),
        (("10.9.0.0/24", "10.8.0.0/25"), "does not contain it"),
        (("10.9.0.0/24", "fd00::/64"), "does not contain it"),
        (("10.9.0.0/24", "", "10.8.0.1"), "does not contain it"),
        (("10.9.0.0/24", "", "x"), "invalid IP address: x"),
        (("10.9.0.0/24", "", "", ("fd00::1",)), "does not contain it"),
    ],
)
def test_odd_subnets_are_refused(words, message):
    if message is None:
        assert str(parse_subnet(*words).network) == "10.9.0.0/32"
        return
    with pytest.raises(InvalidInput, match=message):
        parse_subnet(*words)


def test_addresses_are_given_in_order_and_the_last_one_is_not_given_again_at_once():
    subnet = parse_subnet("10.9.0.0/29")

    first = choose_address(subnet, [])
    again = choose_address(subnet, [], after=first)
    around = choose_address(subnet, [], after=ip("10.9.0.6"))

    assert [str(one) for one in (first, again, around)] == ["10.9.0.2", "10.9.0.3", "10.9.0.2"]


def test_a_full_subnet_says_so():
    subnet = parse_subnet("10.9.0.0/30")
    taken = [choose_address(subnet, [])]

    with pytest.raises(NoAddressLeft, match="no available IPv4 addresses"):
        choose_address(subnet, taken)


def test_an_ip_range_limits_what_is_chosen_not_what_is_asked_for():
    subnet = parse_subnet("10.9.0.0/24", "10.9.0.64/30", "10.9.0.1")

    assert str(choose_address(subnet, [])) == "10.9.0.64"
    assert str(choose_address(subnet, [], "10.9.0.9")) == "10.9.0.9"


@pytest.mark.parametrize("wanted", ["10.9.0.1", "10.9.0.0", "10.9.0.255", "10.9.0.5"])
def test_taken_addresses_are_refused(wanted):
    with pytest.raises(AddressTaken, match="Address already in use"):
        choose_address(parse_subnet("10.9.0.0/24"), [ip("10.9.0.5")], wanted)


@pytest.mark.parametrize("wanted", ["10.8.0.1", "fd00::1"])
def test_addresses_of_other_subnets_are_refused(wanted):
    with pytest.raises(InvalidInput, match="no configured subnet contains IP address"):
        choose_address(parse_subnet("10.9.0.0/24"), [], wanted)


def test_link_addresses_follow_the_address():
    assert mac_of(ip("172.17.0.2")).hex(":") == "02:42:ac:11:00:02"
