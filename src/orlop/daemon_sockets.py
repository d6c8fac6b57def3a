"""What listens on the sockets that containers have: a server for each, with the routes of its role."""

from __future__ import annotations

import os

from orlop.aio.http_server import HttpServer, Limits, listen_unix
from orlop.api.app import App, build_routes
from orlop.api.roles import role_routes
from orlop.engine.apisockets import ApiSockets
from orlop.engine.engine import Engine

__all__ = ["RoleServers"]

_LIMITS = Limits(max_connections=64)  # a container shall not take what all clients share
_MODE = 0o666  # only this container has the directory; which of its users may ask is its own business


class RoleServers:
    """The servers of all containers that have a socket."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._servers: dict[str, HttpServer] = {}

    def serve(self, sockets: ApiSockets) -> None:
        """Be what listens there."""
        sockets.listen, sockets.close = self.listen, self.close

    async def listen(self, container_id: str, role: str, path: str) -> None:
        """Serve a role at a path; a server that is there already is replaced.

        Raises:
            CannotListen: the kernel refuses.
        """
        await self.close(container_id)
        app = App(self._engine, role_routes(build_routes(), role, container_id))
        server = HttpServer(app.handle, limits=_LIMITS)
        listener = listen_unix(path)
        os.chmod(path, _MODE)
        self._servers[container_id] = server
        await server.start(listener)

    async def close(self, container_id: str) -> None:
        """Stop to serve a container."""
        server = self._servers.pop(container_id, None)
        if server is not None:
            await server.close(grace_s=0.0)

    async def aclose(self) -> None:
        """Stop to serve all."""
        for container_id in tuple(self._servers):
            await self.close(container_id)
