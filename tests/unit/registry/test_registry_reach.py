from ipaddress import ip_address

import pytest

from orlop.registry.reach import reach_from

PUBLIC, PRIVATE, LOOPBACK = "93.184.216.34", "10.1.2.3", "127.0.0.1"
NEVER = ("169.254.169.254", "fe80::1", "0.0.0.0", "::", "224.0.0.1")


@pytest.mark.parametrize(
    ("registry", "allowed"),
    [
        (PUBLIC, {PUBLIC}),
        ("2606:4700::1111", {PUBLIC}),
        (PRIVATE, {PUBLIC, PRIVATE}),
        ("100.64.0.1", {PUBLIC, PRIVATE}),
        (LOOPBACK, {PUBLIC, PRIVATE, LOOPBACK}),
        ("::ffff:127.0.0.1", {PUBLIC, PRIVATE, LOOPBACK}),
        ("", {PUBLIC}),
    ],
)
def test_a_registry_sends_us_outwards_only(registry, allowed):
    rule = reach_from(registry)

    assert {text for text in (PUBLIC, PRIVATE, LOOPBACK) if rule(ip_address(text))} == allowed
    assert not any(rule(ip_address(text)) for text in NEVER)
