"""Interfaces of containers on a bridge; the host's side is a namespace made for the test."""

from __future__ import annotations

import asyncio
import ipaddress
import threading

import pytest

from orlop.kernel import namespaces
from orlop.kernel.rtnetlink import RouteSocket, change_link, new_address, new_bridge
from orlop.runtime.contract import StartFailed, TaskRefused
from orlop.runtime.spec import EndpointSpec, IdMapping, UserNamespaceSpec

pytestmark = pytest.mark.root
IDS = (IdMapping(0, 3_000_000, 65536),)
SHOW = (
    "ip -4 -o addr show eth0; ip route; cat /sys/class/net/eth0/address /sys/class/net/eth0/mtu; ip -6 addr"
)


@pytest.fixture
def networked(containers):
    """`containers`, in a network namespace of its own with a bridge `br0`."""

    def run(scenario):
        found = []

        def work():
            namespaces.unshare(namespaces.CLONE_NEWNET)
            with RouteSocket() as routes:
                routes.send([new_bridge("br0"), change_link(1, is_up=True)])
                index = routes.link("br0").index
                addresses = [ipaddress.ip_interface(text) for text in ("10.9.0.1/24", "fd00:9::1/64")]
                routes.send([new_address(index, address) for address in addresses])
                routes.send([change_link(index, is_up=True)])
            try:
                found.append(containers(scenario))
            except BaseException as error:
                found.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        if isinstance(found[0], BaseException):
            raise found[0]
        return found[0]

    return run


def endpoint(number=2, **settings):
    values = {
        "id": f"{number:064x}",
        "name": "eth0",
        "host_name": f"veth{number}",
        "bridge": "br0",
        "mac": f"02:42:0a:09:00:{number:02x}",
        "addresses": (f"10.9.0.{number}/24",),
        "gateways": ("10.9.0.1",),
        "mtu": 1400,
    }
    return EndpointSpec(**values | settings)


def links():
    with RouteSocket() as routes:
        return {link.name: link for link in routes.links()}


def test_an_endpoint_is_there_when_the_program_begins(networked):
    output = networked(lambda h: h.shell(SHOW + "; ping -c 1 -W 5 10.9.0.1", endpoints=(endpoint(),)))

    text = output.stdout.decode()
    assert "inet 10.9.0.2/24 brd 10.9.0.255" in text
    assert "default via 10.9.0.1 dev eth0" in text
    assert "02:42:0a:09:00:02\n1400\n" in text
    assert "inet6" not in text.partition("eth0")[2].partition("inet6 ::1")[0]
    assert "fe80" not in text
    assert "1 packets received" in text


def test_both_versions_and_two_interfaces(networked):
    six = endpoint(3, addresses=("10.9.0.3/24", "fd00:9::3/64"), gateways=("10.9.0.1", "fd00:9::1"))
    other = endpoint(4, name="eth1", gateways=())

    output = networked(lambda h: h.shell("ip -o addr; ping -c 1 -W 5 fd00:9::1", endpoints=(six, other)))

    text = output.stdout.decode()
    assert "fd00:9::3/64 scope global" in text
    assert "eth1    inet 10.9.0.4/24" in text
    assert "1 packets received" in text


def test_a_user_namespace_has_its_endpoints_too(networked):
    own = UserNamespaceSpec(IDS, IDS)

    output = networked(
        lambda h: h.shell(
            "ping -c 1 -W 5 10.9.0.1; cat /proc/self/uid_map", endpoints=(endpoint(),), user_namespace=own
        )
    )

    assert b"1 packets received" in output.stdout
    assert b"3000000" in output.stdout


def test_interfaces_come_and_go_while_the_container_runs(networked):
    async def scenario(h):
        task, stream = await h.start("sleep", "100", endpoints=(endpoint(),))
        await task.attach_endpoint(endpoint(5, name="eth1", gateways=()))
        both = {item.name for item in await task.endpoints()}
        shown = (await h.exec(task, "ip", "-o", "addr")).stdout
        await task.detach_endpoint(endpoint(5).id)
        await task.detach_endpoint(endpoint(5).id)
        one = {item.name for item in await task.endpoints()}
        here = set(links())
        with pytest.raises(TaskRefused, match="no interface br9"):
            await task.attach_endpoint(endpoint(6, name="eth1", bridge="br9"))
        with pytest.raises(TaskRefused):
            await task.attach_endpoint(endpoint(7))  # there is an eth0
        after = set(links())
        await task.signal(9)
        await task.wait()
        stream.close()
        return both, shown, one, here, after

    both, shown, one, here, after = networked(scenario)
    assert (both, one) == ({"eth0", "eth1"}, {"eth0"})
    assert b"10.9.0.5/24" in shown
    assert {"veth2"} <= here
    assert not {"veth5", "veth6", "veth7"} & (here | after)


def test_isolated_endpoints_reach_the_gateway_only(networked):
    async def scenario(h):
        first, one = await h.start("sleep", "100", endpoints=(endpoint(2, is_isolated=True),))
        second, two = await h.start("sleep", "100", endpoints=(endpoint(3, is_isolated=True),))
        gateway = (await h.exec(second, "ping", "-c", "1", "-W", "5", "10.9.0.1")).stdout
        neighbour = (await h.exec(second, "ping", "-c", "1", "-W", "1", "10.9.0.2")).stdout
        one.close(), two.close()
        for task in (first, second):
            await task.signal(9)
            await task.wait()
        return gateway, neighbour

    gateway, neighbour = networked(scenario)
    assert b"1 packets received" in gateway
    assert b"0 packets received" in neighbour


def test_a_network_that_is_gone_fails_the_start_and_leaves_nothing(networked):
    async def scenario(h):
        with pytest.raises(StartFailed, match="no interface br9"):
            await h.shell("true", endpoints=(endpoint(bridge="br9"),))
        return set(links())

    assert "veth2" not in networked(scenario)


def test_the_end_of_a_container_takes_its_interfaces(networked):
    async def scenario(h):
        await h.shell("true", endpoints=(endpoint(),))
        for _ in range(200):
            if "veth2" not in links():
                return True
            await asyncio.sleep(0.02)
        return False

    assert networked(scenario)
