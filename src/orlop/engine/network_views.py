"""Networks as lists and inspect show them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orlop.base.clock import format_rfc3339_nano
from orlop.engine.filters import Filters
from orlop.engine.network_model import BRIDGE, NetworkRecord, NetworkView

__all__ = ["FILTER_KEYS", "AnyNetwork", "BuiltIn", "is_custom", "passes", "view"]

FILTER_KEYS = frozenset({"dangling", "driver", "id", "label", "label!", "name", "scope", "type"})


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """`host` or `none`: the same on every engine, never changed."""

    id: str
    name: str
    created_ns: int
    driver: str


AnyNetwork = NetworkRecord | BuiltIn


def is_custom(network: AnyNetwork) -> bool:
    """A user made it."""
    return isinstance(network, NetworkRecord) and network.name != BRIDGE


def view(network: AnyNetwork) -> NetworkView:
    """Without its containers."""
    created = format_rfc3339_nano(network.created_ns)
    if isinstance(network, BuiltIn):
        return NetworkView(
            name=network.name,
            id=network.id,
            created=created,
            driver=network.driver,
            containers={},
            options={},
            labels={},
        )
    return NetworkView(
        name=network.name,
        id=network.id,
        created=created,
        driver=network.driver,
        enable_ipv4=network.enable_ipv4,
        enable_ipv6=network.enable_ipv6,
        ipam=network.ipam,
        internal=network.internal,
        attachable=network.attachable,
        containers={},
        options=network.options or {},
        labels=network.labels or {},
    )


def passes(network: AnyNetwork, filters: Filters) -> bool:
    """All keys but `dangling`, which asks for containers."""
    labels: Mapping[str, str] = (network.labels or {}) if isinstance(network, NetworkRecord) else {}
    wanted_ids = filters.get("id")
    return (
        filters.matches_exactly("driver", network.driver)
        and filters.matches_exactly("scope", "local")
        and filters.matches_exactly("type", "custom" if is_custom(network) else "builtin")
        and filters.matches_labels("label", labels)
        and filters.excludes_labels("label!", labels)
        and (not wanted_ids or any(network.id.startswith(value) for value in wanted_ids))
        and ("name" not in filters or any(value in network.name for value in filters.get("name")))
    )
