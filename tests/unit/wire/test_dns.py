from __future__ import annotations

import ipaddress
import struct

import pytest

from orlop.wire import dns

ip = ipaddress.ip_address


def question(name, kind=dns.A, number=7, flags=0x0100, klass=1, extra=b"", extras=0):
    return (
        struct.pack("!HHHHHH", number, flags, 1, 0, 0, extras)
        + dns.encode_name(name)
        + struct.pack("!HH", kind, klass)
        + extra
    )


def opt(size):
    return b"\0" + struct.pack("!HHIH", 41, size, 0, 0)


def test_a_query_is_read():
    query = dns.parse_query(question("Web.Front", dns.AAAA))

    assert (query.id, query.name, query.kind, query.udp_bytes) == (7, "web.front", dns.AAAA, 512)


@pytest.mark.parametrize(("size", "found"), [(100, 512), (1232, 1232), (65535, 4096)])
def test_a_client_says_how_much_it_takes(size, found):
    assert dns.parse_query(question("web", extra=opt(size), extras=1)).udp_bytes == found


def test_an_answer_has_the_addresses_of_the_version_asked_for():
    query = dns.parse_query(question("web"))

    message = dns.answer(query, [ip("10.9.0.2"), ip("fd00::2"), ip("10.9.0.3")], 600)

    number, flags, questions, answers, *_ = struct.unpack_from("!HHHHHH", message)
    assert (number, flags, questions, answers) == (7, 0x8180, 1, 2)
    assert message.endswith(struct.pack("!HHHIH", 0xC00C, 1, 1, 600, 4) + bytes([10, 9, 0, 3]))


def test_a_name_without_addresses_of_that_version_exists_all_the_same():
    query = dns.parse_query(question("web", dns.AAAA))

    assert struct.unpack_from("!HHHH", dns.answer(query, [ip("10.9.0.2")], 600))[1:] == (0x8180, 1, 0)


def test_large_answers_ask_for_tcp():
    query = dns.parse_query(question("web"))
    message = dns.answer(query, [ip(f"10.9.0.{number}") for number in range(200)], 600)

    short = dns.truncate(message, query)

    assert struct.unpack_from("!H", short, 2)[0] & 0x0200
    assert len(short) < 512
    assert dns.truncate(dns.failure(query, dns.REFUSED), query)[3] & 0xF == dns.REFUSED


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("2.0.9.10.in-addr.arpa", "10.9.0.2"),
        ("2." + "0." * 30 + "f.ip6.arpa", "f000::2"),
        ("x.in-addr.arpa", None),
        ("2.0.ip6.arpa", None),
        ("web", None),
    ],
)
def test_pointers(name, address):
    assert dns.address_of_pointer(name) == (address and ip(address))


@pytest.mark.parametrize(
    ("data", "is_answered"),
    [
        (b"", False),
        (b"\0" * 11, False),
        (question("web", flags=0x8100), False),
        (question("web", flags=0x2800), True),
        (question("web", klass=3), True),
        (question("web")[:-2], True),
        (struct.pack("!HHHHHH", 7, 0, 2, 0, 0, 0), True),
        (struct.pack("!HHHHHH", 7, 0, 1, 0, 0, 0) + b"\xc0\x0c\0\1\0\1", True),
        (struct.pack("!HHHHHH", 7, 0, 1, 0, 0, 0) + (b"\x3f" + b"a" * 63) * 5 + b"\0\0\1\0\1", True),
    ],
)
def test_what_is_no_question(data, is_answered):
    with pytest.raises(dns.BadQuery) as caught:
        dns.parse_query(data)

    assert bool(caught.value.reply) == is_answered
    if is_answered:
        assert caught.value.reply[3] & 0xF == dns.FORMAT_ERROR


def test_names_are_encoded_within_their_limits():
    assert dns.encode_name("web.front") == b"\3web\5front\0"
    assert len(dns.encode_name("a" * 300)) == 65
    assert len(dns.encode_name(".".join(["a" * 60] * 9))) <= 256
