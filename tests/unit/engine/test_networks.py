"""Networks: what may be made and removed, what is found, what a start makes of the rows."""

from __future__ import annotations

import ipaddress
from types import SimpleNamespace

import pytest

from fakes.containers import scenario
from fakes.networks import make_networks
from orlop.base.errors import InvalidInput, NotFound, OrlopError
from orlop.engine.filters import Filters
from orlop.engine.network_checks import DriverMissing, NetworkForbidden
from orlop.engine.network_model import IpamDocument, IpamPool, NetworkCreateRequest
from orlop.engine.network_settings import NetworkSettings, read_network_settings
from orlop.engine.networks import NetworkExists, NetworkInUse, NoSuchNetwork
from orlop.engine.requests import HostConfig
from orlop.network.host import BridgeFailed
from orlop.network.ipam import NoPoolLeft, SubnetOverlap

from fakes.networks import join_networks  # isort: skip


def user(name, mode):
    record = SimpleNamespace(host=HostConfig(network_mode=mode))
    return SimpleNamespace(id=name * 64, name=name, record=record, network=None, task=object())


@pytest.fixture
def networks():
    return make_networks(lambda: [user("a", "host"), user("b", "none"), user("c", "bridge")])


def wish(name="net", **given):
    return NetworkCreateRequest(name=name, **given)


def pools(*subnets, **given):
    return IpamDocument(config=tuple(IpamPool(subnet, **given) for subnet in subnets))


def names(found):
    return [network.name for network in found]


def test_built_in_ones_have_ids_of_their_own_that_stay(networks):
    ids = {network.id for network in networks.list(Filters())}

    assert len(ids) == 2
    assert ids == {network.id for network in make_networks(created_ns=5).list(Filters())}
    assert ids.isdisjoint({network.id for network in make_networks(engine_id="other").list(Filters())})


def test_found_by_name_id_and_prefix_with_their_containers(networks):
    host = networks.get("host")

    assert networks.get(host.id) == networks.get(host.id[:5]) == host
    assert [endpoint.name for endpoint in host.containers.values()] == ["a"]


@pytest.mark.parametrize("name", ["", "bridge", "x" * 1000])
def test_unknown_ones_are_named(networks, name):
    with pytest.raises(NoSuchNetwork, match="not found"):
        networks.get(name)


@pytest.mark.parametrize(
    ("filters", "found"),
    [({"name": ["o"]}, ["host", "none"]), ({"name": ["ho"]}, ["host"]), ({"driver": ["null"]}, ["none"]), ({"type": ["custom"]}, []),
     ({"label": ["a"]}, []), ({"scope": ["local"]}, ["host", "none"]), ({"dangling": ["true"]}, [])],
)  # fmt: skip
def test_filters(networks, filters, found):
    assert names(networks.list(Filters(filters))) == found


def test_unknown_filters_are_refused(networks):
    with pytest.raises(InvalidInput):
        networks.list(Filters({"nope": ["x"]}))


@scenario
async def test_a_network_is_made_listed_and_removed(made):
    networks = await join_networks(made)
    answer = await networks.create(wish(labels={"a": "b"}, internal=True))

    view = networks.get("net")
    assert (view.id, view.labels, view.internal) == (answer.id, {"a": "b"}, True)
    assert view.ipam.config == (IpamPool("172.17.1.0/24", gateway="172.17.1.1"),)
    assert set(networks.host.bridges) == {"orlop0", f"br-{answer.id[:12]}"}
    assert names(networks.list(Filters({"type": ["custom"], "dangling": ["true"]}))) == ["net"]

    await networks.remove("net")
    assert set(networks.host.bridges) == {"orlop0"}
    assert made.actions() == ["create", "destroy"]


@scenario
async def test_the_next_engine_has_the_same_networks(made):
    first = await join_networks(made)
    await first.create(wish())
    second = await join_networks(made)

    assert second.list(Filters()) == first.list(Filters())
    assert second.host.bridges == first.host.bridges


@scenario
async def test_the_default_network_follows_the_flags_and_keeps_its_id(made):
    first = (await join_networks(made)).get("bridge")
    second = (await join_networks(made, bip="10.9.8.1/24", fixed_cidr="10.9.8.128/25", has_icc=False)).get(
        "bridge"
    )

    assert second.id == first.id
    assert second.ipam.config == (IpamPool("10.9.8.0/24", "10.9.8.128/25", "10.9.8.1"),)
    assert second.options["com.docker.network.bridge.enable_icc"] == "false"
    assert names((await join_networks(made, bridge="none")).list(Filters())) == ["host", "none"]
    assert (await join_networks(made)).get("bridge").id == first.id


@pytest.mark.parametrize(
    ("request_", "error", "text"),
    [(wish("bridge"), NetworkForbidden, "predefined bridge"), (wish("none"), NetworkForbidden, "predefined"), (wish(""), InvalidInput, "invalid network name"), (wish(" "), InvalidInput, "invalid network name"),
     (wish("a/b"), InvalidInput, "name"), (wish("a\n"), InvalidInput, "name"), (wish("x" * 256), InvalidInput, "name"),
     (wish(driver="host"), NetworkForbidden, 'only one instance of "host" network is allowed'), (wish(driver="null"), NetworkForbidden, "only one"),
     (wish(driver="macvlan"), DriverMissing, "macvlan"), (wish(driver="weave"), NotFound, 'plugin "weave" not found'),
     (wish(config_only=True), DriverMissing, "Swarm"), (wish(scope="swarm"), InvalidInput, "scope"), (wish(enable_ipv4=False), InvalidInput, "IPv4 or IPv6"),
     (wish(ipam=IpamDocument("weird")), NotFound, "weird"), (wish(ipam=pools("", gateway="1.2.3.4")), InvalidInput, "needs a subnet"),
     (wish(ipam=pools("10.0.0.1/24")), InvalidInput, "10.0.0.0/24"), (wish(ipam=pools("junk")), InvalidInput, "junk"),
     (wish(ipam=pools("10.0.0.0/24", gateway="10.0.1.1")), InvalidInput, "10.0.1.1"), (wish(ipam=pools("172.17.0.0/16")), SubnetOverlap, "overlaps"),
     (wish(ipam=pools("10.0.0.0/24", "10.0.0.0/16")), SubnetOverlap, "overlaps"), (wish(ipam=pools("192.0.2.0/24")), SubnetOverlap, "overlaps"),
     (wish(options={"com.docker.network.driver.mtu": "9" * 9}), InvalidInput, "mtu"), (wish(options={"com.docker.network.bridge.name": "a/b"}), InvalidInput, "name"),
     (wish(options={"com.docker.network.bridge.name": "x" * 16}), InvalidInput, "name"), (wish(options={"com.docker.network.bridge.name": "eth0"}), NetworkForbidden, "eth0"),
     (wish(options={"com.docker.network.bridge.enable_icc": "maybe"}), InvalidInput, "icc")],
)  # fmt: skip
def test_what_cannot_be_made_is_refused_and_leaves_nothing(request_, error, text, tmp_path):
    @scenario
    async def run(made):
        networks = await join_networks(made)
        networks.host.interfaces.add("eth0")
        networks.host.foreign = [ipaddress.ip_network("192.0.2.0/25")]
        with pytest.raises(error, match=text):
            await networks.create(request_)
        assert names(networks.list(Filters({"type": ["custom"]}))) == []
        assert set(networks.host.bridges) == {"orlop0"}

    run(tmp_path)


@scenario
async def test_names_are_unique(made):
    networks = await join_networks(made)
    await networks.create(wish())

    with pytest.raises(NetworkExists, match="network with name net already exists"):
        await networks.create(wish())


@scenario
async def test_a_bridge_that_the_kernel_refuses_leaves_no_row(made):
    networks = await join_networks(made)
    networks.host.fails = True

    with pytest.raises(BridgeFailed):
        await networks.create(wish())

    networks.host.fails = False
    assert names((await join_networks(made)).list(Filters({"type": ["custom"]}))) == []


@scenario
async def test_a_start_without_bridges_is_made_good_when_one_is_needed(made):
    networks = await join_networks(made)
    networks.host.fails = True
    await networks.recover()
    networks._is_installed = False

    with pytest.raises(BridgeFailed):
        await made.run(host=HostConfig(network_mode="bridge"))

    networks.host.fails = False
    await made.containers.start("web")
    assert networks.host.bridges


@scenario
async def test_pools_are_dealt_out_until_they_are_empty(made):
    settings = read_network_settings({"default-address-pool": ["base=10.0.0.0/23,size=24"]})
    networks = await join_networks(made, pools=settings.pools)
    await networks.create(wish())

    with pytest.raises(NoPoolLeft):
        await networks.create(wish("other"))


@scenario
async def test_networks_in_use_stay_and_built_in_ones_always(made):
    networks = await join_networks(made)
    await networks.create(wish())
    _, task = await made.run(host=HostConfig(network_mode="net"))

    with pytest.raises(
        NetworkInUse, match=r'network net has active endpoints \(name:"web" id:"[0-9a-f]{12}"\)'
    ):
        await networks.remove("net")
    for name in ("bridge", "host", "none"):
        with pytest.raises(NetworkForbidden, match=f"{name} is a pre-defined network and cannot be removed"):
            await networks.remove(name)
    assert await networks.prune(Filters()) is None

    task.end()
    await made.until("container", "die")
    assert await networks.prune(Filters({"label": ["x"]})) is None
    assert await networks.prune(Filters({"until": ["1h"]})) is None
    assert await networks.prune(Filters()) == ["net"]


@pytest.mark.parametrize(
    "flags",
    [{"bridge": "a", "bip": "10.0.0.1/24"}, {"bip": "x"}, {"fixed-cidr": "10.0.0.1/24"}, {"ip": "x"}, {"mtu": 3}, {"bridge": "a/b"},
     {"default-address-pool": ["base=10.0.0.0/8"]}, {"default-address-pool": ["base=10.0.0.0/8,size=4"]}, {"default-address-pool": ["junk"]}],
)  # fmt: skip
def test_flags_that_mean_nothing_are_refused(flags):
    with pytest.raises(OrlopError):
        read_network_settings(flags)


def test_no_flags_are_a_bridge_of_our_own():
    assert read_network_settings({}) == NetworkSettings()
    assert NetworkSettings().has_bridge
