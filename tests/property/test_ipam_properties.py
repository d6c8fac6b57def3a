"""Whatever is taken: what is chosen is free, inside, and the first refusal means that all is taken."""

from __future__ import annotations

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from orlop.network.ipam import NoAddressLeft, NoPoolLeft, Pool, choose_address, choose_subnet, parse_subnet

POOLS = (Pool(ipaddress.ip_network("10.0.0.0/26"), 28), Pool(ipaddress.ip_network("10.1.0.0/27"), 28))
NETWORKS = st.builds(
    lambda base, offset, length: ipaddress.ip_network(
        (int(ipaddress.ip_address(base)) + offset, length), strict=False
    ),
    st.sampled_from(["10.0.0.0", "10.1.0.0", "9.255.255.0"]),
    st.integers(0, 300),
    st.integers(20, 32),
)


@given(st.lists(NETWORKS, max_size=8))
def test_a_chosen_subnet_is_free_and_refusal_means_full(taken):
    subnets = [subnet for pool in POOLS for subnet in pool.base.subnets(new_prefix=pool.size)]
    free = [subnet for subnet in subnets if not any(subnet.overlaps(one) for one in taken)]
    try:
        found = choose_subnet(POOLS, 4, taken).network
    except NoPoolLeft:
        assert free == []
    else:
        assert found == free[0]


@given(
    st.sets(st.integers(0, 15)),
    st.none() | st.integers(0, 15),
    st.sampled_from(["", "10.9.0.8/30", "10.9.0.0/29"]),
)
def test_a_chosen_address_is_free_and_refusal_means_full(taken, after, ip_range):
    subnet = parse_subnet("10.9.0.0/28", ip_range)
    base = ipaddress.ip_address("10.9.0.0")
    used = {base + number for number in taken}
    block = subnet.ip_range or subnet.network
    free = {address for address in block if address not in (base, base + 15)} - used - subnet.reserved
    try:
        found = choose_address(subnet, used, after=None if after is None else base + after)
    except NoAddressLeft:
        assert free == set()
    else:
        assert found in free
