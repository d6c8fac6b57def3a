"""Registry credentials of the docker client's config file, as the X-Registry-Auth header.

Source: docker CLI reference, "docker login"; `~/.docker/config.json`, credential helpers protocol.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["HelperRunner", "auth_config", "auth_header", "config_header", "load_config"]

_HUB_KEY = "https://index.docker.io/v1/"
HelperRunner = Callable[[str, str], str]  # helper's name, registry -> its JSON answer


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
    """What the engine is told about `domain`: username and password, identity token, or {}."""
    key = _HUB_KEY if domain == "docker.io" else domain
    helper = (config.get("credHelpers") or {}).get(key) or config.get("credsStore")
    if helper:
        return _from_helper(str(helper), key, run_helper)
    auths = config.get("auths") or {}
    entry = auths.get(key) or auths.get(f"https://{key}") or auths.get(f"http://{key}") or {}
    found = {"serveraddress": key}
    if entry.get("auth"):
        user, _, password = base64.b64decode(entry["auth"]).decode().partition(":")
        found |= {"username": user, "password": password.rstrip("\0")}
    if entry.get("identitytoken"):
        found["identitytoken"] = entry["identitytoken"]
    return found if len(found) > 1 else {}


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
    """X-Registry-Config of all registries that the file names, for builds."""
    keys = [*(config.get("auths") or {}), *(config.get("credHelpers") or {})]
    known = {key: auth_config(config, "docker.io" if key == _HUB_KEY else key, run_helper) for key in keys}
    return {"X-Registry-Config": _encode({key: value for key, value in known.items() if value})}
