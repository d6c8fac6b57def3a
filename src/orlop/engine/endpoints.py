"""Endpoints: what a running container has of networks, given at its start and taken back at its end.

At a start, under the lock of the networks: addresses are chosen (from what the other containers have,
nothing is stored), ports of the host are found, `network.json` is written to the run dir, the ports are
published; then the supervisor makes the interfaces. Ports follow the endpoint that leads out. At an exit
the interfaces go with the namespace; addresses are free at once, ports after the rules are gone.
`docs/internals/networks.md` has the order of the steps and what a crash between them leaves.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace

from orlop.aio import offload
from orlop.base import failpoints, log
from orlop.base.errors import OrlopError
from orlop.engine import hostports
from orlop.engine.allocation import Allocator
from orlop.engine.model import Container
from orlop.engine.network_model import BRIDGE, NOTHING, LiveEndpoint, LiveNetwork, LivePort, NetworkRecord
from orlop.engine.network_names import ZoneFiles, named_endpoints
from orlop.engine.network_wishes import is_bridged, networks_of
from orlop.engine.networks import Networks, NoSuchNetwork
from orlop.engine.portmap import PortInUse, PortWish, choose_ports, read_wishes
from orlop.engine.requests import EndpointSettings
from orlop.network.host import PortTaken
from orlop.network.ipam import Address
from orlop.runtime.contract import Task
from orlop.runtime.spec import EndpointSpec, NameServerSpec
from orlop.wire import gojson

__all__ = ["Endpoints"]

_FILE = "network.json"
_MAX_BYTES = 1 << 20


class Endpoints:
    """The endpoints and ports of all containers; without networks there are none.

    Args:
        networks: what there is to join.
        exec_root: run dirs are below it.
    """

    def __init__(self, networks: Networks | None = None, exec_root: str = "") -> None:
        self._networks = networks
        self._exec_root = exec_root
        self._zones = ZoneFiles(exec_root)
        self._allocator = Allocator(self._taken)
        self._lent: dict[str, LiveNetwork] = {}  # to steps of builds, by their keys
        self._ended: list[LivePort] = []  # of containers that are gone; their rules are not yet

    @property
    def networks(self) -> Networks | None:
        """All of them."""
        return self._networks

    @property
    def has_bridge(self) -> bool:
        """There is a default network."""
        return self._networks is not None and self._networks.settings.has_bridge

    @property
    def host_gateway(self) -> str:
        """The address of the host for `host-gateway`."""
        return self._networks.host_gateway if self._networks is not None else ""

    def name_of(self, reference: str) -> str:
        """The name of a network that exists; anything else as it is."""
        if self._networks is not None:
            with suppress(OrlopError):
                return self._networks.find(reference).name
        return reference

    # --- a start, an end ---

    async def prepare(self, container: Container) -> tuple[EndpointSpec, ...]:
        """Everything for a start but the interfaces; `release` takes it back when the start fails.

        Raises:
            NoSuchNetwork, NoAddressLeft, AddressTaken, PortInUse, BridgeFailed: nothing is kept.
        """
        container.network = None
        record = container.record
        if not is_bridged(record.host.network_mode) or record.config.network_disabled:
            return ()
        plans = self._plans(container)
        networks = self._networks
        if networks is None or not plans:
            return ()
        async with networks.lock:
            await self._drain(networks)
            await networks.need_host()
            live = self.allocate(plans)
            container.network = live  # from here on the addresses are taken
            try:
                container.network = live = await self._with_ports(container, live)
                self._write(container)
                failpoints.hit("network.endpoints.written")
                await self._publish(networks, container, live.ports)
            except BaseException as error:
                container.network = None
                self._unlink(container)
                if not isinstance(error, PortInUse):  # those may be another's
                    self.drop(live.ports)
                raise
        failpoints.hit("network.ports.published")
        self.rename(live)
        self._tell(container, live, "connect")
        return tuple(item.spec for item in live.endpoints)

    async def release(self, container: Container) -> None:
        """Take back what `prepare` gave."""
        self.ended(container)
        if self._networks is not None:
            async with self._networks.lock:
                await self._drain(self._networks)

    def ended(self, container: Container) -> None:
        """The container ended: its addresses are free, its ports at the next `drain`."""
        live, container.network = container.network, None
        if live is not None:
            self._ended += live.ports
            self._unlink(container)
            self.rename(live)
            self._tell(container, live, "disconnect")

    # --- names ---

    def rename(self, *lives: LiveNetwork | None) -> None:
        """Names on these containers' networks have changed."""
        networks = self._networks
        changed = {(item.network_id, item.network) for live in lives for item in (live or NOTHING).endpoints}
        for network_id, name in changed if networks is not None else ():
            assert networks is not None
            if name != BRIDGE:
                self._zones.write(network_id, name, networks.endpoints_on(network_id))

    def has_names(self, container: Container) -> bool:
        """It is on a network of one's own: it has a name server."""
        return bool(named_endpoints(container))

    def name_server(self, container: Container, servers: Sequence[str]) -> NameServerSpec | None:
        """For a container that is started, or whose networks have changed; None on the default network."""
        return self._zones.spec(container, servers)

    def _tell(self, container: Container, live: LiveNetwork, action: str) -> None:
        networks = self._networks
        for item in live.endpoints if networks is not None else ():
            assert networks is not None
            record = networks.find_named(item.network)
            if record is not None:
                networks.emit(record, action, container=container.id)

    def drop(self, ports: Iterable[LivePort]) -> None:
        """Rules to be taken away at the next change."""
        self._ended += ports

    async def drain(self) -> None:
        """Take the rules of ended containers away."""
        networks = self._networks
        if networks is not None and self._ended:
            try:
                async with networks.lock:
                    await self._drain(networks)
            except OSError as error:  # the next change tries again
                log.error("ports could not be taken back", error=error)

    async def _drain(self, networks: Networks) -> None:
        while self._ended:
            ports = list(self._ended)
            await offload.thread(networks.host.retract, [port.rule() for port in ports])
            del self._ended[: len(ports)]

    async def lend(self, key: str) -> tuple[EndpointSpec, ...]:
        """An endpoint on the default network for a step of a build; none without such a network."""
        networks = self._networks
        if networks is None or not self.has_bridge:
            return ()
        async with networks.lock:
            record = networks.find_named(BRIDGE)
            if record is None:
                raise NoSuchNetwork(f"network {BRIDGE} not found")
            await networks.need_host()
            live = self._lent[key] = self.allocate([(record, EndpointSettings())])
        return tuple(item.spec for item in live.endpoints)

    def take_back(self, key: str) -> None:
        """The step has ended."""
        self._lent.pop(key, None)

    # --- what is given ---

    def _plans(self, container: Container) -> list[tuple[NetworkRecord, EndpointSettings]]:
        """The networks of a container, the one that leads out first."""
        found = []
        for name, settings in networks_of(container.record).items():
            if name == BRIDGE and not self.has_bridge:
                continue  # said at the create
            record = self._networks.find_named(name) if self._networks is not None else None
            if record is None:
                raise NoSuchNetwork(f"network {name[:200]} not found")
            found.append((record, settings))
        found.sort(key=lambda plan: (-plan[1].gw_priority, plan[0].internal, plan[0].name))
        return found

    def allocate(
        self, plans: Sequence[tuple[NetworkRecord, EndpointSettings]], have: LiveNetwork = NOTHING
    ) -> LiveNetwork:
        """Endpoints for these networks beside those that a container has; the lock is held."""
        return self._allocator.allocate(plans, have)

    def _taken(self, network_id: str) -> set[Address]:
        """Addresses that containers and steps of builds have on a network."""
        assert self._networks is not None
        used = [item for _, item in self._networks.endpoints_on(network_id)]
        lent = [item for live in self._lent.values() if (item := live.on(network_id)) is not None]
        return {address for item in (*used, *lent) for address in item.addresses}

    # --- ports ---

    async def _with_ports(self, container: Container, live: LiveNetwork) -> LiveNetwork:
        host, config = container.record.host, container.record.config
        return replace(live, ports=await self.ports_for(container, live, read_wishes(host, config)))

    async def ports_for(
        self, container: Container, live: LiveNetwork, wishes: Sequence[PortWish]
    ) -> tuple[LivePort, ...]:
        """Ports of the host for an endpoint that leads out; none without one. The lock is held."""
        way_out = next((item for item in live.endpoints if item.spec.gateways), None)
        networks = self._networks
        if way_out is None or networks is None or not wishes:
            return ()
        record = networks.find_named(way_out.network)
        own = record.host_address if record is not None else ""
        taken = {
            (port.protocol, port.host_ip, port.host_port)
            for item in networks.containers()
            if item.network is not None and item is not container
            for port in item.network.ports
        }
        needs_any = any(not wish.first for wish in wishes)
        try:
            return tuple(
                await offload.thread(
                    choose_ports,
                    wishes,
                    way_out.addresses,
                    default_ip=own or networks.settings.default_address,
                    taken=taken,
                    is_free=hostports.is_free,
                    dynamic=hostports.dynamic_range(secrets.randbelow(1 << 16)) if needs_any else [],
                )
            )
        except PortInUse as error:
            error.message = _failed(container, way_out) + error.message
            raise

    async def _publish(self, networks: Networks, container: Container, ports: Sequence[LivePort]) -> None:
        if not ports:
            return
        try:
            await offload.thread(networks.host.publish, [port.rule() for port in ports])
        except PortTaken as error:
            shown = f"{ports[0].host_ip}:{ports[0].host_port}"
            live = container.network or NOTHING
            raise PortInUse(
                f"{_failed(container, live.endpoints[0])}Bind for {shown} failed: port is already allocated"
            ) from error

    async def move_ports(self, container: Container, live: LiveNetwork) -> LiveNetwork:
        """The same ports of the host for the endpoint that leads out now; the lock is held."""
        networks = self._networks
        assert networks is not None
        old = (container.network or NOTHING).ports
        way_out = next((item for item in live.endpoints if item.spec.gateways), None)
        ports: tuple[LivePort, ...] = ()
        if old:
            await offload.thread(networks.host.retract, [port.rule() for port in old])
            ports = tuple(_led_to(old, way_out))
        elif way_out is not None:
            wishes = read_wishes(container.record.host, container.record.config)
            ports = await self.ports_for(container, live, wishes)
        live = replace(live, ports=ports)
        await self._publish(networks, container, ports)
        return live

    # --- the engine that comes next ---

    def adopted(self, container: Container) -> None:
        """Read what a container was given by an engine before this one."""
        try:
            with open(self._path(container), "rb") as file:
                container.network = gojson.decode(LiveNetwork, file.read(_MAX_BYTES))
        except FileNotFoundError:
            container.network = None
        except (OrlopError, OSError) as error:
            log.error("a container's endpoints cannot be read", container=container.id, error=error)

    async def settle(self, container: Container, task: Task) -> None:
        """After an adoption: endpoints that only one side knows are of a change that did not end."""
        live = container.network
        if live is None and not is_bridged(container.record.host.network_mode):
            return
        try:
            present = {spec.id for spec in await task.endpoints()}
            wanted = {
                item.spec.id
                for item in (live or NOTHING).endpoints
                if item.network in networks_of(container.record)
            }
            for endpoint_id in present - wanted:
                await task.detach_endpoint(endpoint_id)
        except OrlopError as error:
            log.error("a container's endpoints are not known", container=container.id, error=error)
            return
        if live is not None and container.network is live:
            kept = tuple(item for item in live.endpoints if item.spec.id in present & wanted)
            addresses = {str(address) for item in kept for address in item.addresses}
            ports = tuple(port for port in live.ports if port.address in addresses)
            container.network = LiveNetwork(kept, ports)
            self._write(container)
            self.rename(live)

    def keep(self, container: Container, live: LiveNetwork) -> None:
        """What the container has now, in memory and for the next engine."""
        before, container.network = container.network, live
        self._write(container)
        self.rename(before, live)

    def _path(self, container: Container) -> str:
        return os.path.join(self._exec_root, "containers", container.id, _FILE)

    def _write(self, container: Container) -> None:
        """Onto our own tmpfs: it does not block."""
        path = self._path(container)
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        fd = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(gojson.encode(container.network))
        os.rename(f"{path}.new", path)

    def _unlink(self, container: Container) -> None:
        with suppress(OSError):
            os.unlink(self._path(container))


def _led_to(ports: Iterable[LivePort], way_out: LiveEndpoint | None) -> Iterable[LivePort]:
    for port in ports:
        is_ipv6 = ":" in port.address
        same = [one for one in (way_out.addresses if way_out else ()) if (one.version == 6) == is_ipv6]
        if same:
            yield replace(port, address=str(same[0]))


def _failed(container: Container, endpoint: LiveEndpoint) -> str:
    return (
        f"driver failed programming external connectivity on endpoint {container.name} ({endpoint.spec.id}): "
    )
