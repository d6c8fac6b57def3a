"""The three files of /etc that the engine makes for a container: hostname, hosts, resolv.conf.

They are ours, bound into the container, which may change them: so they are written anew at every
start, never followed as links and never read back.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from orlop.base.errors import InvalidInput

__all__ = ["hosts", "link", "resolv_conf", "write"]

_LOCAL = (
    ("127.0.0.1", "localhost"),
    ("::1", "localhost ip6-localhost ip6-loopback"),
    ("fe00::", "ip6-localnet"),
    ("ff00::", "ip6-mcastprefix"),
    ("ff02::1", "ip6-allnodes"),
    ("ff02::2", "ip6-allrouters"),
)
_MAX_BYTES = 1 << 20


def write(path: str, text: str) -> None:
    """Replace the file; boot-scoped content, so nothing is synced."""
    os.makedirs(os.path.dirname(path), mode=0o710, exist_ok=True)
    _unlink(path)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    with os.fdopen(fd, "w", encoding="utf-8", errors="surrogateescape") as file:
        os.fchmod(fd, 0o644)
        file.write(text)


def link(source: str, target: str) -> None:
    """Share a file of the container whose network is shared."""
    os.makedirs(os.path.dirname(target), mode=0o710, exist_ok=True)
    _unlink(target)
    os.link(source, target)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def hosts(extra: Iterable[str], *, is_host_network: bool, gateway: str = "", own: Iterable[str] = ()) -> str:
    """The hosts file.

    Args:
        extra: `name:ip` or `name=ip`.
        is_host_network: begin with the host's file.
        gateway: the address that `host-gateway` stands for; "" when there is none.
        own: lines of the container itself.

    Raises:
        InvalidInput: with dockerd's text.
    """
    base = _read_host("/etc/hosts") if is_host_network else ""
    lines = [base.rstrip("\n")] if base else [f"{address}\t{names}" for address, names in _LOCAL]
    for item in extra:
        name, separator, address = item.partition("=") if "=" in item else item.partition(":")
        if not separator or not name or any(c.isspace() for c in name + address):
            raise InvalidInput(f"bad format for add-host: {item[:200]!r}")
        if address == "host-gateway":
            if not gateway:
                raise InvalidInput(
                    "unable to derive the IP value for host-gateway", hint="there is no default bridge"
                )
            address = gateway
        lines.append(f"{address.strip('[]')}\t{name}")
    return "\n".join([*lines, *own]) + "\n"


def resolv_conf(servers: Iterable[str], search: Iterable[str], options: Iterable[str]) -> str:
    """The resolver's file: the host's, or what was asked for in its place."""
    servers, search, options = tuple(servers), tuple(search), tuple(options)
    base = _read_host("/etc/resolv.conf")
    if not (servers or search or options):
        return base
    for item in (*servers, *search, *options):
        if any(c.isspace() for c in item):
            raise InvalidInput(f"invalid DNS setting {item[:100]!r}")
    kept = [line.split() for line in base.splitlines() if line.split()]
    lines = []
    for word, given in (("search", search), ("options", options)):
        own = [entry for entry in kept if entry[0] == word]
        if given and given != (".",):
            lines.append(f"{word} {' '.join(given)}")
        elif not given:
            lines += [" ".join(entry) for entry in own]
    used = [f"nameserver {server}" for server in servers]
    used = used or [" ".join(entry) for entry in kept if entry[0] == "nameserver"]
    return "\n".join([*used, *lines]) + "\n"


def _read_host(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read(_MAX_BYTES)
    except OSError:
        return ""
