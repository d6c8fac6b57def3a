"""Bridge networks with the docker client, in a network namespace that plays the host."""

import json
import time

import pytest
from conftest import load_busybox

from support.netspace import BridgedOrlopd

SERVE = "while true; do echo {} | nc -l -p 80; done"


@pytest.fixture(scope="module")
def engine():
    with BridgedOrlopd() as running:
        load_busybox(running)
        yield running


@pytest.fixture(autouse=True)
def _leaves_nothing(request):
    """Whatever a test makes is gone from the host when its containers and networks are."""
    yield
    if "engine" in request.fixturenames:
        engine = request.getfixturevalue("engine")
        engine.remove_containers()
        engine.docker("network", "prune", "-f")
        until(lambda: plain_host(engine))


def plain_host(engine):
    facts = engine.space.facts()
    names = [name for name in facts["links"] if name != "lo"]
    return len(facts["tables"]) == 1 and names == [bridge_of(engine, "bridge")]


def until(condition, timeout=15):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "in vain"
        time.sleep(0.05)


def bridge_of(engine, network):
    return inspect(engine, network)["Options"].get(
        "com.docker.network.bridge.name", f"br-{inspect(engine, network)['Id'][:12]}"
    )


def inspect(engine, name):
    return json.loads(engine.docker("inspect", name).stdout)[0]


def serve(engine, name, *options, says="hello"):
    engine.docker("run", "-d", "--name", name, *options, "busybox", "sh", "-c", SERVE.format(says))


def address(engine, name, network="bridge"):
    return inspect(engine, name)["NetworkSettings"]["Networks"][network]["IPAddress"]


def asks(engine, client, host, port=80):
    """What a server says to a container."""
    done = engine.docker("exec", client, "nc", "-w", "2", host, port, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def refusal(engine, *args):
    done = engine.docker(*args, check=False)
    assert done.returncode != 0
    return done.stderr


def test_containers_on_the_default_bridge_reach_the_gateway_and_each_other(engine):
    serve(engine, "web")
    gateway = inspect(engine, "bridge")["IPAM"]["Config"][0]["Gateway"]
    serve(engine, "client")

    engine.docker("exec", "client", "ping", "-c", "1", "-w", "5", gateway)
    until(lambda: asks(engine, "client", address(engine, "web")) == "hello")
    own = address(engine, "client")
    assert (
        f"{own}\t{inspect(engine, 'client')['Id'][:12]}"
        in engine.docker("exec", "client", "cat", "/etc/hosts").stdout
    )
    assert set(inspect(engine, "bridge")["Containers"]) == {
        inspect(engine, name)["Id"] for name in ("web", "client")
    }
    assert engine.docker("ps", "-q", "--filter", "network=bridge").stdout.count("\n") == 2


def test_published_ports_are_reached_on_every_address_of_the_host(engine):
    serve(engine, "web", "-p", "8080:80", "-p", "127.0.0.1:8090-8091:80")
    gateway = inspect(engine, "bridge")["IPAM"]["Config"][0]["Gateway"]

    until(lambda: engine.space.reach("127.0.0.1", 8080) == "hello")
    until(lambda: engine.space.reach(gateway, 8080) == "hello")
    until(lambda: engine.space.reach("127.0.0.1", 8090) == "hello")
    assert engine.space.reach(gateway, 8090, timeout=0.5) is None
    assert set(engine.docker("port", "web", "80").stdout.split()) == {"0.0.0.0:8080", "127.0.0.1:8090"}
    assert "0.0.0.0:8080->80/tcp" in engine.docker("ps", "--format", "{{.Ports}}").stdout

    engine.docker("stop", "-t", "0", "web")
    assert engine.docker("port", "web").stdout == ""
    until(lambda: engine.space.reach("127.0.0.1", 8080, timeout=0.5) is None)
    engine.docker("start", "web")
    until(lambda: engine.space.reach("127.0.0.1", 8080) == "hello")


def test_random_ports_differ_and_taken_ones_are_refused(engine):
    serve(engine, "one", "-p", "80", says="one")
    serve(engine, "two", "-P", "--expose", "80", says="two")
    ports = {
        name: int(engine.docker("port", name, "80").stdout.rpartition(":")[2]) for name in ("one", "two")
    }

    assert len(set(ports.values())) == 2
    for name, port in ports.items():
        until(lambda name=name, port=port: engine.space.reach("127.0.0.1", port) == name)
    said = refusal(engine, "run", "--name", "three", "-p", f"{ports['one']}:80", "busybox")
    assert "driver failed programming external connectivity on endpoint three" in said
    assert f"Bind for 0.0.0.0:{ports['one']} failed: port is already allocated" in said
    assert inspect(engine, "three")["State"]["Status"] == "created"


def test_a_port_of_a_process_of_the_host_is_refused(engine):
    listener = engine.space.popen("busybox", "nc", "-l", "-p", "8085")
    try:
        until(lambda: ":1F95 " in engine.space.run("cat", "/proc/net/tcp", "/proc/net/tcp6").stdout)
        said = refusal(engine, "run", "--rm", "-p", "8085:80", "busybox")
    finally:
        listener.kill()
        listener.wait()
    assert "address already in use" in said


def test_two_networks_do_not_reach_each_other(engine):
    engine.docker("network", "create", "left")
    engine.docker("network", "create", "right")
    serve(engine, "aa", "--network", "left")
    serve(engine, "bb", "--network", "right")
    serve(engine, "cc", "--network", "left")

    until(lambda: asks(engine, "cc", address(engine, "aa", "left")) == "hello")
    assert asks(engine, "bb", address(engine, "aa", "left")) is None


def test_an_internal_network_has_no_way_out(engine):
    engine.docker("network", "create", "--internal", "inside")
    engine.docker("run", "--name", "aa", "--network", "inside", "busybox", "ip", "route")

    assert "default" not in engine.docker("logs", "aa").stdout


def test_a_network_from_create_to_removal(engine):
    created = engine.docker(
        "network", "create", "--subnet", "10.80.0.0/24", "--ip-range", "10.80.0.128/25", "--gateway", "10.80.0.9",
        "--aux-address", "x=10.80.0.129", "--label", "a=b", "-o", "com.docker.network.driver.mtu=1400", "-o", "com.docker.network.bridge.name=mine", "net",
    ).stdout.strip()  # fmt: skip

    assert "mine" in engine.space.facts()["links"]
    assert "10.80.0.9/24" in engine.space.facts()["addresses"]
    shown = inspect(engine, "net")
    assert (shown["Id"], shown["Labels"], shown["Driver"]) == (created, {"a": "b"}, "bridge")
    assert shown["IPAM"]["Config"] == [
        {"Subnet": "10.80.0.0/24", "IPRange": "10.80.0.128/25", "Gateway": "10.80.0.9", "AuxiliaryAddresses": {"x": "10.80.0.129"}}
    ]  # fmt: skip
    assert engine.docker("network", "ls", "--filter", "label=a=b", "--format", "{{.Name}}").stdout == "net\n"
    assert "already exists" in refusal(engine, "network", "create", "net")
    assert "overlaps" in refusal(engine, "network", "create", "--subnet", "10.80.0.0/16", "other")
    serve(engine, "aa", "--network", "net")
    assert address(engine, "aa", "net") == "10.80.0.128"
    assert engine.docker("exec", "aa", "cat", "/sys/class/net/eth0/mtu").stdout == "1400\n"
    assert "has active endpoints" in refusal(engine, "network", "rm", "net")
    engine.docker("rm", "-f", "aa")
    engine.docker("network", "rm", "net")
    assert "mine" not in engine.space.facts()["links"]
    assert "network net not found" in refusal(engine, "run", "--network", "net", "busybox")
    assert "pre-defined" in refusal(engine, "network", "rm", "bridge")


def test_addresses_that_were_asked_for(engine):
    engine.docker("network", "create", "--subnet", "10.81.0.0/24", "net")
    serve(
        engine,
        "aa",
        "--network",
        "net",
        "--ip",
        "10.81.0.77",
        "--mac-address",
        "02:42:00:00:00:77",
        "--network-alias",
        "db",
    )

    own = inspect(engine, "aa")["NetworkSettings"]["Networks"]["net"]
    assert (own["IPAddress"], own["MacAddress"], own["Aliases"]) == (
        "10.81.0.77",
        "02:42:00:00:00:77",
        ["db"],
    )
    assert set(own["DNSNames"]) >= {"aa", "db"}
    assert "10.81.0.77/24" in engine.docker("exec", "aa", "ip", "-4", "addr").stdout
    assert "Address already in use" in refusal(
        engine, "run", "--network", "net", "--ip", "10.81.0.77", "busybox"
    )
    assert "user defined networks only" in refusal(
        engine, "run", "--network", "bridge", "--ip", "172.17.0.77", "busybox"
    )
    engine.docker("restart", "-t", "0", "aa")
    assert address(engine, "aa", "net") == "10.81.0.77"


def test_connect_and_disconnect_while_it_runs(engine):
    engine.docker("network", "create", "more")
    serve(engine, "web", "-p", "8086:80")
    serve(engine, "client", "--network", "more")
    engine.docker("network", "connect", "--alias", "w", "more", "web")

    until(lambda: asks(engine, "client", address(engine, "web", "more")) == "hello")
    assert "already exists in network more" in refusal(engine, "network", "connect", "more", "web")
    engine.docker("network", "disconnect", "bridge", "web")
    assert set(inspect(engine, "web")["NetworkSettings"]["Networks"]) == {"more"}
    assert "default via" in engine.docker("exec", "web", "ip", "route").stdout
    until(lambda: engine.space.reach("127.0.0.1", 8086) == "hello")
    engine.docker("network", "disconnect", "more", "web")
    assert engine.docker("exec", "web", "ip", "-4", "-o", "addr").stdout.count("inet") == 1
    assert "is not connected" in refusal(engine, "network", "disconnect", "more", "web")
    engine.docker("network", "connect", "bridge", "web")
    until(lambda: engine.space.reach("127.0.0.1", 8086) == "hello")


def test_connect_before_the_start(engine):
    engine.docker("network", "create", "more")
    engine.docker("create", "--name", "aa", "busybox", "ip", "-4", "-o", "addr")
    engine.docker("network", "connect", "more", "aa")

    assert engine.docker("start", "-a", "aa").stdout.count("eth") >= 2


def test_the_network_of_another_container(engine):
    serve(engine, "web")
    done = engine.docker("run", "--rm", "--network", "container:web", "busybox", "ip", "-4", "-o", "addr")

    assert address(engine, "web") in done.stdout


def test_host_gateway_is_the_host(engine):
    done = engine.docker("run", "--rm", "--add-host", "h:host-gateway", "busybox", "cat", "/etc/hosts")

    assert f"{inspect(engine, 'bridge')['IPAM']['Config'][0]['Gateway']}\th" in done.stdout


def test_rules_that_somebody_flushed_come_back(engine):
    serve(engine, "web", "-p", "8087:80")
    until(lambda: engine.space.reach("127.0.0.1", 8087) == "hello")
    engine.space.flush_rules()

    until(lambda: engine.space.reach("127.0.0.1", 8087, timeout=0.5) == "hello")


def test_a_killed_engine_leaves_the_traffic_and_the_next_one_knows_everything(engine):
    engine.docker("network", "create", "net")
    serve(engine, "web", "--network", "net", "-p", "8088:80")
    before = inspect(engine, "web")["NetworkSettings"]
    engine.kill()

    until(lambda: engine.space.reach("127.0.0.1", 8088) == "hello")
    engine.start()
    assert inspect(engine, "web")["NetworkSettings"] == before
    until(lambda: engine.space.reach("127.0.0.1", 8088) == "hello")
    assert "already allocated" in refusal(engine, "run", "-p", "8088:80", "busybox")
    engine.docker("rm", "-f", "web")
    engine.docker("network", "rm", "net")
    until(lambda: engine.space.reach("127.0.0.1", 8088, timeout=0.5) is None)


def test_a_container_that_ended_without_an_engine_frees_its_ports(engine):
    serve(engine, "web", "-p", "8089:80")
    pid = inspect(engine, "web")["State"]["Pid"]
    engine.kill()
    engine.space.run("kill", "-9", pid)
    engine.start()

    serve(engine, "next", "-p", "8089:80", says="next")
    until(lambda: engine.space.reach("127.0.0.1", 8089) == "next")


def test_events_of_networks(engine):
    since = time.time()
    engine.docker("network", "create", "net")
    engine.docker("run", "--rm", "--network", "net", "busybox")
    engine.docker("network", "rm", "net")

    told = engine.docker(
        "events",
        "--since",
        f"{since:.3f}",
        "--until",
        f"{time.time():.3f}",
        "--filter",
        "type=network",
        "--format",
        "{{.Action}}",
    )
    assert told.stdout.split() == ["create", "connect", "disconnect", "destroy"]


def test_steps_of_a_build_are_on_the_default_network(engine, tmp_path):
    serve(engine, "web")
    (tmp_path / "Dockerfile").write_text(
        f"FROM busybox\nRUN nc -w 5 {address(engine, 'web')} 80 > /said && grep hello /said\n"
    )
    until(lambda: asks(engine, "web", address(engine, "web")) == "hello")

    engine.docker("build", "-t", "asked", tmp_path)
    assert engine.docker("build", "--network", "none", "--no-cache", tmp_path, check=False).returncode != 0
    engine.docker("rmi", "asked")
