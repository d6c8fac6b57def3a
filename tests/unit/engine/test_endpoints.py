"""What containers are given of networks, and how they let go of it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fakes.containers import scenario
from fakes.networks import join_networks
from orlop.base.errors import InvalidInput
from orlop.engine.connecting import Connections
from orlop.engine.filters import Filters
from orlop.engine.lifecycle import Status
from orlop.engine.network_checks import NetworkForbidden
from orlop.engine.network_model import (
    ConnectRequest,
    DisconnectRequest,
    IpamDocument,
    IpamPool,
    NetworkCreateRequest,
)
from orlop.engine.networks import NoSuchNetwork
from orlop.engine.portmap import PortInUse
from orlop.engine.requests import (
    ContainerConfig,
    CreateRequest,
    EndpointSettings,
    HostConfig,
    IpamConfig,
    NetworkingConfig,
    PortBinding,
)
from orlop.network.ipam import AddressTaken
from orlop.runtime.contract import StartFailed

BRIDGED = HostConfig(network_mode="bridge")


def published(*ports):
    return HostConfig(
        network_mode="bridge", port_bindings={"80/tcp": tuple(PortBinding("", str(port)) for port in ports)}
    )


async def run(made, name, networks, **wishes):
    """A container on several networks, the first being its mode."""
    given = {network: wishes.get(network, EndpointSettings()) for network in networks}
    request = CreateRequest(
        ContainerConfig(image="busybox"), HostConfig(network_mode=networks[0]), NetworkingConfig(given), name
    )
    await made.containers.create(request)
    await made.containers.start(name)
    watch_endpoints(made)
    return made.containers.get(name)


def watch_endpoints(made):
    """The fake task remembers what it was told."""
    task, spec = made.runtime.tasks[-1], made.runtime.specs[-1]
    task.present = {one.id: one for one in spec.endpoints}

    async def attach(endpoint):
        task.present[endpoint.id] = endpoint

    async def detach(endpoint_id):
        task.present.pop(endpoint_id, None)

    async def endpoints():
        return list(task.present.values())

    async def serve_names(server, *_rest):
        task.name_server = server

    task.serve_names = serve_names
    task.attach_endpoint, task.detach_endpoint, task.endpoints = attach, detach, endpoints


async def make(networks, name="net", **given):
    await networks.create(NetworkCreateRequest(name=name, **given))


def file_of(made, container):
    return os.path.join(made.services.exec_root, "containers", container.id, "network.json")


@scenario
async def test_a_start_gives_an_address_a_gateway_and_a_name(made):
    await join_networks(made)
    container, _ = await made.run(host=BRIDGED)
    (spec,) = made.runtime.specs[-1].endpoints

    assert (spec.name, spec.bridge, spec.addresses, spec.gateways) == (
        "eth0",
        "orlop0",
        ("172.17.0.2/24",),
        ("172.17.0.1",),
    )
    assert spec.mac == "02:42:ac:11:00:02"
    assert len(spec.host_name) == 15
    shown = (await made.containers.inspect("web")).network_settings
    assert (shown.ip_address, shown.gateway, shown.networks["bridge"].ip_prefix_len) == (
        "172.17.0.2",
        "172.17.0.1",
        24,
    )
    assert json.loads(Path(file_of(made, container)).read_text())["Endpoints"][0]["Spec"]["Id"] == spec.id


@scenario
async def test_an_exit_lets_go_of_everything(made):
    networks = await join_networks(made)
    container, task = await made.run(host=published(8080))
    assert len(networks.host.ports) == 1
    task.end()
    await made.until("container", "die")
    await made.services.endpoints.drain()

    assert (container.network, networks.host.ports) == (None, set())
    assert not os.path.exists(file_of(made, container))
    again, _ = await made.run("next", host=published(8080))
    assert again.network.endpoints[0].spec.addresses == ("172.17.0.3/24",)  # a fresh one


@scenario
async def test_a_failed_start_lets_go_of_everything(made):
    networks = await join_networks(made)
    made.runtime.fails = "no such program"
    with pytest.raises(StartFailed):
        await made.run(host=published(8080))

    container = made.containers.get("web")
    assert (container.network, networks.host.ports, os.path.exists(file_of(made, container))) == (
        None,
        set(),
        False,
    )


@scenario
async def test_a_taken_port_fails_the_start_and_leaves_the_owners_rule(made):
    networks = await join_networks(made)
    owner, _ = await made.run("owner", host=published(8080))

    with pytest.raises(PortInUse, match=r"on endpoint web \([0-9a-f]{64}\): Bind for 0.0.0.0:8080 failed"):
        await made.run(host=published(8080))
    await made.services.endpoints.drain()

    assert networks.host.ports == {port.rule() for port in owner.network.ports}
    assert made.containers.get("web").status is Status.CREATED


@scenario
async def test_the_way_out_has_the_highest_priority_and_is_not_internal(made):
    networks = await join_networks(made)
    await make(networks, "inside", internal=True)
    await make(networks, "late")
    await make(networks, "first")
    await run(
        made,
        "web",
        ["inside", "first", "late"],
        late=EndpointSettings(gw_priority=1),
        inside=EndpointSettings(gw_priority=2),
    )

    specs = made.runtime.specs[-1].endpoints
    named = {
        networks.find(item.network_id).name: item.spec
        for item in made.containers.get("web").network.endpoints
    }
    assert [spec.name for spec in specs] == ["eth0", "eth1", "eth2"]
    assert [bool(named[name].gateways) for name in ("inside", "late", "first")] == [False, True, False]


@scenario
async def test_addresses_that_are_asked_for(made):
    networks = await join_networks(made)
    await make(networks, ipam=IpamDocument(config=(IpamPool("10.1.0.0/24"), IpamPool("10.2.0.0/24"))))
    wish = EndpointSettings(ipam_config=IpamConfig("10.2.0.9"), mac_address="02-42-00-00-00-AA")
    container = await run(made, "web", ["net"], net=wish)
    (endpoint,) = container.network.endpoints

    assert (endpoint.spec.addresses, endpoint.spec.mac) == (("10.2.0.9/24",), "02:42:00:00:00:aa")
    with pytest.raises(AddressTaken):
        await run(made, "next", ["net"], net=wish)
    with pytest.raises(InvalidInput, match="no configured subnet"):
        await run(made, "third", ["net"], net=EndpointSettings(ipam_config=IpamConfig("10.3.0.9")))


@pytest.mark.parametrize("mac", ["junk", "02:42:00:00:00", "01:42:00:00:00:aa", "02:42:00:00:00:aa\n"])
def test_link_addresses_that_make_no_sense(mac, tmp_path):
    @scenario
    async def check(made):
        await join_networks(made)
        with pytest.raises(InvalidInput, match="invalid MAC address"):
            await run(made, "web", ["bridge"], bridge=EndpointSettings(mac_address=mac))

    check(tmp_path)


@scenario
async def test_a_network_that_is_not_there_is_said_at_the_start(made):
    await join_networks(made)
    await made.create(host=HostConfig(network_mode="gone"))

    with pytest.raises(NoSuchNetwork, match="network gone not found"):
        await made.containers.start("web")


@scenario
async def test_without_a_default_network_there_is_just_the_loopback_interface(made):
    networks = await join_networks(made, bridge="none")
    await made.run(host=BRIDGED)

    assert made.runtime.specs[-1].endpoints == ()
    assert networks.host.has_rules is False


@scenario
async def test_a_container_may_want_no_network_at_all(made):
    await join_networks(made)
    await made.run(host=BRIDGED, network_disabled=True)

    assert made.runtime.specs[-1].endpoints == ()


@scenario
async def test_connect_and_disconnect_before_the_start(made):
    networks = await join_networks(made)
    await make(networks)
    connections = Connections(made.services, networks)
    await made.create(host=BRIDGED)
    await connections.connect("net", ConnectRequest("web", EndpointSettings(aliases=("db",))))
    await connections.disconnect("bridge", DisconnectRequest("web"))
    await made.containers.start("web")

    container = made.containers.get("web")
    assert [item.network for item in container.network.endpoints] == ["net"]
    assert (await made.containers.inspect("web")).network_settings.networks["net"].aliases == ("db",)
    assert made.actions()[-2:] == ["connect", "start"]


@scenario
async def test_connect_and_disconnect_while_it_runs(made):
    networks = await join_networks(made)
    await make(networks)
    connections = Connections(made.services, networks)
    container, task = await made.run(host=published(8080))
    watch_endpoints(made)
    await connections.connect("net", ConnectRequest("web"))
    with pytest.raises(NetworkForbidden, match="endpoint with name web already exists in network net"):
        await connections.connect("net", ConnectRequest("web"))

    assert {spec.name: bool(spec.gateways) for spec in task.present.values()} == {"eth0": True, "eth1": False}
    await connections.disconnect("bridge", DisconnectRequest("web"))
    (left,) = task.present.values()
    (port,) = networks.host.ports
    assert (left.name, bool(left.gateways), port.host_port) == ("eth1", True, 8080)
    assert left.addresses[0].startswith(str(port.address))

    await connections.disconnect("net", DisconnectRequest("web"))
    assert (task.present, networks.host.ports, container.network.endpoints) == ({}, set(), ())
    for is_forced in (False, True):
        with pytest.raises(NetworkForbidden, match="is not connected to network net"):
            await connections.disconnect("net", DisconnectRequest("web", force=is_forced))
    await connections.disconnect("net", DisconnectRequest("nobody", force=True))

    await connections.connect("bridge", ConnectRequest("web"))
    assert {one.host_port for one in networks.host.ports} == {8080}


@pytest.mark.parametrize("mode", ["host", "none", "container:other"])
def test_containers_without_interfaces_of_their_own_join_nothing(mode, tmp_path):
    @scenario
    async def check(made):
        networks = await join_networks(made)
        connections = Connections(made.services, networks)
        await made.run("other")
        await made.create(host=HostConfig(network_mode=mode))
        with pytest.raises(InvalidInput):
            await connections.connect("bridge", ConnectRequest("web"))

    check(tmp_path)


@scenario
async def test_an_attach_that_fails_is_taken_back(made):
    networks = await join_networks(made)
    await make(networks)
    container, task = await made.run(host=BRIDGED)
    watch_endpoints(made)
    before = container.network

    async def attach(endpoint):
        raise StartFailed("no", exit_code=1, step="x")

    task.attach_endpoint = attach
    with pytest.raises(StartFailed):
        await Connections(made.services, networks).connect("net", ConnectRequest("web"))

    assert container.network == before
    assert set((await made.containers.inspect("web")).network_settings.networks) == {"bridge"}
    await networks.remove("net")


@scenario
async def test_the_next_engine_takes_over_what_both_sides_know(made):
    networks = await join_networks(made)
    await make(networks)
    container, task = await made.run(host=published(8080))
    watch_endpoints(made)
    known = container.network
    stray = known.endpoints[0].spec
    task.present["stray"] = type(stray)("stray", "eth1", "veth0", "br", stray.mac, ())
    container.network = None

    made.services.endpoints.adopted(container)
    await made.services.endpoints.settle(container, task)
    networks.host.ports = set()
    await networks.recover()

    assert container.network == known
    assert set(task.present) == {known.endpoints[0].spec.id}
    assert networks.host.ports == {port.rule() for port in known.ports}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"Endpoints": 7}', '{"Endpoints": [{"Spec": null}]}'])
def test_a_damaged_file_is_no_reason_not_to_start(text, tmp_path):
    @scenario
    async def check(made):
        await join_networks(made)
        container, task = await made.run(host=BRIDGED)
        watch_endpoints(made)
        with open(file_of(made, container), "w") as file:
            file.write(text)
        container.network = None
        made.services.endpoints.adopted(container)
        await made.services.endpoints.settle(container, task)
        assert (await made.containers.list(made_options()))[0].names == ("/web",)

    check(tmp_path)


def made_options():
    from orlop.engine.summaries import ListOptions

    return ListOptions(is_all=True, filters=Filters())
