"""URLs as the HTTP client takes them: parsed once, strictly, into an origin and a target.

User info, fragments, control characters, white space and non-ASCII are refused: two
readers of one URL must never disagree about the host. Spec: RFC 3986; RFC 9110, 4.2.
"""

from __future__ import annotations

import ipaddress
import posixpath
import re
from dataclasses import dataclass, replace
from urllib.parse import quote

from orlop.base.errors import InvalidInput

__all__ = ["InvalidUrl", "Origin", "Url", "parse_url", "with_query"]

_MAX_URL = 16 * 1024  # pre-signed upload locations are long
_PORTS = {"http": 80, "https": 443}
_URL = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://"
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<target>[/?][!-\"$-~]*)?(?:\#[!-~]*)?\Z"
)
_TARGET = re.compile(r"/[!-\"$-~]*\Z")


class InvalidUrl(InvalidInput):
    """The text is not a URL that we would send a request to."""

    code = "invalid-url"


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, lower-case host without brackets, and port: what credentials are bound to."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """`host[:port]` as the Host header carries it; the default port is left out."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS.get(self.scheme) else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


@dataclass(frozen=True, slots=True)
class Url:
    """An http or https URL; `target` is path and query and begins with a slash."""

    origin: Origin
    target: str

    def __str__(self) -> str:
        return f"{self.origin}{self.target}"

    @property
    def path(self) -> str:
        """The target without its query: what may be shown (queries carry signatures)."""
        return self.target.partition("?")[0]

    def join(self, location: str) -> Url:
        """Where a `Location` header of a response to this URL points.

        Raises:
            InvalidUrl: another scheme than http and https, or not a URL at all.
        """
        if "://" in location.partition("?")[0]:
            return parse_url(location)
        if location.startswith("//"):
            return parse_url(f"{self.origin.scheme}:{location}")
        path, _, query = location.partition("#")[0].partition("?")
        if not path.startswith("/"):
            path = posixpath.join(posixpath.dirname(self.path), path) if path else self.path
        target = path + (f"?{query}" if "?" in location else "")
        if not _TARGET.match(target):
            raise InvalidUrl(f"invalid redirect location {location[:200]!r}")
        return replace(self, target=target)


def parse_url(text: str) -> Url:
    """Parse an absolute http or https URL.

    Raises:
        InvalidUrl: as named.
    """
    match = _URL.match(text) if len(text) <= _MAX_URL else None
    if match is None:
        raise InvalidUrl(f"invalid URL {text[:200]!r}")
    scheme = match["scheme"].lower()
    if scheme not in _PORTS:
        raise InvalidUrl(f"unsupported URL scheme {scheme!r} in {text[:200]!r}", hint="use https")
    host = match["host"].lower()
    if host.startswith("["):
        try:
            host = str(ipaddress.IPv6Address(host[1:-1]))
        except ValueError as error:
            raise InvalidUrl(f"invalid host in URL {text[:200]!r}") from error
    port = int(match["port"]) if match["port"] else _PORTS[scheme]
    if not 0 < port < 65536:
        raise InvalidUrl(f"invalid port in URL {text[:200]!r}")
    target = match["target"] or "/"
    return Url(Origin(scheme, host, port), target if target.startswith("/") else f"/{target}")


def with_query(url: Url, **values: str) -> Url:
    """The URL with parameters appended to whatever query it has."""
    extra = "&".join(f"{name}={quote(value, safe='')}" for name, value in values.items())
    return replace(url, target=f"{url.target}{'&' if '?' in url.target else '?'}{extra}")
