"""The engine crashes at every step boundary of networks; the next one brings rows, files and host together."""

from __future__ import annotations

import json
import time

import pytest

from support import images, orlopd
from support.failpoint_names import declared
from support.netspace import BridgedOrlopd

SERVE = "while true; do echo hello | nc -l -p 80; done"
OPERATIONS = {
    "network.create": ("network", "create", "made"),
    "network.bridge.made": ("network", "create", "made"),
    "network.bridge.removed": ("network", "rm", "spare"),
    "network.remove": ("network", "rm", "spare"),
    "network.endpoints": ("start", "next"),
    "network.ports": ("start", "next"),
    "network.connect": ("network", "connect", "more", "web"),
    "network.disconnect": ("network", "disconnect", "bridge", "web"),
}
POINTS = sorted(name for name in declared() if name.startswith("network."))


@pytest.fixture
def engine():
    if reason := orlopd.missing():
        pytest.skip(reason)
    with BridgedOrlopd() as running:
        running.docker("load", input=images.busybox_archive("busybox:latest"))
        running.docker("network", "create", "spare")
        running.docker("network", "create", "more")
        running.docker("run", "-d", "--name", "web", "-p", "8080:80", "busybox", "sh", "-c", SERVE)
        running.docker("create", "--name", "next", "-p", "8081:80", "busybox", "sh", "-c", SERVE)
        yield running


def until(condition, timeout=15):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "in vain"
        time.sleep(0.05)


def inspect(engine, *names):
    return json.loads(engine.docker("inspect", *names).stdout)


def agree(engine):
    """Every interface of the host belongs to a network or an endpoint that clients see, and the other way."""
    names = engine.docker("network", "ls", "-q", "--filter", "driver=bridge").stdout.split()
    networks = inspect(engine, *names)
    bridges = {
        one["Options"].get("com.docker.network.bridge.name", f"br-{one['Id'][:12]}") for one in networks
    }
    ends = {f"veth{user['EndpointID'][:11]}" for one in networks for user in one["Containers"].values()}
    return set(engine.space.facts()["links"]) == {"lo"} | bridges | ends


@pytest.mark.parametrize("point", POINTS)
def test_a_crash_is_made_good_by_the_next_start(engine, point):
    operation = next(words for prefix, words in OPERATIONS.items() if point.startswith(prefix))
    engine.stop()
    engine.environ["ORLOP_FAILPOINTS"] = f"{point}=crash@1"
    engine.start()
    assert engine.docker(*operation, check=False).returncode != 0
    engine.process.wait(10)
    del engine.environ["ORLOP_FAILPOINTS"]
    engine.start()

    until(lambda: agree(engine))
    if operation[1] != "disconnect":  # which took its only way out
        until(lambda: engine.space.reach("127.0.0.1", 8080) == "hello")
    (web,) = inspect(engine, "web")
    own = [item["IPAddress"] for item in web["NetworkSettings"]["Networks"].values()]
    inside = engine.docker("exec", "web", "ip", "-4", "-o", "addr").stdout
    assert all(address and address in inside for address in own), (own, inside)
    assert inside.count("eth") >= len(own)

    engine.docker(*operation, check=False)  # what did not happen can be done, what did is said to have been
    engine.docker("start", "next")
    until(lambda: engine.space.reach("127.0.0.1", 8081) == "hello")
    engine.remove_containers()
    engine.docker("network", "prune", "-f")
    until(lambda: len(engine.space.facts()["links"]) == 2)
