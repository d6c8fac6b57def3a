"""HTTP proxies: which requests go through one, as Go's programs (dockerd among them) decide it.

NO_PROXY is a list of names (`example.com`: it and what is below it; `.example.com`: only what is
below), addresses and networks, each with an optional port; `*` is everything. The machine itself
(`localhost`, loopback addresses) is always reached directly. A proxy's password is a secret: it is
in no repr and no message.
"""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote

from orlop.aio.url import InvalidUrl, Origin, parse_url

__all__ = ["NO_PROXIES", "Proxy", "ProxyRules", "masked_proxy", "parse_proxy"]


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy that speaks plain HTTP."""

    origin: Origin
    authorization: str = field(default="", repr=False)

    @property
    def headers(self) -> Mapping[str, str]:
        """What a request to the proxy carries besides its own fields."""
        return {"Proxy-Authorization": self.authorization} if self.authorization else {}


@dataclass(frozen=True, slots=True)
class ProxyRules:
    """The three settings, parsed."""

    http: Proxy | None = None
    https: Proxy | None = None
    exceptions: tuple[str, ...] = ()

    @staticmethod
    def parse(http: str, https: str, no_proxy: str) -> ProxyRules:
        """From the texts of HTTP_PROXY, HTTPS_PROXY and NO_PROXY; empty ones say nothing.

        Raises:
            InvalidUrl: a proxy's address is none, or of a scheme that we do not speak to proxies.
        """
        words = tuple(word.strip().lower() for word in no_proxy.split(",") if word.strip())
        return ProxyRules(parse_proxy(http) if http else None, parse_proxy(https) if https else None, words)

    def find(self, target: Origin) -> Proxy | None:
        """The proxy for requests to `target`; None: directly."""
        proxy = self.https if target.scheme == "https" else self.http
        if proxy is None or _is_here(target.host):
            return None
        return None if any(_matches(word, target) for word in self.exceptions) else proxy


NO_PROXIES = ProxyRules()


def parse_proxy(text: str) -> Proxy:
    """`http://[user:password@]host:port`, the scheme may be left out.

    Raises:
        InvalidUrl: as `ProxyRules.parse`; the message has no password.
    """
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "http", text
    if scheme.lower() != "http":
        raise InvalidUrl(
            f"unsupported proxy scheme {scheme[:20]!r}", hint="an HTTP proxy is wanted: http://host:port"
        )
    user, at, authority = rest.rpartition("@")
    try:
        url = parse_url(f"http://{authority}")
    except InvalidUrl:
        raise InvalidUrl(f"invalid proxy URL {masked_proxy(text)[:200]!r}") from None
    value = ""
    if at:
        pair = ":".join(unquote(part) for part in user.partition(":")[::2])
        value = "Basic " + base64.b64encode(pair.encode()).decode("ascii")
    return Proxy(url.origin, value)


def masked_proxy(text: str) -> str:
    """The proxy's address as it may be shown: dockerd masks user and password the same way."""
    scheme, separator, rest = text.rpartition("://")
    _, at, authority = rest.rpartition("@")
    return f"{scheme}{separator}xxxxx:xxxxx@{authority}" if at else text


def _is_here(host: str) -> bool:
    address = _address(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _matches(word: str, target: Origin) -> bool:
    if word == "*":
        return True
    if "/" in word:
        address = _address(target.host)
        try:
            network = ipaddress.ip_network(word, strict=False)
        except ValueError:
            return False
        return address is not None and address.version == network.version and address in network
    name, port = _split_port(word)
    if port and port != str(target.port):
        return False
    if _address(name) is not None:
        return _address(name) == _address(target.host)
    suffix = name.removeprefix("*")
    if suffix.startswith("."):
        return target.host.endswith(suffix)
    return target.host == suffix or target.host.endswith(f".{suffix}")


def _split_port(word: str) -> tuple[str, str]:
    """`host`, `host:port`, `::1`, `[::1]:port`."""
    if word.startswith("["):
        name, _, rest = word[1:].partition("]")
        return name, rest.removeprefix(":")
    if word.count(":") == 1:
        name, _, port = word.partition(":")
        return name, port
    return word, ""
