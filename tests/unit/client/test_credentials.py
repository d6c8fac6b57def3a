"""Credentials of the docker client's configuration."""

from __future__ import annotations

import base64
import json

from orlop.client.credentials import auth_config, auth_header, config_header, load_config

HUB = "https://index.docker.io/v1/"
AUTH = {"auth": base64.b64encode(b"me:se:cret").decode()}


def no_helper(helper, key):
    raise AssertionError(helper)


def read(header):
    return json.loads(base64.urlsafe_b64decode(header))


def test_stored_passwords_are_split_at_the_first_colon():
    found = auth_config({"auths": {"r:5000": AUTH}}, "r:5000", no_helper)

    assert found == {"serveraddress": "r:5000", "username": "me", "password": "se:cret"}


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
