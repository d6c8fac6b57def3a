"""An engine with only what the framework's own tests need, and a door to it."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

from fakes.networks import make_networks
from orlop.aio.http_messages import MemoryBody, Peer, Response, ServerRequest, StreamResponse
from orlop.aio.http_server import HttpServer, listen_unix
from orlop.api.app import App
from orlop.base.clock import ManualClock
from orlop.engine.events import EventBus
from orlop.engine.filters import Filters
from orlop.engine.hostfacts import HostFacts
from orlop.engine.system import ContainerCounts, System, SystemSettings, SystemSources
from orlop.engine.views import VolumeList
from orlop.kernel.cgroup_support import Support

FACTS = HostFacts(
    hostname="vm", kernel_version="6.18", machine="x86_64", architecture="amd64", operating_system="Debian",
    os_version="12", cpu_count=2, memory_bytes=1 << 30, cgroup_version=2, support=Support(),
    has_seccomp=True,
)  # fmt: skip


class NoVolumes:
    def list(self, filters: Filters) -> VolumeList:
        return VolumeList(())


class ToyEngine:
    """`system`, `events` and `networks` are the real ones."""

    def __init__(self) -> None:
        async def three() -> int:
            return 3

        async def login(auth) -> str:
            return f"token-of-{auth.username}"

        self.events = EventBus(ManualClock())
        settings = SystemSettings(
            engine_id="toy-id", data_root="/data", api_version="1.51", min_api_version="1.24"
        )
        sources = SystemSources(lambda: ContainerCounts(1, 2, 3), three, login=login)
        self.system = System(
            facts=FACTS, settings=settings, sources=sources, events=self.events, clock=ManualClock()
        )
        self.networks = make_networks(engine_id="toy-id")
        self.volumes = NoVolumes()


def call(app: App, method: str, target: str, body: bytes = b"", *, headers=None, peer=None):
    """One request without sockets: (status, headers, parsed or raw body)."""

    async def run():
        request = ServerRequest(method, target, headers or {}, MemoryBody(body), peer or Peer("unix"))
        response = await app.handle(request)
        data = b""
        if isinstance(response, StreamResponse):
            async for chunk in response.chunks:
                data += chunk
        elif isinstance(response, Response):
            data = response.body
        return response, data

    response, data = asyncio.run(run())
    fields = dict(response.headers)
    is_json = fields.get("Content-Type") == "application/json" and data.count(b"\n") <= 1
    return response.status, fields, json.loads(data) if is_json and data else data


@asynccontextmanager
async def door(path: str, engine: ToyEngine):
    """The engine behind a real socket."""
    server = HttpServer(App(engine).handle)
    await server.start(listen_unix(path))
    try:
        yield server
    finally:
        await server.close(0.1)
