"""`hosts.toml`: which servers stand behind one registry, as containerd's configuration says it.

    server = "https://registry.example"          # asked last; the registry itself when left out
    [host."https://mirror.lan:5000"]             # asked in the order of the file
      capabilities = ["pull", "resolve"]         # and "push"; all three when left out
      ca = "ca.pem"                              # a name or a list of names
      client = [["cert.pem", "key.pem"]]         # pairs; a lone name holds both
      skip_verify = false
      override_path = false                      # the URL's path is used as it is, without /v2
      [host."https://mirror.lan:5000".header]
        Authorization = "Basic ..."

Names of files are relative to the file's folder. Unknown keys are ignored: newer files must work.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orlop.aio.url import Url, parse_url
from orlop.base.errors import InvalidInput

__all__ = ["ALL_CAPABILITIES", "HostEntry", "HostsFile", "InvalidHostsFile", "parse_hosts_file"]

ALL_CAPABILITIES = frozenset({"pull", "resolve", "push"})
_MAX_HOSTS = 64
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e]*\Z")
_OWN_HEADERS = frozenset({"host", "content-length", "transfer-encoding", "connection", "range"})


class InvalidHostsFile(InvalidInput):
    """A hosts.toml that cannot be used; the message names the file and what is wrong."""

    code = "invalid-hosts-file"


@dataclass(frozen=True, slots=True)
class HostEntry:
    """One server: its URL, what it is asked for, and how it is spoken to."""

    url: Url
    capabilities: frozenset[str] = ALL_CAPABILITIES
    authorities: tuple[str, ...] = ()
    client_pairs: tuple[tuple[str, str], ...] = ()  # certificate, key
    skip_verify: bool = False
    overrides_path: bool = False
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)  # may hold secrets


@dataclass(frozen=True, slots=True)
class HostsFile:
    """A whole file; `server` is None where the file names none."""

    hosts: tuple[HostEntry, ...]
    server: HostEntry | None


def parse_hosts_file(text: str, path: str) -> HostsFile:
    """Read a hosts.toml.

    Args:
        text: of the file.
        path: of the file; names in it are relative to its folder.

    Raises:
        InvalidHostsFile: not TOML, or a value of a wrong kind.
    """
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InvalidHostsFile(f"invalid {path}: {error}") from error
    reader = _Reader(path)
    tables = document.get("host", {})
    if not isinstance(tables, dict) or len(tables) > _MAX_HOSTS:
        raise reader.wrong("host", f"at most {_MAX_HOSTS} tables are wanted")
    hosts = tuple(reader.entry(name, table) for name, table in tables.items())
    server = document.get("server")
    if server is None:
        return HostsFile(hosts, None)
    if not isinstance(server, str):
        raise reader.wrong("server", "a URL is wanted")
    return HostsFile(hosts, reader.entry(server, document))


class _Reader:
    def __init__(self, path: str) -> None:
        self._path = path
        self._folder = os.path.dirname(path)

    def wrong(self, key: str, what: str) -> InvalidHostsFile:
        return InvalidHostsFile(f"invalid {self._path}: {key[:200]}: {what}")

    def entry(self, address: str, table: Any) -> HostEntry:
        if not isinstance(table, dict):
            raise self.wrong(f"host.{address}", "a table is wanted")
        try:
            url = parse_url(address if "://" in address else f"https://{address}")
        except InvalidInput as error:
            raise self.wrong(address, error.message) from error
        if "?" in url.target:
            raise self.wrong(address, "a query is not allowed")
        words = self._texts(table, "capabilities") if "capabilities" in table else list(ALL_CAPABILITIES)
        if unknown := set(words) - ALL_CAPABILITIES:
            raise self.wrong("capabilities", f"{min(unknown)[:40]!r} is unknown")
        return HostEntry(
            url,
            frozenset(words),
            tuple(self._file(name) for name in self._texts(table, "ca")),
            tuple(self._pairs(table)),
            self._flag(table, "skip_verify"),
            self._flag(table, "override_path"),
            tuple(self._headers(table)),
        )

    def _file(self, name: str) -> str:
        return os.path.join(self._folder, name)

    def _flag(self, table: Mapping[str, Any], key: str) -> bool:
        value = table.get(key, False)
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false is wanted")
        return value

    def _texts(self, table: Mapping[str, Any], key: str) -> list[str]:
        value = table.get(key, [])
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list) or not all(isinstance(item, str) for item in values):
            raise self.wrong(key, "a text or a list of texts is wanted")
        return values

    def _pairs(self, table: Mapping[str, Any]) -> list[tuple[str, str]]:
        value = table.get("client", [])
        pairs = []
        for item in [value] if isinstance(value, str) else value if isinstance(value, list) else [None]:
            names = [item] if isinstance(item, str) else item
            if not isinstance(names, list) or len(names) not in (1, 2):
                raise self.wrong("client", "names or pairs of names are wanted")
            if not all(isinstance(name, str) for name in names):
                raise self.wrong("client", "names or pairs of names are wanted")
            certificate, key = names[0], names[-1] or names[0]
            pairs.append((self._file(certificate), self._file(key)))
        return pairs

    def _headers(self, table: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Values are secrets: no message shows one."""
        headers = table.get("header", {})
        if not isinstance(headers, dict):
            raise self.wrong("header", "a table is wanted")
        found = []
        for name in headers:
            value = ", ".join(self._texts(headers, name))
            if not _HEADER_NAME.match(name) or not _HEADER_VALUE.match(value) or name.lower() in _OWN_HEADERS:
                raise self.wrong(f"header.{name}", "such a header cannot be sent")
            found.append((name, value))
        return found
