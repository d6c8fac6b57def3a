"""Supervisors that are killed, and supervisors that stand still."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from fault_api import Api

from support.images import busybox_archive
from support.orlopd import Orlopd

pytestmark = pytest.mark.faults
_TOLD_S = 2.0  # within which an end must be known
_WAIT_S = 20
_AT_ONCE_S = 2.0  # far below what waiting for a wedged container would take


@pytest.fixture(scope="module")
def engine():
    with Orlopd() as running:
        running.docker("load", input=busybox_archive("busybox:latest"))
        yield running


@pytest.fixture
def api(engine):
    yield Api(engine.socket, timeout_s=40)
    engine.remove_containers()


def until(condition, timeout_s=_WAIT_S):
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "does not happen"
        time.sleep(0.01)
    return value


def run(api, name, *command, **host):
    body = {"Image": "busybox", "Cmd": command, "HostConfig": {"NetworkMode": "none", **host}}
    identifier = api.ok("POST", "/containers/create", body, name=name).json["Id"]
    api.ok("POST", f"/containers/{name}/start")
    return identifier


def record(engine, identifier):
    """The record of a container that runs: it is complete a moment after the start was answered."""
    path = engine.exec_root / "containers" / identifier / "record"
    return until(lambda: (facts := json.loads(path.read_text()))["init_pid"] and facts)


def state(api, name):
    return api.ok("GET", f"/containers/{name}/json").json["State"]


def is_gone(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


@contextlib.contextmanager
def standing_still(pids):
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def plain(api, name):
    """Nothing special."""


def paused(api, name):
    api.ok("POST", f"/containers/{name}/pause")


def with_execs(api, name):
    for _ in range(3):
        made = api.ok("POST", f"/containers/{name}/exec", {"Cmd": ["sleep", "1000000"]}).json["Id"]
        api.ok("POST", f"/exec/{made}/start", {"Detach": True})


@pytest.mark.parametrize("prepare", [plain, paused, with_execs])
def test_the_death_of_a_supervisor_is_the_end_of_its_container(engine, api, prepare):
    began = int(time.time())
    script = "sleep 1000000 & sleep 1000000 & while :; do echo word; usleep 1000; done"
    identifier = run(api, "orphan", "sh", "-c", script)
    prepare(api, "orphan")
    pids = [int(row[1]) for row in api.ok("GET", "/containers/orphan/top").json["Processes"]]
    wait = api.send("POST", "/containers/orphan/wait")
    facts = record(engine, identifier)

    os.kill(facts["supervisor_pid"], signal.SIGKILL)
    killed = time.monotonic()

    assert json.loads(wait.getresponse().read())["StatusCode"] == 137
    told = time.monotonic() - killed
    wait.close()
    assert told < _TOLD_S
    found = state(api, "orphan")
    assert (found["Status"], found["ExitCode"], found["Pid"]) == ("exited", 137, 0)
    assert found["Error"] == "supervisor-lost"
    events = api.ok("GET", "/events", since=began, until=int(time.time()) + 1).lines
    (die,) = [item for item in events if item["Action"] == "die" and item["id"] == identifier]
    assert die["Actor"]["Attributes"]["exitCode"] == "137"
    assert len(pids) >= 3
    until(lambda: all(map(is_gone, pids)))  # execs are reaped by whoever adopts them
    assert not api.ok("GET", "/containers/json").json
    assert not list(engine_cgroups(facts["cgroup"]))
    api.ok("POST", "/containers/orphan/start")  # and it can be started again
    assert state(api, "orphan")["Status"] == "running"


def engine_cgroups(path):
    for root in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/pids"):
        if os.path.isdir(f"{root}/{path}"):
            yield f"{root}/{path}"


def test_a_restart_policy_acts_when_the_supervisor_was_killed(engine, api):
    identifier = run(api, "again", "sleep", "1000000", RestartPolicy={"Name": "on-failure"})
    before = record(engine, identifier)

    os.kill(before["supervisor_pid"], signal.SIGKILL)

    until(lambda: state(api, "again")["Pid"] not in (0, before["init_pid"]))
    assert api.ok("GET", "/containers/again/json").json["RestartCount"] == 1
    assert record(engine, identifier)["supervisor_pid"] != before["supervisor_pid"]


def test_supervisors_killed_while_they_start_containers_leave_nothing(engine, api):
    for number in range(8):
        body = {"Image": "busybox", "Cmd": ["sleep", "1000000"], "HostConfig": {"NetworkMode": "none"}}
        identifier = api.ok("POST", "/containers/create", body).json["Id"]
        path = engine.exec_root / "containers" / identifier / "record"
        starter = threading.Thread(target=api, args=("POST", f"/containers/{identifier}/start"))
        starter.start()
        until(lambda path=path: path.exists() and path.read_text())
        time.sleep(number * 0.001)
        facts = json.loads(path.read_text())
        os.kill(facts["supervisor_pid"], signal.SIGKILL)
        starter.join(_WAIT_S)

        assert not starter.is_alive()
        found = until(lambda name=identifier: (s := state(api, name))["Status"] != "running" and s)
        assert found["Status"] in ("created", "exited")
        assert found["ExitCode"] != 0
        until(lambda facts=facts: not list(engine_cgroups(facts["cgroup"])))
        assert api("DELETE", f"/containers/{identifier}").status == 204


def test_nothing_waits_for_containers_that_are_wedged(engine, api):
    count = 12
    identifiers = [run(api, f"w{number}", "sleep", "1000000") for number in range(count)]
    wedged = identifiers[::2]
    pids = [record(engine, identifier)["supervisor_pid"] for identifier in wedged]

    with standing_still(pids):
        requests = [
            *(("GET", f"/containers/{identifier}/json") for identifier in identifiers),
            *(
                ("GET", path)
                for path in ("/containers/json", "/info", "/system/df", "/version", "/images/json")
            ),
            *(("GET", f"/containers/{identifier}/logs?stdout=1") for identifier in wedged[:2]),
            *(
                ("GET", f"/containers/{identifier}/stats?stream=0&one-shot=1")
                for identifier in identifiers[1::2]
            ),
            *(("GET", f"/containers/{identifier}/top") for identifier in identifiers[1:4:2]),
        ]
        began = time.monotonic()
        for method, path in requests:
            answer = direct(api, method, path)
            assert answer.status == 200, (path, answer.error)
        run(api, "other", "sleep", "1000000")
        api.ok("DELETE", "/containers/other", force=1)
        assert engine.docker("ps", "-q").stdout.count("\n") == count
        assert time.monotonic() - began < _AT_ONCE_S + count / 4

    for identifier in identifiers:
        assert direct(api, "GET", f"/containers/{identifier}/stats?stream=0&one-shot=1").status == 200


def direct(api, method, path):
    path, _, query = path.partition("?")
    return api(method, path, **dict(word.split("=") for word in query.split("&") if word))


_ENDS = (("POST", "/stop"), ("POST", "/kill"), ("POST", "/restart"), ("DELETE", ""))


def test_wedged_containers_are_ended_by_force(engine, api):
    identifiers = [run(api, f"stuck{number}", "sleep", "1000000") for number in range(len(_ENDS))]
    facts = [record(engine, identifier) for identifier in identifiers]

    with standing_still([item["supervisor_pid"] for item in facts]), ThreadPoolExecutor(len(_ENDS)) as pool:
        ends = [
            pool.submit(api, method, f"/containers/{identifier}{path}", force=1)
            for identifier, (method, path) in zip(identifiers, _ENDS, strict=True)
        ]
        assert [end.result().status for end in ends] == [204] * len(_ENDS)
        assert all(is_gone(item["init_pid"]) and is_gone(item["supervisor_pid"]) for item in facts)

    found = [state(api, identifier) for identifier in identifiers[:3]]
    assert [item["Status"] for item in found] == ["exited", "exited", "running"]
    assert [item["ExitCode"] for item in found] == [137, 137, 0]
    api.ok("DELETE", f"/containers/{identifiers[2]}", force=1)
    until(lambda: not any(list(engine_cgroups(item["cgroup"])) for item in facts))


def test_a_container_that_somebody_froze_is_killed(engine, api):
    identifier = run(api, "frozen", "sleep", "1000000")
    facts = record(engine, identifier)
    for directory in engine_cgroups(facts["cgroup"]):
        with contextlib.suppress(FileNotFoundError, PermissionError):
            fd = os.open(f"{directory}/cgroup.freeze", os.O_WRONLY)
            os.write(fd, b"1")
            os.close(fd)

    assert state(api, "frozen")["Status"] == "running"
    assert api("POST", "/containers/frozen/kill").status == 204
    assert is_gone(facts["init_pid"])
    assert state(api, "frozen")["ExitCode"] == 137


def test_an_engine_starts_although_supervisors_stand_still(engine, api):
    identifier = run(api, "still", "sleep", "1000000")
    run(api, "lively", "sleep", "1000000")
    facts = record(engine, identifier)

    with standing_still([facts["supervisor_pid"]]):
        engine.kill()
        engine.start()

        assert state(api, "still")["Pid"] == facts["init_pid"]
        assert state(api, "lively")["Status"] == "running"
        assert api("GET", "/containers/still/top").status == 503  # in bounded time

    assert api.ok("GET", "/containers/still/top").json["Processes"]
    assert engine.docker("exec", "still", "echo", "fine").stdout == "fine\n"
    assert not is_gone(facts["init_pid"])
