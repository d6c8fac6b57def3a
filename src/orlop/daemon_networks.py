"""Wiring of networks: the host's side, the service, the endpoints."""

from __future__ import annotations

import os

from orlop.aio.scope import Background
from orlop.base.clock import Clock
from orlop.daemon_flags import DEFAULT_DATA_ROOT, Settings
from orlop.engine.catalog import Catalog
from orlop.engine.connecting import Connections
from orlop.engine.default_network import DefaultPlace
from orlop.engine.endpoints import Endpoints
from orlop.engine.events import EventBus
from orlop.engine.networks import Networks
from orlop.engine.running import Hooks
from orlop.engine.services import Services
from orlop.network.host import HostNetworks
from orlop.store.db import Database

__all__ = ["add_hooks", "connections", "open_endpoints", "recover"]


def open_endpoints(
    settings: Settings,
    engine_id: str,
    db: Database,
    catalog: Catalog,
    events: EventBus,
    clock: Clock,
    background: Background,
) -> Endpoints:
    """Networks and endpoints; nothing is read yet."""
    usual = settings.data_root == DEFAULT_DATA_ROOT
    host = HostNetworks(
        DefaultPlace(settings.data_root, usual).table, has_firewall=settings.networks.has_firewall
    )
    networks = Networks(
        engine_id,
        os.stat(settings.data_root).st_ctime_ns,
        lambda: catalog,
        db=db,
        host=host,
        events=events,
        clock=clock,
        background=background,
        settings=settings.networks,
        place=DefaultPlace(settings.data_root, usual, host.addresses),
    )
    return Endpoints(networks, settings.exec_root)


def networks_of(services: Services) -> Networks:
    """Those of an engine, which always has some."""
    assert services.endpoints.networks is not None
    return services.endpoints.networks


def connections(services: Services) -> Connections:
    """Connect and disconnect."""
    return Connections(services, networks_of(services))


def add_hooks(hooks: Hooks, services: Services) -> None:
    """What follows an adoption and an end."""
    endpoints = services.endpoints
    hooks.on_adopt.append(endpoints.adopted)
    hooks.on_exit.append(endpoints.ended)
    hooks.on_exit.append(lambda _container: services.later(endpoints.drain(), "take ports back"))


async def recover(services: Services) -> None:
    """After containers are adopted: both sides of every endpoint agree, then the host is made to."""
    for container in services.catalog:
        if container.task is not None:
            await services.endpoints.settle(container, container.task)
    await networks_of(services).recover()
