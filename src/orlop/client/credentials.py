"""Registry credentials of the docker client's config file, as the X-Registry-Auth header.

Source: docker CLI reference, "docker login"; `~/.docker/config.json`, credential helpers protocol.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Mapping
from typing import Any

from orlop.base.errors import InvalidInput

__all__ = [
    "HUB_KEY",
    "BadCredentials",
    "HelperRunner",
    "auth_config",
    "auth_header",
    "config_header",
    "encoded_header",
    "helper_of",
    "load_config",
    "section",
    "server_key",
]

HUB_KEY = "https://index.docker.io/v1/"
HelperRunner = Callable[[str, str], str]  # helper's name, registry -> its JSON answer


class BadCredentials(InvalidInput):
    """The docker client's config file holds something that cannot be read. Never shows what."""

    code = "bad-credentials"


def load_config(environ: Mapping[str, str]) -> dict[str, Any]:
    """The parsed config.json, or {} when there is none or it cannot be read."""
    config_dir = environ.get("DOCKER_CONFIG") or os.path.join(environ.get("HOME", "/root"), ".docker")
    try:
        with open(os.path.join(config_dir, "config.json"), encoding="utf-8") as file:
            value = json.load(file)
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def auth_config(config: Mapping[str, Any], domain: str, run_helper: HelperRunner) -> dict[str, str]:
    """What the engine is told about `domain`: username and password, identity token, or {}.

    Raises:
        BadCredentials: what is stored for it is malformed.
    """
    key = server_key(domain)
    helper = helper_of(config, key)
    if helper:
        return _from_helper(helper, key, run_helper)
    auths = section(config, "auths")
    name = next((name for name in (key, f"https://{key}", f"http://{key}") if auths.get(name)), key)
    entry = section(auths, name)
    found = {"serveraddress": key}
    if entry.get("auth"):
        found |= _decode_password(entry["auth"], name)
    if entry.get("identitytoken"):
        found["identitytoken"] = entry["identitytoken"]
    return found if len(found) > 1 else {}


def server_key(domain: str) -> str:
    """The name under which a registry's credentials are stored."""
    return HUB_KEY if domain == "docker.io" else domain


def helper_of(config: Mapping[str, Any], key: str) -> str:
    """The helper that keeps a registry's credentials; "" when the file does. Raises BadCredentials."""
    return str(section(config, "credHelpers").get(key) or config.get("credsStore") or "")


def section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """An object of the file; {} when there is none."""
    value = config.get(name) or {}
    if not isinstance(value, Mapping):
        raise BadCredentials(
            f'"{name}" in the docker client\'s config.json is not an object',
            hint="correct the file, or set DOCKER_CONFIG to the directory of another one",
        )
    return value


def _decode_password(stored: object, registry: str) -> dict[str, str]:
    """`base64(user:password)`, as `docker login` writes it; some versions padded it with zero bytes."""
    try:
        text = base64.b64decode(str(stored), validate=True).decode()
    except ValueError:
        text = ""
    user, colon, password = text.partition(":")
    if not colon:
        raise BadCredentials(
            f'the password stored for "{registry}" in the docker client\'s config.json is malformed',
            hint=f"store it again: docker login {registry}",
        )
    return {"username": user, "password": password.rstrip("\0")}


def _from_helper(helper: str, key: str, run_helper: HelperRunner) -> dict[str, str]:
    try:
        answer = json.loads(run_helper(helper, key))
    except (OSError, ValueError):
        return {}
    if answer.get("Username") == "<token>":
        return {"serveraddress": key, "identitytoken": str(answer.get("Secret", ""))}
    return {
        "serveraddress": key,
        "username": str(answer.get("Username", "")),
        "password": str(answer.get("Secret", "")),
    }


def _encode(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()


def auth_header(credentials: Mapping[str, str]) -> dict[str, str]:
    """X-Registry-Auth of one registry."""
    return {"X-Registry-Auth": _encode(dict(credentials))}


def config_header(config: Mapping[str, Any], run_helper: HelperRunner) -> dict[str, str]:
    """X-Registry-Config of all registries that the file names, for builds. Raises as `auth_config`."""
    keys = [*section(config, "auths"), *section(config, "credHelpers")]
    known = {key: auth_config(config, "docker.io" if key == HUB_KEY else key, run_helper) for key in keys}
    return encoded_header({key: value for key, value in known.items() if value})


def encoded_header(known: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """X-Registry-Config of credentials by registry."""
    return {"X-Registry-Config": _encode({key: dict(value) for key, value in known.items()})}
