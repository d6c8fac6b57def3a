"""An engine that ends again and again, under load: what runs does not notice, and nothing is lost."""

from __future__ import annotations

import os
import random
import re
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
from fault_api import Api, EngineDied

from support.images import busybox_archive
from support.orlopd import Orlopd
from support.registry import free_port

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]
ROUNDS = int(os.environ.get("ORLOP_RESTARTS", "10"))
_LONGEST_S = 0.8  # of work between a start and the next end
_WAIT_S = 20
_WRITES = (
    "trap 'echo end; exit 42' TERM; i=0; "
    "while :; do echo line $i; i=$((i+1)); [ $((i % 50)) = 0 ] && usleep 10000; done"
)


@pytest.fixture
def engine():
    with Orlopd() as running:
        running.docker("load", input=busybox_archive("busybox:latest"))
        yield running


def until(condition, timeout_s=_WAIT_S):
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "does not happen"
        time.sleep(0.02)
    return value


class Worker(threading.Thread):
    """Does `step` until `finish`; what it raises is raised by `finish`."""

    def __init__(self):
        super().__init__(daemon=True)
        self.is_over = threading.Event()
        self.count = 0
        self.failure = None

    def run(self):
        try:
            self.work()
        except BaseException as error:
            self.failure = error

    def finish(self):
        self.is_over.set()
        self.join(60)
        assert not self.is_alive()
        if self.failure is not None:
            raise self.failure


class Traffic(Worker):
    """One connection to a program that sends everything back; it must last."""

    def __init__(self, port):
        super().__init__()
        self._port = port

    def work(self):
        with socket.create_connection(("127.0.0.1", self._port), timeout=10) as sock:
            answers = sock.makefile("rb")
            while not self.is_over.is_set():
                word = b"%d\n" % self.count
                sock.sendall(word)
                assert answers.readline() == word
                self.count += 1
                time.sleep(0.001)


class Follower(Worker):
    """`docker logs -f`, again whenever it is cut; each time the log begins anew and has no gap."""

    def __init__(self, engine):
        super().__init__()
        self._engine = engine
        self.has_end = False

    def work(self):
        while not self.has_end:
            with self._engine.popen("logs", "-f", "writer", stdin=None) as client:
                for number, line in enumerate(client.stdout):
                    self.has_end = line == b"end\n"
                    assert self.has_end or line == b"line %d\n" % number, line
                    self.count = max(self.count, number)
            time.sleep(0.01)


class Load(Worker):
    """Containers that come and go, and execs; those that were waited for ended as they should."""

    def __init__(self, engine, name):
        super().__init__()
        self._api = Api(engine.socket, timeout_s=40)
        self._label = name

    def work(self):
        number = 0
        while not self.is_over.is_set():
            number += 1
            try:
                self._life(f"{self._label}{number}")
                self.count += 1
            except EngineDied:
                time.sleep(0.02)

    def _life(self, name):
        body = {
            "Image": "busybox",
            "Cmd": ["sh", "-c", "echo $0; exit 9", name],
            "HostConfig": {"NetworkMode": "none"},
        }
        self._ok("POST", "/containers/create", body, name=name)
        self._ok("POST", f"/containers/{name}/start")
        exec_id = self._ok("POST", "/containers/writer/exec", {"Cmd": ["true"]}).json["Id"]
        self._ok("POST", f"/exec/{exec_id}/start", {"Detach": True})
        assert self._ok("POST", f"/containers/{name}/wait").json["StatusCode"] == 9
        assert self._ok("GET", f"/containers/{name}/logs", stdout=1).body[8:] == b"%s\n" % name.encode()
        self._ok("DELETE", f"/containers/{name}")

    def _ok(self, *args, **query):
        answer = self._api(*args, **query)
        if answer.status == 503:  # it is shutting down
            raise EngineDied(answer.error)
        assert answer.status < 300, f"{args[:2]}: {answer.status} {answer.body[:300]!r}"
        return answer


def test_containers_do_not_notice_restarts_of_the_engine(engine):
    seed = int(os.environ.get("ORLOP_TEST_SEED", str(time.time_ns() % 1_000_000)))
    print(f"ORLOP_TEST_SEED={seed}")
    chance = random.Random(seed)
    port = free_port()
    none = ("--network", "none", "--log-opt", "max-size=1g")
    engine.docker("run", "-d", "--name", "writer", *none, "busybox", "sh", "-c", _WRITES)
    echoes = ("--network", "host", "busybox", "nc", "-l", "-p", str(port), "-e", "cat")
    engine.docker("run", "-d", "--name", "echoes", *echoes)
    pids = pids_of(engine)
    until(lambda: listens(port))
    workers = [Traffic(port), Follower(engine), Load(engine, "a"), Load(engine, "b")]
    for worker in workers:
        worker.start()

    for number in range(ROUNDS):
        time.sleep(chance.random() * _LONGEST_S)
        (engine.kill if number % 2 else engine.stop)()
        time.sleep(chance.choice((0, 0, 0.2)))
        engine.start()
        assert all(worker.failure is None for worker in workers), [worker.failure for worker in workers]

    assert pids_of(engine) == pids
    traffic, follower, *loads = workers
    for worker in loads:
        worker.finish()
    engine.docker("stop", "writer")
    follower.finish()
    before = traffic.count
    until(lambda: traffic.count > before or traffic.failure)
    traffic.finish()
    assert state(engine, "writer", "ExitCode") == "42"
    words = engine.docker("logs", "writer").stdout.splitlines()
    assert words == [*(f"line {number}" for number in range(len(words) - 1)), "end"]
    assert engine.docker("wait", "echoes").stdout == "0\n"
    print(
        f"{ROUNDS} restarts: {len(words)} lines, {traffic.count} answers, {[load.count for load in loads]} lives"
    )


def pids_of(engine):
    return engine.docker("inspect", "-f", "{{.State.Pid}} {{.State.StartedAt}}", "writer", "echoes").stdout


def state(engine, name, field):
    return engine.docker("inspect", "-f", f"{{{{.State.{field}}}}}", name).stdout.strip()


def listens(port):
    tables = "".join(Path(f"/proc/net/{name}").read_text() for name in ("tcp", "tcp6"))
    return re.search(rf":{port:04X} \S+ 0A", tables)


def test_an_exec_goes_on_when_its_client_was_cut_with_the_engine(engine):
    engine.docker("run", "-d", "--name", "host", "busybox", "sleep", "1000000")
    script = "echo begun; sleep 1; echo more; echo done > /told; exec sleep 1000000"
    with engine.popen("exec", "-i", "host", "sh", "-c", script) as client:
        assert client.stdout.readline() == b"begun\n"
        exec_id = engine.api().api.inspect_container("host")["ExecIDs"][0]

        engine.kill()

        assert client.stdout.read() == b""  # it ends
        client.stdin.close()
    engine.start()

    until(lambda: engine.docker("exec", "host", "cat", "/told", check=False).stdout == "done\n")
    assert "sleep 1000000" in engine.docker("top", "host").stdout
    asked = Api(engine.socket)("GET", f"/exec/{exec_id}/json")
    assert (asked.status, "No such exec" in asked.error) == (404, True)
    assert engine.docker("exec", "host", "sh", "-c", "exit 5", check=False).returncode == 5
    engine.docker("kill", "host")  # the exec ends with the container: the engine's end finds leftovers


def test_a_wait_that_was_cut_can_be_repeated(engine):
    engine.docker(
        "run",
        "-d",
        "--name",
        "ends",
        "busybox",
        "sh",
        "-c",
        "trap 'exit 12' TERM; while :; do usleep 50000; done",
    )
    with engine.popen("wait", "ends") as client:
        with pytest.raises(subprocess.TimeoutExpired):
            client.wait(0.3)
        engine.kill()
        assert client.wait(10) != 0
    engine.start()

    with engine.popen("wait", "ends") as client:
        engine.docker("stop", "ends")
        assert client.communicate(timeout=20)[0] == b"12\n"
    assert engine.docker("wait", "ends").stdout == "12\n"
