"""Names of networks, as files for the name servers in the supervisors; see `runtime/zones.py`.

A file holds what is true now: it is written anew, by rename, whenever an endpoint comes, goes or changes
its names, and by the first change after a start of the engine. Until then the last one holds. The
default network has no names, as on dockerd.
"""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Iterable, Sequence

from orlop.engine.model import Container
from orlop.engine.network_model import BRIDGE, NOTHING, LiveEndpoint
from orlop.engine.network_wishes import dns_names, networks_of
from orlop.engine.requests import EndpointSettings
from orlop.runtime.spec import NameServerSpec

__all__ = ["NAME_SERVER", "ZoneFiles", "host_servers", "named_endpoints", "zone_of"]

NAME_SERVER = "127.0.0.11"
_DIRECTORY = "networks"


def zone_of(
    network: str, users: Iterable[tuple[Container, LiveEndpoint]]
) -> dict[str, dict[str, list[str]] | dict[str, str]]:
    """The names and addresses of everybody on a network."""
    names: dict[str, list[str]] = {}
    pointers: dict[str, str] = {}
    for container, endpoint in users:
        wish = networks_of(container.record).get(endpoint.network, EndpointSettings())
        for name in dns_names(container.record, wish):
            for qualified in (name.lower(), f"{name}.{network}".lower()):
                names.setdefault(qualified, []).extend(str(address) for address in endpoint.addresses)
        for address in endpoint.addresses:
            pointers[str(address)] = f"{container.record.name}.{network}"
    return {"names": names, "pointers": pointers}


def named_endpoints(container: Container) -> list[LiveEndpoint]:
    """Its endpoints on networks that have names."""
    return [item for item in (container.network or NOTHING).endpoints if item.network != BRIDGE]


class ZoneFiles:
    """`<exec root>/networks/<id>.json`."""

    def __init__(self, exec_root: str) -> None:
        self._root = os.path.join(exec_root, _DIRECTORY)

    def path(self, network_id: str) -> str:
        """Where the names of a network are."""
        return os.path.join(self._root, f"{network_id}.json")

    def write(self, network_id: str, network: str, users: Iterable[tuple[Container, LiveEndpoint]]) -> None:
        """Replace a network's file; on our own tmpfs, it does not block."""
        os.makedirs(self._root, mode=0o700, exist_ok=True)
        path = self.path(network_id)
        with open(f"{path}.new", "w", encoding="utf-8") as file:
            json.dump(zone_of(network, users), file)
        os.rename(f"{path}.new", path)

    def spec(self, container: Container, servers: Sequence[str]) -> NameServerSpec | None:
        """What its name server is to know; None where there is none. Who has no way out asks nobody."""
        endpoints = named_endpoints(container)
        if not endpoints:
            return None
        leads_out = any(item.spec.gateways for item in (container.network or NOTHING).endpoints)
        return NameServerSpec(
            tuple(self.path(item.network_id) for item in endpoints),
            tuple(servers) if leads_out else (),
            _links(container),
        )


def _links(container: Container) -> dict[str, str]:
    """`--link NAME:ALIAS`, and the same of single networks."""
    wishes = networks_of(container.record).values()
    texts = [*(container.record.host.links or ()), *(text for wish in wishes for text in wish.links or ())]
    pairs = [text.partition(":")[::2] for text in texts]
    return {(alias or name).lstrip("/").lower(): name.lstrip("/").lower() for name, alias in pairs}


def host_servers(resolv_conf: str) -> tuple[str, ...]:
    """The name servers of a resolver's file, as addresses that can be asked."""
    found = []
    for line in resolv_conf.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver":
            try:
                found.append(str(ipaddress.ip_address(words[1])))
            except ValueError:  # a link-local address with its interface, or nonsense
                continue
    return tuple(found)
