"""SIGKILL of the engine at any moment of mixed work: what was acknowledged is there, nothing else is."""

from __future__ import annotations

import json
import os
import random
import threading
import time

import pytest
from fault_api import EngineDied
from fault_world import BASE, World, archive_of, layers_of, push_directly, tar_of

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]
ROUNDS = int(os.environ.get("ORLOP_TEST_KILLS", "30"))
_WORKERS = 4
_LONGEST_S = 0.6  # of work between a start and the next kill


class Work(threading.Thread):
    """Does one thing after another; notes what was acknowledged, and what was under way at the end."""

    def __init__(self, world, registry, name, seed):
        super().__init__(daemon=True)
        self.world, self.registry, self.label = world, registry, name
        self.random = random.Random(seed)
        self.number = 0
        self.containers = {}  # name -> exit code, None while it may run
        self.images = set()
        self.doubtful = set()  # names whose last request was not answered
        self.failure = None

    def run(self):
        try:
            while True:
                self.random.choice(self.steps)(self)
        except EngineDied:
            return
        except BaseException as error:
            self.failure = error

    def create(self):
        name = self._new_name("c")
        self.world.create(name, f"echo {name}; exit 9")
        self.containers[name] = None
        self.world.start_and_wait(name)
        self.containers[name] = 9
        self.doubtful.discard(name)

    def create_running(self):
        name = self._new_name("r")
        self.world.create(name, "exec sleep 1000000")
        self.world.api.ok("POST", f"/containers/{name}/start")
        self.containers[name] = "running"
        self.doubtful.discard(name)

    def remove(self):
        if self.containers:
            name = self.random.choice(sorted(self.containers))
            self.doubtful.add(name)
            self.world.api.ok("DELETE", f"/containers/{name}", force=1)
            del self.containers[name]
            self.doubtful.discard(name)

    def load(self):
        name = self._new_name("i")
        self.world.api.ok("POST", "/images/load", archive_of(name, name))
        self._has(name)

    def pull(self):
        name = self._new_name("p")
        push_directly(self.registry, name, "latest", layers_of(name, 300_000))
        name = f"{self.registry}/{name}"
        self.world.api.ok("POST", "/images/create", fromImage=name, tag="latest")
        self._has(name)

    def build(self):
        name = self._new_name("b")
        context = tar_of(Dockerfile=b"FROM busybox\nCOPY f /f\nRUN cat f > g\n", f=name.encode())
        self.world.api.ok("POST", "/build", context, t=name)
        self._has(name)

    def remove_image(self):
        if self.images:
            name = self.random.choice(sorted(self.images))
            self.doubtful.add(name)
            self.world.api.ok("DELETE", f"/images/{name}", force=1)
            self.images.discard(name)
            self.doubtful.discard(name)

    steps = (create, create, create_running, remove, remove, load, pull, build, remove_image)

    def _new_name(self, kind):
        self.number += 1
        name = f"{self.label}-{kind}{self.number}"
        self.doubtful.add(name)
        return name

    def _has(self, name):
        self.images.add(name)
        self.doubtful.discard(name)


@pytest.fixture
def world():
    with World() as opened:
        yield opened


def test_random_kills(world, docker_registry):
    seed = int(os.environ.get("ORLOP_TEST_SEED", str(time.time_ns() % 1_000_000)))
    chance = random.Random(seed)
    print(f"ORLOP_TEST_SEED={seed}")
    for number in range(ROUNDS):
        works = [
            Work(world, docker_registry.address, f"k{number}w{index}", chance.random())
            for index in range(_WORKERS)
        ]
        for work in works:
            work.start()
        time.sleep(chance.random() * _LONGEST_S)
        world.engine.kill()
        for work in works:
            work.join(30)
            assert not work.is_alive()
            assert work.failure is None, f"round {number}: {work.failure!r}"
        if chance.random() < 0.3:
            time.sleep(0.1)  # containers end while no engine runs

        world.restart()

        check_acknowledged(world, works)
        clean_up(world)
        world.check(allowed=["temporary: ingest/"])  # half a pull waits for the next one


def check_acknowledged(world, works):
    containers = {
        name: code for work in works for name, code in work.containers.items() if name not in work.doubtful
    }
    running = {name for name, code in containers.items() if code == "running"}
    found = {item["Names"][0][1:]: item for item in world.api.ok("GET", "/containers/json", all=1).json}
    assert set(containers) <= set(found), f"lost: {set(containers) - set(found)}"
    known = {name for work in works for name in (*work.containers, *work.doubtful)}
    assert set(found) - known == {"keeper", "runner"}
    for name, code in containers.items():
        state = world.inspect(name)["State"]
        if name in running:
            assert state["Status"] == "running"
            os.kill(state["Pid"], 0)
        else:
            assert (state["Status"], state["ExitCode"]) == ("exited", code)
            assert world.logs(name) == f"{name}\n".encode()
    for work in works:
        for name in work.images - work.doubtful:
            world.api.ok("GET", f"/images/{name}/json")


def clean_up(world):
    """Take everything away but what the world began with: removal works on whatever a kill left."""
    for item in world.api.ok("GET", "/containers/json", all=1).json:
        if item["Names"][0] not in ("/keeper", "/runner"):
            world.api.ok("DELETE", f"/containers/{item['Id']}", force=1)
    world.api.ok("POST", "/build/prune", all=1)
    world.api.ok("POST", "/images/prune", filters=json.dumps({"dangling": ["false"]}))
    tags = [tag for image in world.api.ok("GET", "/images/json").json for tag in image["RepoTags"] or ()]
    assert tags == [BASE]
