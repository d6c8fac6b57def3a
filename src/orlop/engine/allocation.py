"""Which addresses, names and gateway an endpoint gets. Pure but for random ids."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from orlop.base import ids
from orlop.engine.network_model import NOTHING, LiveEndpoint, LiveNetwork, NetworkRecord
from orlop.engine.requests import EndpointSettings, IpamConfig
from orlop.network.ipam import Address, NoAddressLeft, Subnet, choose_address, mac_of
from orlop.runtime.spec import EndpointSpec

__all__ = ["Allocator"]


class Allocator:
    """Chooses endpoints; remembers the address that each network gave last, so that the next one is fresh.

    Args:
        taken: addresses that are in use on a network, by its id.
    """

    def __init__(self, taken: Callable[[str], set[Address]]) -> None:
        self._taken = taken
        self._last: dict[tuple[str, int], Address] = {}

    def allocate(
        self, plans: Sequence[tuple[NetworkRecord, EndpointSettings]], have: LiveNetwork = NOTHING
    ) -> LiveNetwork:
        """Endpoints for these networks, the one that leads out first, beside those that a container has."""
        leads_out = any(item.spec.gateways for item in have.endpoints)
        endpoints = list(have.endpoints)
        for record, settings in plans:
            is_way_out = not leads_out and not record.internal
            endpoints.append(self._endpoint(record, settings, endpoints, is_way_out=is_way_out))
            leads_out = leads_out or is_way_out
        return replace(have, endpoints=tuple(endpoints))

    def _endpoint(
        self,
        record: NetworkRecord,
        settings: EndpointSettings,
        others: Iterable[LiveEndpoint],
        *,
        is_way_out: bool,
    ) -> LiveEndpoint:
        chosen = self._addresses(record, settings.ipam_config or IpamConfig())
        gateways = tuple(str(subnet.gateway) for subnet, _ in chosen if subnet.gateway is not None)
        names = {item.spec.name for item in others}
        endpoint_id = ids.new_hex_id()
        first = chosen[0][1]
        spec = EndpointSpec(
            id=endpoint_id,
            name=next(name for number in range(len(names) + 1) if (name := f"eth{number}") not in names),
            host_name=f"veth{endpoint_id[:11]}",
            bridge=record.bridge,
            mac=settings.mac_address or mac_of(first).hex(":"),
            addresses=tuple(f"{address}/{subnet.network.prefixlen}" for subnet, address in chosen),
            gateways=gateways if is_way_out else (),
            mtu=record.mtu,
            is_isolated=not record.has_icc,
        )
        return LiveEndpoint(record.id, record.name, spec, gateways)

    def _addresses(self, record: NetworkRecord, wanted: IpamConfig) -> list[tuple[Subnet, Address]]:
        taken = self._taken(record.id)
        found = []
        for version, text in ((4, wanted.ipv4_address), (6, wanted.ipv6_address)):
            subnets = [one for one in record.subnets if one.network.version == version]
            if subnets:
                found.append(self._address(record.id, subnets, taken, text))
        return found

    def _address(
        self, network_id: str, subnets: Sequence[Subnet], taken: set[Address], wanted: str
    ) -> tuple[Subnet, Address]:
        version = subnets[0].network.version
        after = self._last.get((network_id, version))
        failure: NoAddressLeft | None = None
        for subnet in _fitting(subnets, wanted):
            try:
                address = choose_address(subnet, taken, wanted, after)
            except NoAddressLeft as error:
                failure = failure or error
            else:
                if not wanted:
                    self._last[network_id, version] = address
                return subnet, address
        assert failure is not None
        raise failure


def _fitting(subnets: Sequence[Subnet], wanted: str) -> Sequence[Subnet]:
    """Those that may have the address; one at least, to say why it has not."""
    if not wanted:
        return subnets
    try:
        address = ipaddress.ip_address(wanted)
    except ValueError:
        return subnets[:1]
    return [subnet for subnet in subnets if address in subnet.network][:1] or subnets[:1]
