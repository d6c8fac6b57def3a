"""Which servers stand behind a registry name, and how strictly they are spoken to.

`docker.io` is registry-1.docker.io. Any registry may have servers of its own: a `hosts.toml` in
its folder below one of the configuration directories (see `hostsfile`), else, for docker.io and
pulls, the configured mirrors. A registry on the loopback network, or one the user lists as
insecure by name, port or network, may have an unverifiable certificate or speak plain HTTP; every
other one must speak verified TLS, and a TLS failure there is final. The user's credentials go to
the registry's own host and port and to no other server, whoever configured it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from orlop.aio.http_client import IpAddress
from orlop.aio.proxy import NO_PROXIES, ProxyRules
from orlop.aio.url import Origin, Url, parse_url, with_query
from orlop.base.errors import InvalidInput, Kind, OrlopError
from orlop.registry.certificates import NO_FILES, TlsFiles, folder_files
from orlop.registry.hostsfile import (
    ALL_CAPABILITIES,
    HostEntry,
    HostsFile,
    InvalidHostsFile,
    parse_hosts_file,
)

__all__ = [
    "DEFAULT_CONFIG_DIRS",
    "HUB_ORIGIN",
    "Endpoint",
    "RegistryBlocked",
    "RegistryOptions",
    "certificates_of",
    "endpoints_of",
    "index_endpoint",
]

HUB_ORIGIN = Origin("https", "registry-1.docker.io", 443)
DEFAULT_CONFIG_DIRS = ("/etc/orlop/hosts.d", "/etc/docker/certs.d")
_HUB_DOMAIN = "docker.io"
_ANY_REGISTRY = "_default"
_MAX_HOSTS_FILE_BYTES = 1 << 20


class RegistryBlocked(OrlopError):
    """The engine's administrator does not allow this registry."""

    kind = Kind.FORBIDDEN
    code = "registry-blocked"


@dataclass(frozen=True, slots=True)
class RegistryOptions:
    """What the user configures about registries.

    Args:
        mirrors: URLs asked before Docker Hub, in order; for pulls, without credentials.
        insecure: `host`, `host:port` or networks such as `10.0.0.0/8`.
        config_dirs: searched in order for a folder named like the registry.
        blocked: `host[:port]` or `*.domain`, never spoken to.
        proxies: for everything that leaves the machine.
        search_index: URL of the server that searches ask.
    """

    mirrors: tuple[str, ...] = ()
    insecure: tuple[str, ...] = ()
    config_dirs: tuple[str, ...] = DEFAULT_CONFIG_DIRS
    blocked: tuple[str, ...] = ()
    proxies: ProxyRules = NO_PROXIES
    search_index: str = "https://index.docker.io"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One base URL of a registry's API; `prefix` comes before `/v2/`, or in its place."""

    origin: Origin
    domain: str
    prefix: str = ""
    is_mirror: bool = False  # another one is asked when it fails
    is_last: bool = False  # unless this is said
    is_insecure: bool = False
    is_own: bool = False  # a mirror entry that is the registry itself
    skip_verify: bool = False
    overrides_path: bool = False
    capabilities: frozenset[str] = ALL_CAPABILITIES
    files: TlsFiles = NO_FILES
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    namespace: str = ""  # told to mirrors that serve several registries

    @property
    def gets_credentials(self) -> bool:
        """True for the host and port that the user's credentials were given for."""
        return not self.is_mirror or self.is_own

    def url(self, path: str) -> Url:
        """The URL of an API path that begins with `/v2/`."""
        rest = path.removeprefix("/v2") if self.overrides_path else path
        url = Url(self.origin, self.prefix + rest)
        return with_query(url, ns=self.namespace) if self.namespace else url


async def endpoints_of(domain: str, options: RegistryOptions, *, for_push: bool) -> list[Endpoint]:
    """The servers to try, in order. Reads the registry's hosts.toml, which is small, each time.

    Raises:
        RegistryBlocked: the registry is not allowed.
        InvalidInput: a mirror is not a URL, an insecure network or a hosts.toml is malformed.
    """
    if any(_is_named(domain, entry.lower()) for entry in options.blocked):
        raise RegistryBlocked(
            f"registry {domain} is blocked by the configuration of this engine",
            hint="see blocked-registries in its daemon.json; a name without a registry is docker.io's",
        )
    need = {"push"} if for_push else {"pull", "resolve"}
    found = _find_hosts_file(domain, options)
    if found is None:
        mirrors = options.mirrors if domain == _HUB_DOMAIN and not for_push else ()
        return [*[await _mirror(text, options) for text in mirrors], *await _own(domain, options)]
    own = await _own(domain, options)
    entries = [*found.hosts, *([found.server] if found.server else [])]
    chosen = [await _entry_endpoint(entry, domain, options, for_push=for_push) for entry in entries]
    if found.server is None:
        chosen += own
    usable = [endpoint for endpoint in chosen if endpoint.capabilities & need]
    if not usable:
        raise InvalidHostsFile(
            f"no server of registry {domain} may be {'pushed to' if for_push else 'pulled from'}",
            hint="see the capabilities in its hosts.toml",
        )
    each = {(endpoint.origin, endpoint.prefix): endpoint for endpoint in reversed(usable)}
    last, *others = each.values()
    return [*reversed(others), replace(last, is_last=True)]


async def index_endpoint(options: RegistryOptions) -> Endpoint:
    """The server that searches of docker.io ask.

    Raises:
        InvalidInput: the configured one is not a URL.
    """
    url = parse_url(options.search_index)
    return Endpoint(
        url.origin,
        _HUB_DOMAIN,
        prefix=url.target.rstrip("/").removesuffix("/v1"),
        is_insecure=await _is_insecure(url.origin, url.origin.authority, options),
        files=certificates_of(url.origin, options),
    )


def certificates_of(origin: Origin, options: RegistryOptions) -> TlsFiles:
    """The certificate files in the folder of a server."""
    names = {origin.authority, f"{origin.host}:{origin.port}"}
    if origin == HUB_ORIGIN:
        names.add(_HUB_DOMAIN)
    for folder in _folders(sorted(names), options):
        return folder_files(folder)
    return NO_FILES


def _folders(names: list[str], options: RegistryOptions) -> Iterator[str]:
    for base in options.config_dirs:
        for name in names:
            path = os.path.join(base, name)
            # a host may be called ".."
            if "/" not in name and not name.startswith(".") and os.path.isdir(path):
                yield path


def _find_hosts_file(domain: str, options: RegistryOptions) -> HostsFile | None:
    host, colon, port = domain.rpartition(":")
    # containerd writes host_port_ where a colon cannot be in a file's name
    names = [domain, f"{host}_{port}_"] if colon and port.isdecimal() else [domain]
    for folder in _folders([*names, _ANY_REGISTRY], options):
        path = os.path.join(folder, "hosts.toml")
        try:
            with open(path, "rb") as file:
                data = file.read(_MAX_HOSTS_FILE_BYTES)
            return parse_hosts_file(data.decode(), path)
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidHostsFile(f"cannot read {path}: {error}") from error
    return None


async def _own(domain: str, options: RegistryOptions) -> list[Endpoint]:
    """The registry itself."""
    if domain == _HUB_DOMAIN:
        return [Endpoint(HUB_ORIGIN, domain, files=certificates_of(HUB_ORIGIN, options))]
    secure = parse_url(f"https://{domain}").origin
    files = certificates_of(secure, options)
    if not await _is_insecure(secure, domain, options):
        return [Endpoint(secure, domain, files=files)]
    plain = parse_url(f"http://{domain}").origin
    return [
        Endpoint(secure, domain, is_insecure=True, files=files),
        Endpoint(plain, domain, is_insecure=True),
    ]


async def _entry_endpoint(
    entry: HostEntry, domain: str, options: RegistryOptions, *, for_push: bool
) -> Endpoint:
    origin = entry.url.origin
    if origin.host == _HUB_DOMAIN:
        origin = HUB_ORIGIN
    if domain == _HUB_DOMAIN:
        own = {HUB_ORIGIN}
    else:
        own = {parse_url(f"{scheme}://{domain}").origin for scheme in ("https", "http")}
    prefix = entry.url.target.rstrip("/")
    files = TlsFiles(entry.authorities, entry.client_pairs)
    is_own = origin in own
    return Endpoint(
        origin,
        domain,
        prefix=prefix if entry.overrides_path else prefix.removesuffix("/v2"),
        is_mirror=True,
        is_insecure=await _is_insecure(origin, origin.authority, options),
        is_own=is_own,
        skip_verify=entry.skip_verify,
        overrides_path=entry.overrides_path,
        capabilities=entry.capabilities,
        files=certificates_of(origin, options) if files == NO_FILES else files,
        headers=entry.headers,
        namespace="" if is_own or for_push else domain,
    )


async def _mirror(text: str, options: RegistryOptions) -> Endpoint:
    url = parse_url(text if "://" in text else f"https://{text}")
    if "?" in url.target:
        raise InvalidInput(f"invalid mirror {text!r}: a query is not allowed")
    return Endpoint(
        url.origin,
        _HUB_DOMAIN,
        prefix=url.target.rstrip("/"),
        is_mirror=True,
        is_insecure=await _is_insecure(url.origin, url.origin.authority, options),
        files=certificates_of(url.origin, options),
    )


def _is_named(domain: str, entry: str) -> bool:
    name = domain.lower()
    return (
        name == entry
        or (entry.startswith("*.") and name.rpartition(":")[0].endswith(entry[1:]))
        or (entry.startswith("*.") and name.endswith(entry[1:]))
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
