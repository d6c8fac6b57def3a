"""Names of containers with the docker client: the server at 127.0.0.11, as programs in containers see it."""

from __future__ import annotations

import json
import time

import pytest
from conftest import load_busybox

from support.netspace import BridgedOrlopd

IDLE = ("busybox", "sleep", "1000")


@pytest.fixture(scope="module")
def engine():
    with BridgedOrlopd() as running:
        load_busybox(running)
        running.docker("network", "create", "front")
        running.docker("network", "create", "back")
        yield running
        running.remove_containers()


@pytest.fixture(autouse=True)
def _no_containers(engine):
    yield
    engine.remove_containers()


def run(engine, name, *options):
    return engine.docker("run", "-d", "--name", name, *options, *IDLE).stdout.strip()


def address(engine, name, network="front"):
    found = json.loads(engine.docker("inspect", name).stdout)[0]
    return found["NetworkSettings"]["Networks"][network]["IPAddress"]


def look(engine, client, name):
    """The addresses of a name, as a program in a container gets them."""
    done = engine.docker("exec", client, "nslookup", "-type=a", name, check=False)
    return {line.split()[1] for line in done.stdout.splitlines()[2:] if line.startswith("Address:")}


def until(condition, timeout=15):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "in vain"
        time.sleep(0.05)


def test_containers_are_found_by_all_their_names_and_reached(engine):
    web = run(engine, "web", "--network", "front", "--network-alias", "shop", "--hostname", "deck")
    run(engine, "client", "--network", "front")
    own = {address(engine, "web")}

    for name in ("web", "WEB", "shop", web[:12], "deck", "web.front"):
        assert look(engine, "client", name) == own
    engine.docker("exec", "client", "ping", "-c", "1", "-w", "5", "web")
    back = engine.docker("exec", "client", "nslookup", *own).stdout
    assert "name = web.front" in back
    assert (
        engine.docker("exec", "client", "cat", "/etc/resolv.conf").stdout.splitlines()[0]
        == "nameserver 127.0.0.11"
    )


def test_an_alias_of_several_leads_to_all_of_them(engine):
    for name in ("one", "two"):
        run(engine, name, "--network", "front", "--network-alias", "db")
    run(engine, "client", "--network", "front")

    assert look(engine, "client", "db") == {address(engine, "one"), address(engine, "two")}
    engine.docker("rm", "-f", "one")
    until(lambda: look(engine, "client", "db") == {address(engine, "two")})


def test_names_stay_within_their_network(engine):
    run(engine, "web", "--network", "front")
    run(engine, "stranger", "--network", "back")
    run(engine, "plain")

    assert look(engine, "stranger", "web") == set()
    assert "127.0.0.11" not in engine.docker("exec", "plain", "cat", "/etc/resolv.conf").stdout


def test_names_follow_connections_and_new_names(engine):
    run(engine, "web", "--network", "front")
    run(engine, "client", "--network", "back")

    engine.docker("network", "connect", "--alias", "guest", "front", "client")
    assert look(engine, "client", "web") == {address(engine, "web")}
    assert look(engine, "web", "guest") == {address(engine, "client")}
    engine.docker("rename", "web", "shop")
    assert look(engine, "client", "shop") == {address(engine, "shop")}
    assert look(engine, "client", "web") == set()
    engine.docker("network", "disconnect", "front", "client")
    assert look(engine, "client", "shop") == set()


def test_names_are_answered_without_an_engine_and_after_it(engine):
    run(engine, "web", "--network", "front")
    pid = json.loads(engine.docker("inspect", run(engine, "client", "--network", "front")).stdout)[0][
        "State"
    ]["Pid"]
    own = address(engine, "web")

    engine.kill()
    done = engine.space.run(
        "nsenter", f"--net=/proc/{pid}/ns/net", "busybox", "nslookup", "web", "127.0.0.11", check=False
    )
    engine.start()

    assert own in done.stdout
    assert look(engine, "client", "web") == {own}
    run(engine, "late", "--network", "front")
    assert look(engine, "client", "late") == {address(engine, "late")}
