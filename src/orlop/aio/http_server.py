"""The HTTP/1.1 server: listening sockets in, requests to one handler, answers out.

Decision record: docs/decisions/0001-http-stack.md. The protocol of a connection is in
`http_protocol`, its byte syntax in `wire.http1`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import stat
from collections.abc import Callable
from dataclasses import dataclass

from orlop.aio.http_messages import Handler
from orlop.aio.http_protocol import HttpConnection
from orlop.aio.scope import Background
from orlop.aio.tls import TlsLayer
from orlop.base.errors import Kind, OrlopError, describe_os_error

__all__ = ["CannotListen", "HttpServer", "Limits", "listen_tcp", "listen_unix"]

BACKLOG = 1024
SOCKET_MODE = 0o660

OnHttp2 = Callable[[asyncio.Transport, bytes], None]


class CannotListen(OrlopError):
    """A listening socket cannot be made."""

    kind = Kind.CONFLICT
    code = "cannot-listen"


@dataclass(frozen=True, slots=True)
class Limits:
    """Budgets of one server. A whole head must arrive within `head_timeout_s` of its first byte."""

    head_timeout_s: float = 30.0
    idle_timeout_s: float = 300.0
    max_connections: int = 16_384


class HttpServer:
    """Serves `handler` on any number of sockets until `close`.

    Args:
        handler: answers one request; cancelled when its client goes away.
        limits: budgets.
        on_http2: given the transport and all bytes received so far (the preface included) when a
            client speaks HTTP/2 with prior knowledge; it must call `set_protocol`. None refuses them.
    """

    def __init__(
        self, handler: Handler, *, limits: Limits | None = None, on_http2: OnHttp2 | None = None
    ) -> None:
        self.handler = handler
        self.limits = limits or Limits()
        self.on_http2 = on_http2
        self.background = Background("http")
        self.is_closing = False
        self._connections: set[HttpConnection] = set()
        self._servers: list[asyncio.Server] = []

    async def start(self, listener: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """Accept connections on a bound, listening socket; the server owns it from now on."""
        loop = asyncio.get_running_loop()
        listener.setblocking(False)
        connect: Callable[[], asyncio.Protocol] = self._connect
        if tls is not None:
            context, handshakes = tls, set[TlsLayer]()

            def connect() -> asyncio.Protocol:
                return TlsLayer(context, self._connect, handshakes)

        if listener.family == socket.AF_UNIX:
            server = await loop.create_unix_server(connect, sock=listener, backlog=BACKLOG)
        else:
            server = await loop.create_server(connect, sock=listener, backlog=BACKLOG)
        self._servers.append(server)

    async def close(self, grace_s: float = 5.0) -> None:
        """Stop accepting, let requests in flight end for `grace_s`, then cancel the rest."""
        self.is_closing = True
        for server in self._servers:
            server.close()
        for connection in list(self._connections):
            connection.close_idle()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                while len(self.background):  # noqa: ASYNC110 - once per shutdown
                    await asyncio.sleep(0.01)
        await self.background.close()

    @property
    def connection_count(self) -> int:
        """Open connections, hijacked ones not counted."""
        return len(self._connections)

    def add(self, connection: HttpConnection) -> bool:
        """Register a new connection; False when there are too many."""
        if len(self._connections) >= self.limits.max_connections or self.is_closing:
            return False
        self._connections.add(connection)
        return True

    def discard(self, connection: HttpConnection) -> None:
        """Forget a closed connection."""
        self._connections.discard(connection)

    def _connect(self) -> HttpConnection:
        return HttpConnection(self)


def listen_unix(path: str, *, gid: int | None = None) -> socket.socket:
    """A listening unix socket at `path`, mode 0660, replacing a dead one.

    Raises:
        CannotListen: somebody answers there, something else stands there, or the kernel refuses.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_dead(path)
        # bound with no permission at all and opened afterwards: no moment with a wider mode
        previous = os.umask(0o777)
        try:
            sock.bind(path)
        finally:
            os.umask(previous)
        os.chown(path, -1, -1 if gid is None else gid)
        os.chmod(path, SOCKET_MODE)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise CannotListen(f'cannot listen on "unix://{path}": {describe_os_error(error)}') from error
    except CannotListen:
        sock.close()
        raise
    return sock


def listen_tcp(host: str, port: int) -> socket.socket:
    """A listening TCP socket.

    Raises:
        CannotListen: the address is in use or not ours.
    """
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise CannotListen(f'cannot listen on "tcp://{host}:{port}": {describe_os_error(error)}') from error
    return sock


def _remove_dead(path: str) -> None:
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise CannotListen(f'cannot listen on "unix://{path}": the path exists and is no socket')
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            return
        except OSError:
            return  # let bind report it
    raise CannotListen(f'cannot listen on "unix://{path}": another engine answers there')
