"""Connect a container to a network and disconnect it, while it runs or before.

A running container: endpoint allocated -> supervisor makes it -> `network.json` -> row -> event. Back: row ->
`network.json` -> supervisor -> event. So a crash leaves an endpoint that the row or the file does
not have, and `Endpoints.settle` takes it away.
"""

from __future__ import annotations

from dataclasses import replace

from orlop.base import failpoints
from orlop.base.errors import InvalidInput, NotFound
from orlop.engine.endpoints import Endpoints
from orlop.engine.lifecycle import NotPossible, Status
from orlop.engine.model import Container
from orlop.engine.network_checks import NetworkForbidden
from orlop.engine.network_model import (
    NOTHING,
    ConnectRequest,
    DisconnectRequest,
    LiveNetwork,
    NetworkRecord,
)
from orlop.engine.network_wishes import checked_wish, is_bridged, networks_of, with_networks
from orlop.engine.networks import Networks, NoSuchNetwork
from orlop.engine.requests import EndpointSettings
from orlop.engine.services import Services
from orlop.engine.starting import name_server_of
from orlop.runtime.contract import Task

__all__ = ["Connections"]


class Connections:
    """Connect and disconnect."""

    def __init__(self, services: Services, networks: Networks) -> None:
        self._services = services
        self._networks = networks

    @property
    def _endpoints(self) -> Endpoints:
        return self._services.endpoints

    async def connect(self, reference: str, request: ConnectRequest) -> None:
        """Join a network.

        Raises:
            NoSuchNetwork, NoSuchContainer, NetworkForbidden, InvalidInput, ...: with dockerd's texts.
        """
        network = self._networks.find(reference)
        container = self._services.catalog.get(request.container)
        settings = request.endpoint_config or EndpointSettings()
        await self._services.finish(self._connect(network.name, container, settings))

    async def disconnect(self, reference: str, request: DisconnectRequest) -> None:
        """Leave a network; forced, a container that is gone has left already."""
        network = self._networks.find(reference)
        try:
            container = self._services.catalog.get(request.container)
        except NotFound:
            if request.force:
                return
            raise
        await self._services.finish(self._disconnect(network.name, container))

    async def _connect(self, name: str, container: Container, settings: EndpointSettings) -> None:
        async with container.lock:
            _check_mode(container, name)
            network = self._named(name)
            settings = checked_wish(name, settings)
            wishes = networks_of(container.record)
            wishes[name] = settings
            if container.task is None:
                await self._services.catalog.update(container, with_networks(container.record, wishes))
            else:
                if (container.network or NOTHING).on(network.id) is not None:
                    raise NetworkForbidden(
                        f"endpoint with name {container.name} already exists in network {name}"
                    )
                await self._attach(network, container, settings, wishes)
                await self._serve_names(container)
        self._networks.emit(network, "connect", container=container.id)

    async def _serve_names(self, container: Container) -> None:
        """Aliases are known now; the container's name server looks into the networks that it has."""
        self._endpoints.rename(container.network)
        spec = name_server_of(self._services, container)
        if spec is not None and container.task is not None:
            await container.task.serve_names(spec)

    async def _attach(
        self,
        network: NetworkRecord,
        container: Container,
        settings: EndpointSettings,
        wishes: dict[str, EndpointSettings],
    ) -> None:
        task = container.task
        assert task is not None
        async with self._networks.lock:
            await self._networks.need_host()
            before = container.network or NOTHING
            live = self._endpoints.allocate([(network, settings)], before)
            added = live.endpoints[-1]
            container.network = live
            try:
                await task.attach_endpoint(added.spec)
                failpoints.hit("network.connect.attached")
                if added.spec.gateways:
                    live = await self._endpoints.move_ports(container, live)
                _check_runs(container, task)
                self._endpoints.keep(container, live)
                failpoints.hit("network.connect.before-row")
                await self._services.catalog.update(container, with_networks(container.record, wishes))
            except BaseException:
                if container.task is task:
                    self._endpoints.keep(container, before)
                    await task.detach_endpoint(added.spec.id)
                self._endpoints.drop([port for port in live.ports if port not in before.ports])
                raise

    async def _disconnect(self, name: str, container: Container) -> None:
        async with container.lock:
            _check_mode(container, name)
            network = self._named(name)
            wishes = networks_of(container.record)
            live = (container.network or NOTHING).on(network.id)
            if name not in wishes and live is None:
                raise NetworkForbidden(f"container {container.id} is not connected to network {name}")
            wishes.pop(name, None)
            await self._services.catalog.update(container, with_networks(container.record, wishes))
            failpoints.hit("network.disconnect.row-written")
            if container.task is not None and live is not None:
                await self._detach(network, container)
                await self._serve_names(container)
        self._networks.emit(network, "disconnect", container=container.id)

    async def _detach(self, network: NetworkRecord, container: Container) -> None:
        task, before = container.task, container.network
        assert task is not None
        assert before is not None
        async with self._networks.lock:
            gone = before.on(network.id)
            assert gone is not None
            rest = tuple(item for item in before.endpoints if item is not gone)
            live = LiveNetwork(rest, before.ports)
            heir = None
            if gone.spec.gateways:
                live, heir = self._with_heir(live)
                live = await self._endpoints.move_ports(container, live)
            if container.task is not task:  # it ended meanwhile, and took its endpoints with it
                self._endpoints.drop(live.ports)
                return
            self._endpoints.keep(container, live)
            await task.detach_endpoint(gone.spec.id)
            if heir is not None:  # the same interface again, with a default route
                spec = next(item.spec for item in live.endpoints if item.spec.id == heir)
                await task.detach_endpoint(heir)
                await task.attach_endpoint(spec)

    def _with_heir(self, live: LiveNetwork) -> tuple[LiveNetwork, str | None]:
        """Another endpoint leads out; its id."""
        for item in live.endpoints:
            record = self._networks.find_named(item.network)
            if record is not None and not record.internal:
                spec = replace(item.spec, gateways=item.gateways)
                changed = tuple(replace(one, spec=spec) if one is item else one for one in live.endpoints)
                return replace(live, endpoints=changed), spec.id
        return live, None

    def _named(self, name: str) -> NetworkRecord:
        found = self._networks.find_named(name)
        if found is None:
            raise NoSuchNetwork(f"network {name} not found")
        return found


def _check_runs(container: Container, task: Task) -> None:
    if container.task is not task:
        raise NotPossible(f"container {container.id} is not running")


def _check_mode(container: Container, name: str) -> None:
    if container.status in (Status.REMOVING, Status.DEAD):
        raise NotPossible(
            "container is marked for removal and cannot be connected or disconnected to the network"
        )
    mode = container.record.host.network_mode
    if mode.startswith("container:"):
        raise InvalidInput(
            "container sharing network namespace with another container or host cannot be connected to "
            "any other network"
        )
    if mode == "host" or name == "host":
        raise InvalidInput("container cannot be disconnected from host network or connected to host network")
    if not is_bridged(mode) or name == "none":
        raise InvalidInput(
            "container cannot be connected to multiple networks with one of the networks in private "
            "(none) mode"
        )
