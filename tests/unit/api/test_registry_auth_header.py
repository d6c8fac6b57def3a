"""Credentials in headers."""

from __future__ import annotations

import base64
import json

import pytest

from orlop.api.registry_auth import find_registry_auth, registry_config
from orlop.base.errors import InvalidInput
from orlop.engine.auth import AuthConfig


def header(value, *, padded=True):
    text = base64.urlsafe_b64encode(json.dumps(value).encode()).decode()
    return text if padded else text.rstrip("=")


@pytest.mark.parametrize("padded", [True, False])
def test_auth_is_read_padded_or_not(padded):
    value = {"username": "u", "password": "p?>~", "serveraddress": "r"}

    auth = find_registry_auth({"x-registry-auth": header(value, padded=padded)})

    assert auth == AuthConfig("u", "p?>~", serveraddress="r")
    assert auth.credentials().password == "p?>~"
    assert "p?>~" not in repr(auth)


@pytest.mark.parametrize("value", ["", "e30=", "bnVsbA==", "e30"])
def test_nothing_is_nothing(value):
    assert find_registry_auth({"x-registry-auth": value}) is None


@pytest.mark.parametrize("value", ["!", "W10=", "eA==", "A" * 600_000, header({"username": 1}), "=" * 10_000])
def test_garbage_is_refused(value):
    if set(value) == {"="}:
        assert find_registry_auth({"x-registry-auth": value}) is None
        return
    with pytest.raises(InvalidInput):
        find_registry_auth({"x-registry-auth": value})


def test_auth_field_fills_in_user_and_password():
    auth = AuthConfig(auth=base64.b64encode(b"user:pa:ss").decode())

    assert (auth.credentials().username, auth.credentials().password) == ("user", "pa:ss")
    with pytest.raises(InvalidInput):
        AuthConfig(auth="%%%").credentials()


def test_registry_config_is_a_map():
    found = registry_config({"x-registry-config": header({"a": {"username": "u"}, "b": None})})

    assert found == {"a": AuthConfig("u")}
