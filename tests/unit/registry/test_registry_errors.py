import json

import pytest

from orlop.base.errors import Kind
from orlop.oci.reference import parse_reference
from orlop.registry.errors import TooManyRequests, parse_problem, pull_error

REFERENCE = parse_reference("alpine:3")


def problem(status, code="", message="", **headers):
    body = json.dumps({"errors": [{"code": code, "message": message}]}).encode() if code else b""
    return parse_problem(status, {name.replace("_", "-"): (value,) for name, value in headers.items()}, body)


@pytest.mark.parametrize(
    ("found", "text", "kind"),
    [
        (
            problem(404, "MANIFEST_UNKNOWN", "manifest unknown"),
            "manifest for alpine:3 not found: manifest unknown: manifest unknown",
            Kind.NOT_FOUND,
        ),
        (problem(404), "manifest for alpine:3 not found: manifest unknown: manifest unknown", Kind.NOT_FOUND),
        (
            problem(403, "DENIED", "requested access to the resource is denied"),
            (
                "pull access denied for alpine, repository does not exist or may require 'docker login': "
                "denied: requested access to the resource is denied"
            ),
            Kind.NOT_FOUND,
        ),
        (
            problem(401, "UNAUTHORIZED", "x", www_authenticate='Bearer realm="r",error="insufficient_scope"'),
            (
                "pull access denied for alpine, repository does not exist or may require 'docker login': "
                "denied: requested access to the resource is denied"
            ),
            Kind.NOT_FOUND,
        ),
        (
            problem(401, "UNAUTHORIZED", "authentication required"),
            "unauthorized: authentication required",
            Kind.UNAUTHORIZED,
        ),
        (problem(500), "received unexpected HTTP status: 500 Internal Server Error", Kind.UNAVAILABLE),
        (problem(404, "NAME_UNKNOWN", "no"), "repository alpine not found: name unknown: no", Kind.NOT_FOUND),
    ],
)
def test_pulls_fail_in_dockers_words(found, text, kind):
    error = pull_error(found, REFERENCE)

    assert (error.message, error.kind) == (text, kind)


def test_rate_limits_come_with_a_hint():
    error = problem(429, "TOOMANYREQUESTS", "You have reached your pull rate limit.").to_error()

    assert isinstance(error, TooManyRequests)
    assert error.message == "toomanyrequests: You have reached your pull rate limit."
    assert error.hint


@pytest.mark.parametrize(
    "body",
    [b"<html>", b"[]", b'{"errors": []}', b'{"errors": [5]}', b'{"errors": [{"code": 5}]}', b"[" * 100_000,
     json.dumps({"errors": [{"code": "\x1b[31m", "message": "x"}]}).encode()],
)  # fmt: skip
def test_any_body_is_survived(body):
    assert parse_problem(418, {}, body).message.startswith("received unexpected HTTP status: 418")


def test_messages_are_cut_and_cleaned():
    found = problem(400, "BAD", "a\x1b[31m\n" + "x" * 10_000)

    assert found.message.isprintable()
    assert len(found.message) <= 500
