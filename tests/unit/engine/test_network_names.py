from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from orlop.engine.network_model import LiveEndpoint, LiveNetwork
from orlop.engine.network_names import ZoneFiles, host_servers, zone_of
from orlop.engine.requests import ContainerConfig, EndpointSettings, HostConfig, NetworkingConfig
from orlop.runtime.spec import EndpointSpec, NameServerSpec

ID = "c" * 64


def user(name, address, *aliases, network="front", gateways=("10.9.0.1",)):
    record = SimpleNamespace(
        id=ID,
        name=name,
        host=HostConfig(network_mode=network),
        config=ContainerConfig(hostname="Deck"),
        networking=NetworkingConfig({network: EndpointSettings(aliases=aliases)}),
    )
    spec = EndpointSpec("e", "eth0", "veth", "br", "02:42:00:00:00:01", (f"{address}/24",), gateways)
    endpoint = LiveEndpoint("n" * 64, network, spec, gateways)
    return SimpleNamespace(record=record, network=LiveNetwork((endpoint,))), endpoint


def test_everybody_is_found_by_name_alias_short_id_and_host_name():
    zone = zone_of("front", [user("Web", "10.9.0.2", "shop")])

    for name in ("web", "shop", "c" * 12, "deck", "web.front", "shop.front"):
        assert zone["names"][name] == ["10.9.0.2"]
    assert zone["pointers"] == {"10.9.0.2": "Web.front"}


def test_an_alias_of_several_has_all_addresses():
    zone = zone_of("front", [user("one", "10.9.0.2", "db"), user("two", "10.9.0.3", "db")])

    assert zone["names"]["db"] == ["10.9.0.2", "10.9.0.3"]


def test_a_file_is_replaced_as_a_whole(tmp_path):
    zones = ZoneFiles(str(tmp_path))
    zones.write("n1", "front", [user("web", "10.9.0.2")])
    zones.write("n1", "front", [])

    with open(zones.path("n1")) as file:
        assert json.load(file) == {"names": {}, "pointers": {}}


def test_a_link_is_a_name_of_its_own_for_somebody_else(tmp_path):
    container, _ = user("client", "10.9.0.2")
    wish = EndpointSettings(links=("Postgres:DB", "web"))
    container.record.networking = NetworkingConfig({"front": wish})

    assert ZoneFiles(str(tmp_path)).spec(container, ()).links == {"db": "postgres", "web": "web"}


def test_who_has_no_way_out_asks_nobody(tmp_path):
    zones = ZoneFiles(str(tmp_path))

    leads_out, _ = user("web", "10.9.0.2")
    inner, _ = user("db", "10.9.0.3", gateways=())
    default, _ = user("plain", "172.17.0.2", network="bridge")

    assert zones.spec(leads_out, ["192.0.2.53"]) == NameServerSpec((zones.path("n" * 64),), ("192.0.2.53",))
    assert zones.spec(inner, ["192.0.2.53"]).upstreams == ()
    assert zones.spec(default, ["192.0.2.53"]) is None


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        ("nameserver 192.0.2.53\nsearch x\nnameserver  fd00::53\n", ("192.0.2.53", "fd00::53")),
        (
            "nameserver fe80::1%eth0\nnameserver\nnameserver nonsense\n# nameserver 192.0.2.1\n",
            ("fe80::1%eth0",),
        ),
        ("", ()),
    ],
)
def test_servers_of_the_host(text, servers):
    assert host_servers(text) == servers
