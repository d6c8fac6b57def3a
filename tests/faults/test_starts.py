"""Every start is a recovery: what is there when it begins, and when it is cut short itself."""

from __future__ import annotations

import os
import time

import pytest
from fault_world import World

pytestmark = pytest.mark.faults


@pytest.fixture
def world():
    with World() as opened:
        yield opened


@pytest.mark.parametrize("name", ["reconcile.recovered", "daemon.recovered", "db.commit.before"])
def test_a_start_that_dies_is_followed_by_one_that_does_not(world, name):
    world.engine.kill()
    world.arm(f"{name}=crash@1")

    world.start_expecting_death()
    world.restart()

    world.check()


def test_a_database_that_was_being_made_is_made_anew(tmp_path):
    world = World()
    world.arm("db.create.before-rename=crash@1")

    world.start_expecting_death()
    assert (world.engine.data_root / "state.db.new").exists()
    world.disarm()

    with world:
        world.check()


def test_a_container_started_again_is_still_running_after_the_engine_was_killed(world):
    container = world.create("twice", "[ -e /been ] && exec sleep 1000000; touch /been")
    world.start_and_wait(container)
    world.api.ok("POST", f"/containers/{container}/start")
    before = world.inspect(container)["State"]

    world.restart()

    after = world.inspect(container)["State"]
    assert (after["Status"], after["Pid"]) == ("running", before["Pid"])
    world.check(may_be_running=[container])


def test_a_container_restarted_at_once_is_adopted(world):
    container = world.create("again", "exec sleep 1000000")
    world.api.ok("POST", f"/containers/{container}/start")
    for _ in range(3):
        world.api.ok("POST", f"/containers/{container}/restart", t=0)
    before = world.inspect(container)["State"]["Pid"]

    world.restart()

    assert world.inspect(container)["State"]["Pid"] == before
    world.check(may_be_running=[container])


def test_a_supervisor_that_is_late_for_its_engine_starts_nothing(world):
    container = world.create("late", "exec sleep 1000000")
    world.arm("supervisor.start.before-socket=delay:1500")
    world.send_only("POST", f"/containers/{container}/start")
    time.sleep(0.5)  # the zygote has the request; nothing can be waited for

    world.restart()
    world.check()

    assert world.inspect(container)["State"]["Status"] in ("created", "exited")
    world.api.ok("POST", f"/containers/{container}/start")
    os.kill(world.inspect(container)["State"]["Pid"], 0)
    world.check(may_be_running=[container])
