import base64
import json
import os
import stat

import pytest

from orlop.client.credential_store import HelperFailed, erase_credentials, store_credentials
from orlop.client.credentials import BadCredentials, auth_config, load_config

ENTRY = {"username": "me", "password": "ge:heim"}


@pytest.fixture
def environ(tmp_path):
    return {"DOCKER_CONFIG": str(tmp_path / "deep" / "docker")}


@pytest.fixture
def path(environ):
    os.makedirs(environ["DOCKER_CONFIG"])
    return os.path.join(environ["DOCKER_CONFIG"], "config.json")


def no_helper(helper, verb, text):
    raise AssertionError(helper)


def test_what_is_stored_is_found_and_readable_by_its_owner_alone(environ):
    assert store_credentials(environ, "r:5000", ENTRY, no_helper) == ""

    file = os.path.join(environ["DOCKER_CONFIG"], "config.json")
    found = auth_config(load_config(environ), "r:5000", no_helper)
    assert (found["username"], found["password"]) == ("me", "ge:heim")
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600
    assert os.listdir(environ["DOCKER_CONFIG"]) == ["config.json"]


def test_an_identity_token_takes_the_place_of_the_password(environ):
    store_credentials(environ, "r:5000", ENTRY | {"identitytoken": "idt"}, no_helper)

    entry = load_config(environ)["auths"]["r:5000"]
    assert entry["identitytoken"] == "idt"
    assert base64.b64decode(entry["auth"]) == b"me:"


def test_what_others_keep_in_the_file_stays(environ, path):
    with open(path, "w") as file:
        json.dump({"auths": {"other": {"auth": "x"}}, "plugins": {"a": 1}}, file)

    store_credentials(environ, "r", ENTRY, no_helper)
    assert erase_credentials(environ, "r", no_helper) is True
    assert erase_credentials(environ, "r", no_helper) is False

    assert load_config(environ) == {"auths": {"other": {"auth": "x"}}, "plugins": {"a": 1}}


def test_a_link_to_the_file_stays_a_link(environ, path, tmp_path):
    (tmp_path / "dotfiles.json").write_text("{}")
    os.symlink(tmp_path / "dotfiles.json", path)

    store_credentials(environ, "r", ENTRY, no_helper)

    assert os.path.islink(path)
    assert "r" in json.loads((tmp_path / "dotfiles.json").read_text())["auths"]


@pytest.mark.parametrize("text", ["{", "[]", '"x"', "\xff"])
def test_a_damaged_file_is_not_replaced(environ, path, text):
    with open(path, "w", encoding="latin-1") as file:
        file.write(text)

    with pytest.raises(BadCredentials):
        store_credentials(environ, "r", ENTRY, no_helper)

    with open(path, encoding="latin-1") as file:
        assert file.read() == text


def test_a_store_for_all_registries_and_one_that_fails(environ, path):
    calls = []

    def run(helper, verb, text):
        calls.append((helper, verb, text))
        if verb == "erase":
            raise OSError("locked")
        return ""

    with open(path, "w") as file:
        json.dump({"credsStore": "safe", "credHelpers": {"special": "other"}}, file)

    assert store_credentials(environ, "r", ENTRY, run) == "safe"
    assert store_credentials(environ, "special", ENTRY, run) == "other"
    with pytest.raises(HelperFailed, match="docker-credential-safe erase failed: locked"):
        erase_credentials(environ, "r", run)

    assert json.loads(calls[0][2]) == {"ServerURL": "r", "Username": "me", "Secret": "ge:heim"}
    with open(path) as file:
        assert "heim" not in file.read()
