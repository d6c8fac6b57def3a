"""Whatever a container sends: an answer that belongs to it, an error, or silence; never more."""

from __future__ import annotations

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from orlop.wire import dns


@given(st.binary(max_size=600))
def test_any_bytes(data):
    for reply in replies(data):
        assert reply == b"" or (reply[:2] == data[:2] and reply[2] & 0x80)


def replies(data):
    try:
        query = dns.parse_query(data)
    except dns.BadQuery as error:
        return [error.reply]
    return [dns.answer(query, [ipaddress.ip_address("10.0.0.1")], 1), dns.failure(query, dns.REFUSED)]


@given(st.text(max_size=80))
def test_any_pointer(name):
    address = dns.address_of_pointer(f"{name}.in-addr.arpa")
    assert address is None or str(address).split(".") == name.split(".")[::-1]
