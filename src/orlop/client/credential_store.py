"""Storing and forgetting registry credentials as docker's client does: config.json or a helper program.

With `credsStore` or `credHelpers` the secret goes to `docker-credential-NAME` (verbs `store` and
`erase`, JSON or the registry on its standard input); else it lies in config.json, which only its
owner can read. The file is replaced as a whole, and what other programs keep in it stays.
"""

from __future__ import annotations

import base64
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

from orlop.base.errors import OrlopError
from orlop.client.credentials import BadCredentials, helper_of, load_config, section

__all__ = ["HelperProgram", "config_path", "erase_credentials", "store_credentials"]

# helper's name, verb, standard input -> standard output
HelperProgram = Callable[[str, str, str], str]


class HelperFailed(OrlopError):
    """A credential helper does not do what it was asked."""

    code = "credential-helper"


def config_path(environ: Mapping[str, str]) -> str:
    """Where the docker client's configuration is."""
    folder = environ.get("DOCKER_CONFIG") or os.path.join(environ.get("HOME", "/root"), ".docker")
    return os.path.join(folder, "config.json")


def store_credentials(
    environ: Mapping[str, str], key: str, entry: Mapping[str, str], run: HelperProgram
) -> str:
    """Keep what a login gave; returns where: a helper's name, or "" for the file.

    Args:
        environ: says where the file is.
        key: of the registry, `https://index.docker.io/v1/` or its `host[:port]`.
        entry: username and password, or username and identitytoken.
        run: runs a helper.

    Raises:
        BadCredentials: the file cannot be read, so it is not replaced.
        HelperFailed: the helper refuses.
    """
    config = _config(environ)
    helper = helper_of(config, key)
    token = entry.get("identitytoken", "")
    if helper:
        document = {
            "ServerURL": key,
            "Username": "<token>" if token else entry["username"],
            "Secret": token or entry["password"],
        }
        _run(run, helper, "store", json.dumps(document))
        auths = {**section(config, "auths"), key: {}}  # docker lists what a helper holds, without secrets
    else:
        pair = f"{entry['username']}:{'' if token else entry['password']}"
        kept = {"auth": base64.b64encode(pair.encode()).decode()}
        auths = {**section(config, "auths"), key: kept | ({"identitytoken": token} if token else {})}
    _write(environ, {**config, "auths": auths})
    return helper


def erase_credentials(environ: Mapping[str, str], key: str, run: HelperProgram) -> bool:
    """Forget a registry's credentials; False when there were none. Raises as `store_credentials`."""
    config = _config(environ)
    helper = helper_of(config, key)
    names = {key, f"https://{key}", f"http://{key}"}
    auths = section(config, "auths")
    left = {name: value for name, value in auths.items() if name not in names}
    if helper:
        _run(run, helper, "erase", key)
    if len(left) != len(auths):
        _write(environ, {**config, "auths": left})
    return bool(helper) or len(left) != len(auths)


def _config(environ: Mapping[str, str]) -> dict[str, Any]:
    """The file's content; unlike for reading, a damaged one is an error: it would be overwritten."""
    config = load_config(environ)
    if not config and not _is_empty(config_path(environ)):
        raise BadCredentials(
            f'"{config_path(environ)}" cannot be read, so nothing is stored in it',
            hint="correct the file, or set DOCKER_CONFIG to another directory",
        )
    return config


def _is_empty(path: str) -> bool:
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        return not text.strip() or json.loads(text) == {}
    except FileNotFoundError:
        return True
    except (OSError, ValueError):
        return False


def _run(run: HelperProgram, helper: str, verb: str, text: str) -> None:
    try:
        run(helper, verb, text)
    except OSError as error:
        raise HelperFailed(f"docker-credential-{helper} {verb} failed: {error}") from None


def _write(environ: Mapping[str, str], config: Mapping[str, Any]) -> None:
    path = os.path.realpath(config_path(environ))  # people link it into their dotfiles
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    fd, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".config.json-")  # mode 0600
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            json.dump(config, file, indent="\t")
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
