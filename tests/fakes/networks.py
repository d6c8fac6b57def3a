"""Networks without a kernel: a host that remembers what it was told."""

import asyncio

from orlop.aio.scope import Background
from orlop.base.clock import ManualClock
from orlop.engine.default_network import DefaultPlace
from orlop.engine.endpoints import Endpoints
from orlop.engine.events import EventBus
from orlop.engine.network_settings import NetworkSettings
from orlop.engine.networks import Networks
from orlop.network.host import BridgeFailed, PortTaken


class FakeHost:
    """Bridges and ports as sets; `fails` makes the next bridge fail."""

    def __init__(self):
        self.bridges = {}
        self.ports = set()
        self.foreign = []
        self.interfaces = set()
        self.fails = False
        self.has_rules = False

    def reconcile(self, bridges, ports, known):
        if self.fails:
            raise BridgeFailed("no")
        self.bridges = {bridge.bridge: bridge for bridge in bridges}
        self.ports = set(ports)
        self.has_rules = True

    def add_bridge(self, bridge):
        if self.fails:
            raise BridgeFailed("no")
        self.bridges[bridge.bridge] = bridge

    def remove_bridge(self, bridge):
        self.bridges.pop(bridge.bridge, None)

    def publish(self, ports):
        if self.ports & set(ports):
            raise PortTaken("taken")
        self.ports |= set(ports)

    def retract(self, ports):
        self.ports -= set(ports)

    def is_installed(self):
        return self.has_rules

    def has_interface(self, name):
        return name in self.interfaces

    def foreign_networks(self, own):
        return self.foreign


class FakeDb:
    """Keeps nothing."""

    async def read(self, work):
        return []

    async def write(self, work, *, frees_space=False):
        await asyncio.sleep(0)


def make_networks(users=list, *, engine_id="engine", created_ns=0, db=None, **given):
    """The service on a `FakeHost`; `none` is the default network unless `settings` says else."""
    parts = {
        "host": FakeHost(),
        "events": EventBus(ManualClock()),
        "clock": ManualClock(),
        "background": Background("test"),
        "settings": NetworkSettings(bridge="none"),
        "place": DefaultPlace("/data", is_usual=True),
    }
    return Networks(engine_id, created_ns, users, db=db or FakeDb(), **(parts | given))


async def join_networks(made, **settings):
    """Give a plant of `fakes.containers` networks with a default bridge; the service."""
    networks = make_networks(
        lambda: made.catalog,
        db=made.db,
        events=made.events,
        clock=made.clock,
        background=made.background,
        settings=NetworkSettings(**settings),
    )
    endpoints = Endpoints(networks, made.services.exec_root)
    object.__setattr__(made.services, "endpoints", endpoints)
    made.runner._hooks.on_exit.append(endpoints.ended)
    made.runner._hooks.on_adopt.append(endpoints.adopted)
    await networks.load()
    if networks.settings.has_bridge:
        async with networks.lock:
            await networks.need_host()
    return networks
