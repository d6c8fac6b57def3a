"""Connections of the HTTP client: addresses are looked up, judged and tried in turn; TLS; proxies.

Through a proxy it is the proxy that looks names up. Its answer cannot be judged here, so only
numeric addresses are; what the proxy may reach is the proxy's policy.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import re
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from orlop.aio.proxy import Proxy
from orlop.aio.url import Origin
from orlop.base.errors import Kind, OrlopError

__all__ = ["AddressRefused", "ConnectFailed", "Dial", "IpAddress", "TlsFailed", "open_connection"]

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
P = TypeVar("P", bound=asyncio.BaseProtocol)

_FAST_FALLBACK_S = 3.0
_MAX_PROXY_ANSWER_BYTES = 16 << 10
_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})(?: ([ -~]{0,80}))?")


class ConnectFailed(OrlopError):
    """No connection: the name is unknown, nobody listens, or the network is down."""

    kind = Kind.UNAVAILABLE
    code = "connect-failed"


class TlsFailed(OrlopError):
    """The peer's certificate or protocol is not acceptable. Never retried in clear."""

    kind = Kind.UNAVAILABLE
    code = "tls-failed"


class AddressRefused(OrlopError):
    """The name resolves to an address that this request must not reach."""

    kind = Kind.FORBIDDEN
    code = "address-refused"


@dataclass(frozen=True, slots=True)
class Dial:
    """How to connect: the TLS context, which addresses may be reached, a proxy, or a unix socket.

    Compared by value; keep and reuse the context, it is part of the pool's key.
    """

    tls: ssl.SSLContext | None = None
    allows_address: Callable[[IpAddress], bool] | None = None
    unix_path: str | None = None
    proxy: Proxy | None = None


async def open_connection(
    make: Callable[[], P], origin: Origin, dial: Dial, peer: str, timeout_s: float
) -> P:
    """Connect to `origin` and return the protocol that `make` made.

    Raises:
        ConnectFailed, TlsFailed, AddressRefused.
    """
    loop = asyncio.get_running_loop()
    context = dial.tls if origin.scheme == "https" else None
    if origin.scheme == "https" and context is None:
        raise TlsFailed(f"no TLS settings for {origin}")
    try:
        async with asyncio.timeout(timeout_s):
            if dial.unix_path is not None:
                return (await loop.create_unix_connection(make, dial.unix_path))[1]
            sock = await _open_socket(origin, dial)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            name = origin.host if context is not None else None
            return (await loop.create_connection(make, sock=sock, ssl=context, server_hostname=name))[1]
    except TimeoutError:
        raise ConnectFailed(f"cannot connect to {peer}: timed out") from None
    except ssl.SSLError as error:  # before OSError, which it is
        raise TlsFailed(f"cannot connect to {peer}: {_tls_reason(error)}") from error
    except OSError as error:
        raise ConnectFailed(f"cannot connect to {peer}: {_reason(error)}") from error


async def _open_socket(origin: Origin, dial: Dial) -> socket.socket:
    if dial.proxy is None:
        return await _open_direct(origin, dial)
    literal = _literal(origin.host)
    if literal is not None and not _is_allowed(dial, str(literal)):
        raise _refused(origin.host, str(literal))
    try:
        sock = await _open_direct(dial.proxy.origin, Dial())
    except OSError as error:
        raise ConnectFailed(f"cannot connect to the proxy {dial.proxy.origin}: {_reason(error)}") from error
    if origin.scheme == "https":
        try:
            await _open_tunnel(sock, origin, dial.proxy)
        except BaseException:
            sock.close()
            raise
    return sock


async def _open_direct(origin: Origin, dial: Dial) -> socket.socket:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
    allowed = [info for info in found if _is_allowed(dial, str(info[4][0]))]
    if found and not allowed:
        raise _refused(origin.host, str(found[0][4][0]))
    failure: OSError = OSError(0, "no address")
    for index, (family, kind, protocol, _, address) in enumerate(allowed):
        sock = socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol)
        sock.setblocking(False)
        try:
            async with asyncio.timeout(_FAST_FALLBACK_S if index + 1 < len(allowed) else None):
                await loop.sock_connect(sock, address)
        except TimeoutError:
            sock.close()
            failure = OSError(110, os.strerror(110))
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failure


async def _open_tunnel(sock: socket.socket, origin: Origin, proxy: Proxy) -> None:
    """CONNECT; afterwards the socket is the target's. Spec: RFC 9110, 9.3.6."""
    loop = asyncio.get_running_loop()
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    fields = {"Host": f"{host}:{origin.port}", **proxy.headers}
    lines = [f"CONNECT {host}:{origin.port} HTTP/1.1", *(f"{n}: {v}" for n, v in fields.items()), "", ""]
    await loop.sock_sendall(sock, "\r\n".join(lines).encode("latin-1"))
    answer = b""
    while b"\r\n\r\n" not in answer:
        # nothing follows the head of a good answer before we have spoken: reading too far is impossible
        piece = await loop.sock_recv(sock, 4096)
        answer += piece
        if not piece or len(answer) > _MAX_PROXY_ANSWER_BYTES:
            raise ConnectFailed(f"cannot connect to {origin.authority}: the proxy {proxy.origin} hung up")
    match = _STATUS.match(answer)
    if match is None or not answer.endswith(b"\r\n\r\n") or not match[1].startswith(b"2"):
        said = (match[1] + b" " + (match[2] or b"")).decode().strip() if match else "nonsense"
        raise ConnectFailed(
            f"cannot connect to {origin.authority}: the proxy {proxy.origin} answers {said}",
            hint="see the proxy settings of the engine; no-proxy names what is reached directly",
        )


def _refused(host: str, address: str) -> AddressRefused:
    return AddressRefused(
        f"{host} is {address}, an address inside this network or machine",
        hint="a public registry must not send this engine to private addresses",
    )


def _literal(host: str) -> IpAddress | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _is_allowed(dial: Dial, address: str) -> bool:
    if dial.allows_address is None:
        return True
    parsed = ipaddress.ip_address(address.partition("%")[0])
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return dial.allows_address(mapped or parsed)


def _reason(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return "no such host" if error.errno == socket.EAI_NONAME else str(error.strerror).lower()
    return os.strerror(error.errno).lower() if error.errno else str(error)


def _tls_reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {error.verify_message}"
    return error.reason or str(error)
