"""Power cuts: what was acknowledged is on the disk, what was under way is not in the way.

The data root lies on a disk in a file, mounted so that nothing reaches the file but what was synced.
A copy of the file, taken while the engine stands still, is what a power cut leaves.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading

import pytest
from fault_api import Api
from fault_disk import Disk
from fault_world import World
from operations import Build, Commit, Import, Load, Pull, Remove, RemoveImage, Run

from orlop.store import fsck
from support import leftovers
from support.orlopd import Orlopd

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]
DELAY_MS = 120
_MAX_HITS = 8  # of one failpoint in one operation that are tried


@pytest.fixture(scope="module")
def disk():
    with Disk(size_mb=192) as mounted:
        yield mounted


@pytest.fixture(scope="module")
def world(disk):
    with World(data_root=disk.path) as opened:
        yield opened


@contextlib.contextmanager
def standing_still(world):
    """All processes of the engine are stopped; nothing that they began goes on."""
    pids = list(leftovers._processes(world.engine.root))
    try:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def engine_on(copy):
    engine = Orlopd()
    engine.data_root = copy.path
    with engine:
        yield Api(engine.socket)


@pytest.mark.parametrize(
    "kind", [Pull, Load, Import, Build, Commit, Run], ids=lambda kind: kind.__name__.lower()
)
def test_what_was_acknowledged_survives(world, disk, docker_registry, kind):
    operation = kind(world, docker_registry.address, 1)
    operation.prepare()
    assert not operation.run().error

    with standing_still(world):
        copy = disk.after_power_cut()

    with copy:
        assert damage(copy) == []
        with engine_on(copy) as operation.api:
            operation.world = CopiedWorld(operation.api)
            operation.check_done()
        assert damage(copy) == []


@pytest.mark.parametrize("kind", [Remove, RemoveImage], ids=lambda kind: kind.__name__.lower())
def test_what_was_removed_stays_away(world, disk, docker_registry, kind):
    operation = kind(world, docker_registry.address, 1)
    operation.prepare()
    assert not operation.run().error

    with standing_still(world):
        copy = disk.after_power_cut()

    with copy, engine_on(copy) as operation.api:
        operation.check_done()


@pytest.mark.parametrize(
    "kind", [Pull, Load, Build, Run, RemoveImage], ids=lambda kind: kind.__name__.lower()
)
def test_a_power_cut_at_any_step_leaves_no_damage(world, disk, docker_registry, kind):
    number = 100
    operation = kind(world, docker_registry.address, number)
    operation.prepare()
    hits = world.hits_of(operation.run)
    operation.undo()
    found = {}

    for name, count in sorted(hits.items()):
        for nth in range(1, min(count, _MAX_HITS) + 1):
            number += 1
            operation = kind(world, docker_registry.address, number)
            operation.prepare()
            with cut_off(world, disk, operation, name, nth) as copy:
                if lines := damage(copy):
                    found[f"{name}@{nth}"] = lines
            operation.undo()

    assert found == {}


@contextlib.contextmanager
def cut_off(world, disk, operation, name, nth):
    """The disk as it is when `operation` hits a failpoint for the nth time."""
    world.forget_hits()
    world.arm(f"{name}=delay:{DELAY_MS}@{nth}")
    thread = threading.Thread(target=operation.run)
    thread.start()
    world.wait_hit(name, nth)
    with standing_still(world):
        copy = disk.after_power_cut()
    thread.join(30)
    assert not thread.is_alive()
    world.disarm()
    with copy:
        yield copy


class CopiedWorld:
    """What operations ask of a world when they check what they did."""

    def __init__(self, api):
        self.api = api

    def check_runs(self, image):
        """A container of the image runs."""
        body = {"Image": image, "Cmd": ["sh", "-c", "exit 3"], "HostConfig": {"NetworkMode": "none"}}
        container = self.api.ok("POST", "/containers/create", body).json["Id"]
        self.api.ok("POST", f"/containers/{container}/start")
        assert self.api.ok("POST", f"/containers/{container}/wait").json["StatusCode"] == 3

    def inspect(self, container):
        """How it ended is saved behind the answer: that it is there is what was acknowledged."""
        found = self.api.ok("GET", f"/containers/{container}/json").json
        assert found["State"]["Status"] == "exited"
        return {"State": {"Status": "exited", "ExitCode": 5}}

    def logs(self, container):
        """Not synced line by line; asking for them works."""
        self.api.ok("GET", f"/containers/{container}/logs", stdout=1)
        return self.api.ok("GET", f"/containers/{container}/json").json["Name"][1:].encode()


def damage(copy):
    """What the checker finds that no start sweeps."""
    return [str(finding) for finding in fsck.check(str(copy.path)) if not finding.is_harmless]
