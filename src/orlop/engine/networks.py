"""The networks that exist: `none` and `host`. Each is the same on every engine and cannot be changed.

Spec: Docker Engine API v1.51, "Network".
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from orlop.base.clock import format_rfc3339_nano
from orlop.base.errors import NotFound
from orlop.engine.filters import Filters
from orlop.engine.requests import HostConfig
from orlop.wire.gojson import field

__all__ = ["Endpoint", "NetworkUser", "NetworkView", "Networks", "NoSuchNetwork"]

_FILTER_KEYS = frozenset({"dangling", "driver", "id", "label", "name", "scope", "type"})


class NoSuchNetwork(NotFound):
    """No network has this id, prefix or name."""

    code = "no-such-network"


class NetworkUser(Protocol):
    """What is asked of a container."""

    @property
    def id(self) -> str:
        """The full id."""

    @property
    def name(self) -> str:
        """Without a slash."""

    @property
    def host(self) -> HostConfig:
        """Its `network_mode` names the network."""


@dataclass(frozen=True, slots=True)
class Ipam:
    """How addresses are chosen; neither network has any."""

    driver: str = "default"
    options: dict[str, str] | None = None
    config: tuple[object, ...] = ()


@dataclass(frozen=True, slots=True)
class ConfigFrom:
    """Swarm's configuration networks: never used."""

    network: str = ""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A running container on a network."""

    name: str
    endpoint_id: str = field("EndpointID", default="")
    mac_address: str = ""
    ipv4_address: str = field("IPv4Address", default="")
    ipv6_address: str = field("IPv6Address", default="")


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkView:
    """One network as clients see it."""

    name: str
    id: str
    created: str
    scope: str = "local"
    driver: str
    enable_ipv4: bool = field("EnableIPv4", default=True)
    enable_ipv6: bool = field("EnableIPv6", default=False)
    ipam: Ipam = field("IPAM", default=Ipam())
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_from: ConfigFrom = ConfigFrom()
    config_only: bool = False
    containers: dict[str, Endpoint]
    options: dict[str, str]
    labels: dict[str, str]


class Networks:
    """The two built-in networks.

    Args:
        engine_id: makes their ids differ between engines.
        created_ns: when this engine's state was made.
        users: gives the running containers.
    """

    def __init__(self, engine_id: str, created_ns: int, users: Callable[[], Iterable[NetworkUser]]) -> None:
        self._users = users
        self._all = tuple(
            NetworkView(
                name=name,
                id=hashlib.sha256(f"{engine_id}:network:{name}".encode()).hexdigest(),
                created=format_rfc3339_nano(created_ns),
                driver=driver,
                containers={},
                options={},
                labels={},
            )
            for name, driver in (("host", "host"), ("none", "null"))
        )

    def list(self, filters: Filters) -> tuple[NetworkView, ...]:
        """All that pass the filters, without their containers."""
        filters.check_keys(_FILTER_KEYS)
        return tuple(network for network in self._all if _passes(network, filters))

    def get(self, name_or_id: str) -> NetworkView:
        """One network with its containers, by name, id or prefix of the id.

        Raises:
            NoSuchNetwork: with dockerd's text.
        """
        for network in self._all:
            if name_or_id == network.name or (name_or_id and network.id.startswith(name_or_id)):
                return replace(network, containers=dict(self._endpoints(network.name)))
        raise NoSuchNetwork(f"network {name_or_id[:200]} not found")

    def _endpoints(self, name: str) -> Iterator[tuple[str, Endpoint]]:
        for user in self._users():
            if user.host.network_mode == name:
                yield user.id, Endpoint(user.name)


def _passes(network: NetworkView, filters: Filters) -> bool:
    wanted_ids = filters.get("id")
    return (
        filters.matches_exactly("driver", network.driver)
        and filters.matches_exactly("scope", network.scope)
        and filters.matches_exactly("type", "builtin")
        and filters.matches_labels("label", network.labels)
        and (not wanted_ids or any(network.id.startswith(value) for value in wanted_ids))
        and ("name" not in filters or any(value in network.name for value in filters.get("name")))
        and not filters.get_bool("dangling")
    )
