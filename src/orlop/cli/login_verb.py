"""`orlop login` and `orlop logout`."""

from __future__ import annotations

import sys
from typing import Any

from orlop.cli.context import Context, is_terminal, run_helper, run_helper_verb
from orlop.cli.flags import Command, Flag, Parsed, UsageError
from orlop.client.credential_store import config_path, erase_credentials, store_credentials
from orlop.client.credentials import HUB_KEY, auth_config, load_config

COMMANDS = {
    "login": Command(
        "login [OPTIONS] [SERVER]",
        "Authenticate to a registry; without a server: Docker Hub",
        (
            Flag(
                "password",
                "p",
                text="Password or personal access token; other users see it in the process list",
            ),
            Flag("password-stdin", kind="bool", text="Take the password from stdin"),
            Flag("username", "u", text="Username"),
        ),
        max_args=1,
    ),
    "logout": Command("logout [SERVER]", "Log out from a registry; without a server: Docker Hub", max_args=1),
}
_HUB_NAMES = ("", "docker.io", "index.docker.io", "registry-1.docker.io")


def run(context: Context, parsed: Parsed, name: str) -> int:
    """Log in or out."""
    key = _key(parsed.args[0] if parsed.args else "")
    return _logout(context, key) if name == "logout" else _login(context, parsed, key)


def _key(server: str) -> str:
    """`https://host/v1/` and the like are the host."""
    host = server.removeprefix("https://").removeprefix("http://").partition("/")[0]
    return HUB_KEY if host in _HUB_NAMES else host


def _login(context: Context, parsed: Parsed, key: str) -> int:
    user, password = _asked(context, parsed, key)
    body: dict[str, str] = {"username": user, "password": password, "serveraddress": key}
    if not password:
        known = _known(context, key)
        if not known:
            raise UsageError("a password is needed", hint="give --password-stdin, or log in on a terminal")
        context.print("Authenticating with existing credentials...")
        body, user = known, known.get("username", "")
    answer: dict[str, Any] = context.client.call("POST", "/auth", body=body) or {}
    token = str(answer.get("IdentityToken") or "")
    if password:
        entry = {"username": user, "password": password} | ({"identitytoken": token} if token else {})
        if not store_credentials(context.environ, key, entry, run_helper_verb):
            context.warn(
                f"\nWARNING! Your credentials are stored unencrypted in '{config_path(context.environ)}'.\n"
                "Configure a credential helper to remove this warning (credsStore in that file).\n"
            )
    context.print(str(answer.get("Status") or "Login Succeeded"))
    return 0


def _known(context: Context, key: str) -> dict[str, str]:
    domain = "docker.io" if key == HUB_KEY else key
    return auth_config(load_config(context.environ), domain, run_helper)


def _asked(context: Context, parsed: Parsed, key: str) -> tuple[str, str]:
    """User and password from flags, standard input or the terminal; no password: the stored one."""
    user, password = parsed["username"] or "", parsed["password"] or ""
    if parsed["password-stdin"]:
        if password:
            raise UsageError("--password and --password-stdin are mutually exclusive")
        if not user:
            raise UsageError("Must provide --username with --password-stdin")
        password = sys.stdin.read().rstrip("\r\n")
        if not password:
            raise UsageError("the password on standard input is empty")
    elif password:
        context.warn("WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
        if not user:
            raise UsageError("Must provide --username with --password")
    elif is_terminal(sys.stdin) and (user or not _known(context, key)):
        user, password = _prompt(context, user)
    return user, password


def _prompt(context: Context, user: str) -> tuple[str, str]:
    import getpass

    if not user:
        context.print("Username: ", end="")
        context.out.flush()
        user = sys.stdin.readline().strip()
    if not user:
        raise UsageError("username is required")
    return user, getpass.getpass("Password: ")


def _logout(context: Context, key: str) -> int:
    if not erase_credentials(context.environ, key, run_helper_verb):
        context.print(f"Not logged in to {key}")
        return 0
    context.print(f"Removing login credentials for {key}")
    return 0
