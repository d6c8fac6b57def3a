import base64
import json
import time

import pytest

from orlop.aio.url import InvalidUrl, Origin, parse_url
from orlop.base.clock import ManualClock
from orlop.registry.auth import (
    Challenge,
    Credentials,
    Grant,
    TokenCache,
    parse_challenges,
    parse_grant,
    token_request,
)
from orlop.registry.errors import BadRegistry

SECURE = Origin("https", "registry.example", 443)
PLAIN = Origin("http", "10.0.0.1", 5000)
ALICE = Credentials("alice", "secret")


def bearer(realm):
    return Challenge("bearer", {"realm": realm, "service": "s"})


def test_challenges_are_read_with_quotes_escapes_and_several_in_one_header():
    found = parse_challenges(
        ['Basic realm="a, b", Bearer realm="https://x/t",service="q\\"q" , scope=x', "Negotiate"]
    )

    assert [challenge.scheme for challenge in found] == ["basic", "bearer", "negotiate"]
    assert found[0].params == {"realm": "a, b"}
    assert found[1].params == {"realm": "https://x/t", "service": 'q"q', "scope": "x"}


@pytest.mark.parametrize("text", ["", ",,,", "=x", '"', "Bearer", 'Bearer realm="unterminated', "\x00"])
def test_odd_challenges_are_harmless(text):
    assert len(parse_challenges([text])) <= 1


@pytest.mark.parametrize("filler", [" ", ",", ", ", "a", "a=", '"', "\\", "a=b "])
def test_reading_a_challenge_takes_linear_time(filler):
    began = time.process_time()

    parse_challenges(["Bearer a=b" + filler * (16_000 // len(filler)) + "!"])

    assert time.process_time() - began < 0.5


def test_an_endless_challenge_is_refused():
    with pytest.raises(BadRegistry):
        parse_challenges(["Bearer realm=" + "a" * 100_000])


@pytest.mark.parametrize(
    ("registry", "realm", "has_credentials"),
    [
        (SECURE, "https://auth.example/token", True),
        (SECURE, "https://registry.example/token", True),
        (PLAIN, "https://auth.example/token", True),
        (PLAIN, "http://10.0.0.1:5001/token", True),
        (PLAIN, "http://elsewhere.example/token", False),
    ],
)
def test_credentials_go_to_realms_by_the_table(registry, realm, has_credentials):
    order = token_request(bearer(realm), registry, ALICE, ["repository:a/b:pull"])

    assert ("Authorization" in order.headers) is has_credentials
    assert "scope=repository%3Aa%2Fb%3Apull" in order.url.target
    assert "secret" not in order.url.target


def test_a_clear_text_realm_of_a_tls_registry_is_refused():
    with pytest.raises(BadRegistry):
        token_request(bearer("http://auth.example/token"), SECURE, Credentials(), [])


@pytest.mark.parametrize("realm", ["", "file:///etc/passwd", "/relative", "https://u:p@x/"])
def test_odd_realms_are_refused(realm):
    with pytest.raises(InvalidUrl):
        token_request(bearer(realm), SECURE, ALICE, [])


def test_an_identity_token_is_posted_as_a_refresh_token():
    order = token_request(bearer("https://a/t"), SECURE, Credentials(identity_token="idt"), ["x", "y"])

    assert (order.method, order.url) == ("POST", parse_url("https://a/t"))
    assert b"grant_type=refresh_token" in order.form
    assert b"refresh_token=idt" in order.form
    assert b"scope=x+y" in order.form


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"token": 5}',
        b'{"token": "a b"}',
        b'{"token": "a\\r\\nX: y"}',
        json.dumps({"token": "x" * 100_000}).encode(),
        b"[" * 100_000,
        b"\xff",
    ],
)
def test_token_garbage_is_refused(body):
    with pytest.raises(BadRegistry):
        parse_grant(body)


@pytest.mark.parametrize(
    ("expires", "lifetime"),
    [(None, 60), (300, 300), (-5, 60), ("x", 60), (True, 60), (1e300, 3600), (float("nan"), 60)],
)
def test_lifetimes_are_bounded(expires, lifetime):
    assert (
        parse_grant(json.dumps({"access_token": "t", "expires_in": expires}).encode()).lifetime_s == lifetime
    )


def test_tokens_are_kept_by_owner_and_until_nearly_expired():
    clock = ManualClock()
    cache = TokenCache(clock)
    cache.keep(SECURE, "s", ALICE, Grant("t", 100.0))

    assert cache.find(SECURE, "s", ALICE) == "t"
    assert cache.find(SECURE, "s", Credentials("bob", "x")) is None
    assert cache.find(PLAIN, "s", ALICE) is None
    clock.advance(91)
    assert cache.find(SECURE, "s", ALICE) is None


def test_secrets_are_not_shown():
    assert "secret" not in repr(ALICE)
    assert "idt" not in repr(Credentials(identity_token="idt"))
    assert "tok" not in repr(Grant("tok", 1))


def test_a_realm_without_post_gets_the_identity_token_as_the_password():
    offer = Challenge("bearer", {"realm": "https://auth.example/token", "service": "s"})
    registry = parse_url("https://reg.example").origin
    user = Credentials("me", identity_token="idt")

    order = token_request(offer, registry, user, ["repository:a:pull"], by_get=True)

    assert order.method == "GET"
    assert order.headers["Authorization"] == "Basic " + base64.b64encode(b"me:idt").decode()
    assert "idt" not in str(order.url)
    assert token_request(offer, registry, user, [], by_get=False).method == "POST"
