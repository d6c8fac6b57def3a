"""`--metrics-addr`: a server of its own that answers `GET /metrics` and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from orlop.aio.http_messages import AnyResponse, Response, ServerRequest
from orlop.aio.http_server import HttpServer, Limits, listen_tcp
from orlop.api.guard import Forbidden, check_origin
from orlop.base import log
from orlop.base.version import VERSION
from orlop.engine.hostfacts import HostFacts
from orlop.engine.meters import Meters
from orlop.engine.services import Services
from orlop.engine.telemetry import Telemetry, is_loopback, split_metrics_address
from orlop.wire.promtext import CONTENT_TYPE

__all__ = ["Facts", "MetricsServer"]

_LIMITS = Limits(max_connections=64, idle_timeout_s=120.0)
_TEXT = (("Content-Type", "text/plain; charset=utf-8"),)


@dataclass(frozen=True, slots=True)
class Facts:
    """See `telemetry.EngineFacts`."""

    info: dict[str, str]
    cpu_count: int
    memory_bytes: int

    @classmethod
    def of(cls, host: HostFacts, engine_id: str) -> Facts:
        """With the labels that dockerd gives."""
        info = {
            "architecture": host.machine,
            "commit": "",
            "daemon_id": engine_id,
            "graphdriver": "erofs",
            "kernel": host.kernel_version,
            "os": host.operating_system,
            "os_type": "linux",
            "os_version": host.os_version,
            "version": VERSION,
        }
        return cls(info, host.cpu_count, host.memory_bytes)


class MetricsServer:
    """Made only when metrics are asked for; `meters` is what the rest of the engine counts with."""

    def __init__(self, address: str) -> None:
        self.meters = Meters()
        self._host, self._port = split_metrics_address(address)
        self._telemetry: Telemetry | None = None
        self._server = HttpServer(self.handle, limits=_LIMITS)

    def observe(self, services: Services, facts: Facts) -> None:
        """Show this engine's numbers."""
        catalog, events = services.catalog, services.events
        self._telemetry = Telemetry(catalog, events, self.meters, facts, services.clock)
        events.on_publish = self.meters.published

    async def start(self) -> None:
        """Listen.

        Raises:
            CannotListen: the kernel refuses.
        """
        listener = listen_tcp(self._host, self._port)
        log.info("metrics are served", address="{}:{}".format(*listener.getsockname()[:2]))
        await self._server.start(listener)
        if not is_loopback(self._host):
            log.warning(
                "metrics are served without TLS or password to whoever reaches the address",
                address=f"{self._host}:{self._port}",
            )

    async def aclose(self) -> None:
        """Stop to listen."""
        await self._server.close(grace_s=0.0)

    async def handle(self, request: ServerRequest) -> AnyResponse:
        """Answer one request."""
        if is_loopback(self._host):  # a page in a browser on this machine shall not read them
            try:
                check_origin(request.headers, request.peer)
            except Forbidden as error:
                return Response(403, f"{error}\n".encode(), _TEXT)
        if request.target.partition("?")[0] != "/metrics":
            return Response(404, b"404 page not found\n", _TEXT)
        if request.method not in ("GET", "HEAD"):
            return Response(405, b"method not allowed\n", (*_TEXT, ("Allow", "GET, HEAD")))
        assert self._telemetry is not None, "observe() comes before start()"
        return Response(200, await self._telemetry.document(), (("Content-Type", CONTENT_TYPE),))
