"""The networks of this engine: `none` and `host`, the default bridge, and those that users make.

A network's row is written before its interface is made and deleted after it is gone: what a crash leaves
is a row, and the next start makes the host look like the rows (`recover`). Which containers are on
a network is read from the containers in memory, never stored. `lock` orders everything that
changes networks, endpoints and ports; whoever needs a container's lock takes that one first.

Spec: Docker Engine API v1.51, "Network".
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from orlop.aio import offload
from orlop.aio.scope import Background
from orlop.base import failpoints, ids, log
from orlop.base.clock import Clock
from orlop.base.errors import InvalidInput, Kind, NotFound, OrlopError
from orlop.engine.default_network import DefaultPlace, decide_default
from orlop.engine.events import EventBus
from orlop.engine.filters import Filters, parse_timestamp_ns
from orlop.engine.finishing import finish
from orlop.engine.network_checks import NetworkForbidden, check_request, decide
from orlop.engine.network_model import (
    BRIDGE,
    LiveEndpoint,
    NetworkCreated,
    NetworkCreateRequest,
    NetworkRecord,
    NetworkUser,
    NetworkView,
)
from orlop.engine.network_rows import all_rows, delete_row, replace_row
from orlop.engine.network_settings import NetworkSettings
from orlop.engine.network_views import FILTER_KEYS, AnyNetwork, BuiltIn, is_custom, passes, view
from orlop.network.contract import BridgeSpec, PortRule
from orlop.network.ipam import Network
from orlop.store.db import Database
from orlop.wire import gojson

if TYPE_CHECKING:
    from orlop.engine.model import Container

__all__ = ["Host", "NetworkExists", "NetworkInUse", "Networks", "NoSuchNetwork"]

_CHECK_S = 2.0


class NoSuchNetwork(NotFound):
    """No network has this id, prefix or name."""

    code = "no-such-network"


class NetworkExists(OrlopError):
    """Another network has the name."""

    kind = Kind.CONFLICT
    code = "network-exists"


class NetworkInUse(OrlopError):
    """Running containers are on the network."""

    kind = Kind.FORBIDDEN
    code = "network-in-use"


class Host(Protocol):
    """What is asked of `network.host.HostNetworks`."""

    def reconcile(self, bridges: list[BridgeSpec], ports: list[PortRule], known: tuple[str, ...]) -> None: ...
    def add_bridge(self, bridge: BridgeSpec) -> None: ...
    def remove_bridge(self, bridge: BridgeSpec) -> None: ...
    def publish(self, ports: list[PortRule]) -> None: ...
    def retract(self, ports: list[PortRule]) -> None: ...
    def is_installed(self) -> bool: ...
    def uninstall(self) -> None: ...
    def has_interface(self, name: str) -> bool: ...
    def foreign_networks(self, own: set[str]) -> list[Network]: ...


class Networks:
    """All networks.

    Args:
        engine_id: makes the ids of the built-in ones differ between engines.
        created_ns: when this engine's state was made.
        users: gives the containers.
        db, host, events, clock, background, settings, place: services and facts.
    """

    def __init__(  # noqa: PLR0913 - one call, one definition
        self,
        engine_id: str,
        created_ns: int,
        users: Callable[[], Iterable[Container]],
        *,
        db: Database,
        host: Host,
        events: EventBus,
        clock: Clock,
        background: Background,
        settings: NetworkSettings,
        place: DefaultPlace,
    ) -> None:
        self._users = users
        self._db = db
        self._events = events
        self._clock = clock
        self._background = background
        self._place = place
        self._by_id: dict[str, NetworkRecord] = {}
        self._is_installed = False
        self._has_live = asyncio.Event()
        self.host = host
        self.settings = settings
        self.lock = asyncio.Lock()
        self._built_in = tuple(
            BuiltIn(
                hashlib.sha256(f"{engine_id}:network:{name}".encode()).hexdigest(), name, created_ns, driver
            )
            for name, driver in (("host", "host"), ("none", "null"))
        )

    # --- recovery ---

    async def load(self) -> None:
        """Read the rows; the default network gets one when it has none."""
        for network_id, document in await self._db.read(all_rows):
            try:
                self._by_id[network_id] = gojson.decode(NetworkRecord, document.encode())
            except OrlopError as error:
                log.error("a network's row cannot be read", network=network_id, error=error)
        if not self.settings.has_bridge:
            self._by_id = {key: item for key, item in self._by_id.items() if item.name != BRIDGE}
            return
        try:
            await self._decide_default()
        except (OrlopError, OSError) as error:
            log.error("there is no default network", error=error)

    async def _decide_default(self) -> None:
        old = self.find_named(BRIDGE)
        others = [item for item in self._by_id.values() if item.name != BRIDGE]
        taken = [network for item in others for network in item.spec().networks]
        own = {self._place.bridge_of(item.id) for item in self._by_id.values()}
        foreign = await offload.thread(self.host.foreign_networks, own | {item.bridge for item in others})
        new = await offload.thread(
            decide_default, old, self.settings, self._place, [*taken, *foreign], self._clock.now_ns()
        )
        if new != old:
            await self._db.write(replace_row(new, old.id if old else ""))
            if old is not None:
                del self._by_id[old.id]
        self._by_id[new.id] = new

    async def recover(self) -> None:
        """Make the host look like the rows and the containers that run; may be repeated.

        A host on which nothing of ours is, and where nothing runs that needs it, is left alone.
        """
        async with self.lock:
            is_needed = any(item.network is not None for item in self._users())
            try:
                if not is_needed and not await offload.thread(self.host.is_installed):
                    return
                await self.install()
            except (OrlopError, OSError) as error:  # tried again by the first container that needs it
                log.error("bridge networks are not available", error=error)

    async def install(self) -> None:
        """Interfaces and rules of everything; the lock is held."""
        bridges = [record.spec() for record in self._by_id.values()]
        live = [item.network for item in self._users() if item.network is not None]
        ports = [port.rule() for network in live for port in network.ports]
        await offload.thread(self.host.reconcile, bridges, ports, ())
        self._is_installed = True
        if any(network.endpoints for network in live):
            self._has_live.set()

    async def need_host(self) -> None:
        """Before an endpoint is made; the lock is held."""
        if not self._is_installed:
            await self.install()
        self._has_live.set()

    async def watch(self) -> None:
        """Bring the rules back when somebody flushes them; sleeps while no container has an endpoint."""
        while True:
            await self._has_live.wait()
            await asyncio.sleep(_CHECK_S)
            try:
                async with self.lock:
                    await self._check()
            except (OrlopError, OSError) as error:
                log.error("rules of networks could not be checked", error=error)

    async def _check(self) -> None:
        if not any(item.network is not None and item.network.endpoints for item in self._users()):
            self._has_live.clear()
        elif not await offload.thread(self.host.is_installed):
            log.warning("the firewall rules of our networks are gone: installed again")
            await self.install()

    # --- seeing ---

    def list(self, filters: Filters) -> tuple[NetworkView, ...]:
        """All that pass the filters, without their containers."""
        filters.check_keys(FILTER_KEYS)
        return tuple(view(network) for network in self._all() if self._passes(network, filters))

    def _passes(self, network: AnyNetwork, filters: Filters) -> bool:
        if not passes(network, filters):
            return False
        if "dangling" not in filters:
            return True
        is_dangling = is_custom(network) and not any(True for _ in self._containers(network))
        return is_dangling == filters.get_bool("dangling")

    def get(self, name_or_id: str) -> NetworkView:
        """One network with its containers, by name, id or prefix of the id.

        Raises:
            NoSuchNetwork: with dockerd's text.
        """
        network = self.find(name_or_id)
        return replace(view(network), containers=dict(self._containers(network)))

    def find(self, name_or_id: str) -> AnyNetwork:
        """By id, name or prefix of the id. Raises NoSuchNetwork, InvalidInput."""
        every = self._all()
        for network in every:
            if name_or_id == network.id:
                return network
        for network in every:
            if name_or_id == network.name:
                return network
        matches = [network for network in every if name_or_id and network.id.startswith(name_or_id)]
        if len(matches) > 1:
            raise InvalidInput(
                f"network {name_or_id[:64]} is ambiguous ({len(matches)} matches found based on ID prefix)"
            )
        if not matches:
            raise NoSuchNetwork(f"network {name_or_id[:200]} not found")
        return matches[0]

    def find_named(self, name: str) -> NetworkRecord | None:
        """The bridge network of this name."""
        return next((item for item in self._by_id.values() if item.name == name), None)

    @property
    def host_gateway(self) -> str:
        """The host, as seen from containers: the default network's gateway; "" without one."""
        default = self.find_named(BRIDGE)
        found = [subnet.gateway for subnet in default.subnets] if default else []
        return next((str(one) for one in found if one is not None and one.version == 4), "")

    def containers(self) -> Iterable[Container]:
        """All containers."""
        return self._users()

    def endpoints_on(self, network_id: str) -> Sequence[tuple[Container, LiveEndpoint]]:
        """The containers that run on a bridge network."""
        return [
            (item, endpoint)
            for item in self._users()
            if item.network is not None and (endpoint := item.network.on(network_id)) is not None
        ]

    def _all(self) -> Sequence[AnyNetwork]:
        made = sorted(self._by_id.values(), key=lambda item: (item.name != BRIDGE, -item.created_ns))
        return [*made, *self._built_in]

    def _containers(self, network: AnyNetwork) -> Iterable[tuple[str, NetworkUser]]:
        if isinstance(network, BuiltIn):
            for item in self._users():
                if item.task is not None and item.record.host.network_mode == network.name:
                    yield item.id, NetworkUser(item.name)
            return
        for item, endpoint in self.endpoints_on(network.id):
            yield (
                item.id,
                NetworkUser(
                    item.name,
                    endpoint.spec.id,
                    endpoint.spec.mac,
                    endpoint.interface(4),
                    endpoint.interface(6),
                ),
            )

    # --- changing ---

    async def create(self, request: NetworkCreateRequest) -> NetworkCreated:
        """Make a bridge network; its interface and rules are there on return.

        Raises:
            NetworkExists, InvalidInput, SubnetOverlap, ...: with dockerd's texts.
        """
        check_request(request)
        return await finish(self._background, self._create(request))

    async def _create(self, request: NetworkCreateRequest) -> NetworkCreated:
        async with self.lock:
            if any(item.name == request.name for item in self._all()):
                raise NetworkExists(f"network with name {request.name} already exists")
            record = await self._decide(request)
            await self._db.write(replace_row(record))
            failpoints.hit("network.create.row-written")
            try:
                if self._is_installed:
                    await offload.thread(self.host.add_bridge, record.spec())
                self._by_id[record.id] = record
                if not self._is_installed:
                    await self.install()
            except BaseException:
                self._by_id.pop(record.id, None)
                await self._db.write(delete_row(record.id), frees_space=True)
                raise
        self.emit(record, "create")
        return NetworkCreated(record.id)

    async def _decide(self, request: NetworkCreateRequest) -> NetworkRecord:
        own = list(self._by_id.values())
        foreign = await offload.thread(self.host.foreign_networks, {item.bridge for item in own})
        record = decide(
            request,
            ids.new_hex_id(),
            self._clock.now_ns(),
            pools=self.settings.pools,
            own=[network for item in own for network in item.spec().networks],
            foreign=foreign,
        )
        if await offload.thread(self.host.has_interface, record.bridge):
            raise NetworkForbidden(f"cannot create network {record.id}: interface {record.bridge} exists")
        return record

    async def remove(self, name_or_id: str) -> None:
        """Take a network away.

        Raises:
            NetworkInUse: containers run on it.
            NetworkForbidden: it is a built-in one.
        """
        await finish(self._background, self._remove(name_or_id))

    async def _remove(self, name_or_id: str) -> None:
        async with self.lock:
            network = self.find(name_or_id)
            if isinstance(network, BuiltIn) or network.name == BRIDGE:
                raise NetworkForbidden(f"{network.name} is a pre-defined network and cannot be removed")
            users = self.endpoints_on(network.id)
            if users:
                shown = ", ".join(f'name:"{item.name}" id:"{one.spec.id[:12]}"' for item, one in users)
                raise NetworkInUse(
                    f"error while removing network: network {network.name} has active endpoints ({shown})"
                )
            await offload.thread(self.host.remove_bridge, network.spec())
            failpoints.hit("network.remove.before-row")
            await self._db.write(delete_row(network.id), frees_space=True)
            del self._by_id[network.id]
        self.emit(network, "destroy")

    async def prune(self, filters: Filters) -> Sequence[str] | None:
        """Remove the networks of users that no container runs on; their names."""
        filters.check_keys(("label", "label!", "until"))
        now_ns = self._clock.now_ns()
        limits = [parse_timestamp_ns(text, now_ns) for text in filters.get("until")]
        chosen = [
            network
            for network in self._by_id.values()
            if is_custom(network)
            and not self.endpoints_on(network.id)
            and filters.matches_labels("label", network.labels)
            and filters.excludes_labels("label!", network.labels)
            and all(network.created_ns <= limit for limit in limits)
        ]
        removed = [network.name for network in chosen if await self._prune_one(network)]
        self._events.publish("network", "prune", "", {"reclaimed": "0"})
        return removed or None

    async def _prune_one(self, network: NetworkRecord) -> bool:
        try:
            await self.remove(network.id)
        except OrlopError as error:
            log.warning("network could not be pruned", network=network.name, error=error)
            return False
        return True

    def emit(self, network: AnyNetwork, action: str, **attributes: str) -> None:
        """Publish an event of a network."""
        values = {**attributes, "name": network.name, "type": network.driver}
        self._events.publish("network", action, network.id, values)
