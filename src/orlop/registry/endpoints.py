"""Which servers stand behind a registry name, and how strictly they are spoken to.

`docker.io` is registry-1.docker.io, after its configured mirrors (for pulls only). A registry
on the loopback network, or one the user lists as insecure by name, port or network, may have
an unverifiable certificate or speak plain HTTP; every other one must speak verified TLS, and a
TLS failure there is final. Certificates of a registry lie in `<dir>/<host:port>/`: `*.crt`
are authorities, `*.cert` with `*.key` are ours. Same rules and places as the Docker engine.
"""

from __future__ import annotations

import asyncio
import glob
import ipaddress
import os
import socket
import ssl
from dataclasses import dataclass, field

from orlop.aio.http_client import IpAddress, TlsFailed
from orlop.aio.url import Origin, Url, parse_url
from orlop.base.errors import InvalidInput

__all__ = ["HUB_ORIGIN", "Endpoint", "RegistryOptions", "TlsContexts", "endpoints_of"]

HUB_ORIGIN = Origin("https", "registry-1.docker.io", 443)
_HUB_DOMAIN = "docker.io"


@dataclass(frozen=True, slots=True)
class RegistryOptions:
    """What the user configures about registries.

    Args:
        mirrors: URLs asked before Docker Hub, in order; for pulls, without credentials.
        insecure: `host`, `host:port` or networks such as `10.0.0.0/8`.
        certificate_dirs: searched in order for a folder named like the registry.
    """

    mirrors: tuple[str, ...] = ()
    insecure: tuple[str, ...] = ()
    certificate_dirs: tuple[str, ...] = ("/etc/docker/certs.d",)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One base URL of a registry's API; `prefix` comes before `/v2/`."""

    origin: Origin
    domain: str
    prefix: str = ""
    is_mirror: bool = False
    is_insecure: bool = False

    def url(self, path: str) -> Url:
        """The URL of an API path that begins with `/v2/`."""
        return Url(self.origin, self.prefix + path)


@dataclass(slots=True)
class TlsContexts:
    """Makes and keeps TLS contexts: one per set of certificates, verified unless said otherwise."""

    options: RegistryOptions
    _made: dict[tuple[str, bool], ssl.SSLContext] = field(default_factory=dict)

    def of(self, origin: Origin, *, verify: bool = True) -> ssl.SSLContext | None:
        """The context for an origin; None for plain HTTP. Blocks shortly on first use.

        Raises:
            TlsFailed: a configured certificate cannot be read.
        """
        if origin.scheme != "https":
            return None
        folder = self._folder(origin)
        key = (folder, verify)
        if key not in self._made:
            self._made[key] = _make_context(folder, verify=verify)
        return self._made[key]

    def _folder(self, origin: Origin) -> str:
        names = {origin.authority, f"{origin.host}:{origin.port}"}
        if origin == HUB_ORIGIN:
            names.add(_HUB_DOMAIN)
        for base in self.options.certificate_dirs:
            for name in sorted(names):
                path = os.path.join(base, name)
                if "/" not in name and os.path.isdir(path):
                    return path
        return ""


async def endpoints_of(domain: str, options: RegistryOptions, *, for_push: bool) -> list[Endpoint]:
    """The servers to try, in order.

    Raises:
        InvalidInput: a mirror is not a URL, or an insecure network is malformed.
    """
    if domain == _HUB_DOMAIN:
        mirrors = [] if for_push else [await _mirror(text, options) for text in options.mirrors]
        return [*mirrors, Endpoint(HUB_ORIGIN, domain)]
    secure = parse_url(f"https://{domain}").origin
    if not await _is_insecure(secure, domain, options):
        return [Endpoint(secure, domain)]
    plain = parse_url(f"http://{domain}").origin
    return [Endpoint(secure, domain, is_insecure=True), Endpoint(plain, domain, is_insecure=True)]


async def _mirror(text: str, options: RegistryOptions) -> Endpoint:
    url = parse_url(text if "://" in text else f"https://{text}")
    if "?" in url.target:
        raise InvalidInput(f"invalid mirror {text!r}: a query is not allowed")
    insecure = await _is_insecure(url.origin, url.origin.authority, options)
    return Endpoint(
        url.origin, _HUB_DOMAIN, prefix=url.target.rstrip("/"), is_mirror=True, is_insecure=insecure
    )


async def _is_insecure(origin: Origin, domain: str, options: RegistryOptions) -> bool:
    names = {domain.lower(), origin.host, f"{origin.host}:{origin.port}"}
    literal = _literal(origin.host)
    if literal is not None and literal.is_loopback:
        return True
    networks = []
    for entry in options.insecure:
        if "/" not in entry:
            if entry.lower() in names:
                return True
            continue
        try:
            networks.append(ipaddress.ip_network(entry, strict=False))
        except ValueError as error:
            raise InvalidInput(f"invalid insecure registry {entry!r}: {error}") from error
    if not networks:
        return False
    addresses = [literal] if literal is not None else await _lookup(origin.host)
    return any(a.version == n.version and a in n for a in addresses for n in networks)


def _literal(host: str) -> IpAddress | None:
    if host == "localhost":
        return ipaddress.IPv4Address("127.0.0.1")
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None  # a public name that happens to resolve to 127.0.0.1 earns no trust by that


async def _lookup(host: str) -> list[IpAddress]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return [ipaddress.ip_address(str(info[4][0]).partition("%")[0]) for info in found]


def _make_context(folder: str, *, verify: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    try:
        for path in sorted(glob.glob(os.path.join(glob.escape(folder), "*.crt"))) if folder else ():
            context.load_verify_locations(path)
        for path in sorted(glob.glob(os.path.join(glob.escape(folder), "*.cert"))) if folder else ():
            context.load_cert_chain(path, path.removesuffix(".cert") + ".key")
    except (OSError, ssl.SSLError) as error:
        raise TlsFailed(
            f'cannot use the certificates in "{folder}": {error}',
            hint="*.crt are PEM authorities; every *.cert needs a *.key beside it",
        ) from error
    return context
