"""Credentials of the docker client's configuration."""

from __future__ import annotations

import base64
import json

import pytest

from orlop.client.credentials import BadCredentials, auth_config, auth_header, config_header, load_config

HUB = "https://index.docker.io/v1/"
AUTH = {"auth": base64.b64encode(b"me:se:cret").decode()}


def no_helper(helper, key):
    raise AssertionError(helper)


def read(header):
    return json.loads(base64.urlsafe_b64decode(header))


def test_stored_passwords_are_split_at_the_first_colon():
    found = auth_config({"auths": {"r:5000": AUTH}}, "r:5000", no_helper)

    assert found == {"serveraddress": "r:5000", "username": "me", "password": "se:cret"}


@pytest.mark.parametrize(
    "stored", ["=", "bWU6c2Vjcm$V0", "a", "ä", base64.b64encode(b"\xff:x").decode(), 5, ["x"]]
)
def test_a_malformed_password_is_said_without_showing_it(stored):
    with pytest.raises(BadCredentials, match='"r:5000"') as caught:
        auth_config({"auths": {"r:5000": {"auth": stored}}}, "r:5000", no_helper)

    assert "secret" not in str(caught.value)
    assert "login" in caught.value.hint


@pytest.mark.parametrize("config", [{"auths": ["x"]}, {"auths": {"r": "x"}}, {"credHelpers": 5}])
def test_a_file_of_another_shape_is_said(config):
    with pytest.raises(BadCredentials, match=r"config\.json"):
        auth_config(config, "r", no_helper)
    with pytest.raises(BadCredentials, match=r"config\.json"):
        config_header(config, no_helper)


def test_builds_name_the_registry_whose_password_is_malformed():
    with pytest.raises(BadCredentials, match='"r"'):
        config_header({"auths": {HUB: AUTH, "r": {"auth": "="}}}, no_helper)


def test_docker_io_is_stored_under_its_old_key():
    assert auth_config({"auths": {HUB: AUTH}}, "docker.io", no_helper)["username"] == "me"


def test_helpers_are_asked_only_for_their_registry():
    asked = []

    def helper(name, key):
        asked.append((name, key))
        return '{"Username": "<token>", "Secret": "t"}'

    config = {"credHelpers": {"r": "vault"}, "auths": {"other": AUTH}}

    assert auth_config(config, "r", helper) == {"serveraddress": "r", "identitytoken": "t"}
    assert auth_config(config, "other", helper)["username"] == "me"
    assert asked == [("vault", "r")]


def test_a_missing_or_broken_file_is_no_configuration(tmp_path):
    assert load_config({"DOCKER_CONFIG": str(tmp_path)}) == {}
    (tmp_path / "config.json").write_text("[")
    assert load_config({"DOCKER_CONFIG": str(tmp_path)}) == {}
    (tmp_path / "config.json").write_text("[]")
    assert load_config({"DOCKER_CONFIG": str(tmp_path)}) == {}


def test_nothing_known_is_an_empty_answer():
    assert auth_config({}, "r", no_helper) == {}


def test_headers_are_base64url_json():
    assert read(auth_header({"username": "?>~"})["X-Registry-Auth"]) == {"username": "?>~"}
    header = config_header({"auths": {HUB: AUTH, "r": {}}}, no_helper)["X-Registry-Config"]
    assert list(read(header)) == [HUB]
