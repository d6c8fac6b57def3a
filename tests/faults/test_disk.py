"""A full disk: what needs space is refused with the reason, what frees space works, nothing is lost."""

from __future__ import annotations

import pytest
from fault_disk import Disk
from fault_world import World, archive_of
from operations import Build, Commit, Import, Load, Pull, Run

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]
NO_SPACE = "no space left on device"


@pytest.fixture(params=["bytes", "inodes"])
def shortage(request):
    return request.param


@pytest.fixture
def disk():
    with Disk() as mounted:
        yield mounted


@pytest.fixture
def world(disk):
    with World(data_root=disk.path) as opened:
        yield opened
        disk.free()


def use_up(disk, shortage):
    disk.fill() if shortage == "bytes" else disk.use_up_inodes()


def test_what_needs_space_is_refused_until_there_is_some(world, disk, docker_registry, shortage):
    operations = [
        kind(world, docker_registry.address, 1) for kind in (Pull, Load, Import, Build, Commit, Run)
    ]
    for operation in operations:
        operation.prepare()
    use_up(disk, shortage)

    refused = {operation.name: operation.run().error.lower() for operation in operations}
    world.check(allowed=["temporary: ingest/"], is_full=True)

    assert {name: text for name, text in refused.items() if NO_SPACE not in text} == {}
    disk.free()
    for operation in operations:
        assert not operation.run().error
        operation.check_done()
        operation.undo()
    world.restart()
    world.check()


def test_what_frees_space_works_on_a_full_disk(world, disk, shortage):
    exited = world.create("exited", "echo x > /x")
    world.start_and_wait(exited)
    running = world.create("running", "echo x > /x; exec sleep 1000000")
    world.api.ok("POST", f"/containers/{running}/start")
    world.api.ok("POST", "/volumes/create", {"Name": "full"})
    for name in ("one", "two"):
        world.api.ok("POST", "/images/load", archive_of(name, name, 5_000_000))
    use_up(disk, shortage)

    world.api.ok("POST", f"/containers/{running}/stop", t=0)
    world.api.ok("DELETE", f"/containers/{running}")
    world.api.ok("DELETE", f"/containers/{exited}")
    world.api.ok("DELETE", "/images/one")
    world.api.ok("POST", "/images/prune", filters='{"dangling": ["false"]}')
    world.api.ok("DELETE", "/volumes/full")

    assert world.container_names() == ["keeper", "runner"]
    world.wait_clean()
    world.api.ok("POST", "/images/load", archive_of("three", "three"))  # into what was freed
    world.check_runs("three")
    world.api.ok("DELETE", "/images/three")


def test_an_engine_starts_and_frees_space_on_a_full_disk(world, disk, shortage):
    exited = world.create("exited", "echo x > /x")
    world.start_and_wait(exited)
    use_up(disk, shortage)

    world.restart()
    world.check(is_full=True)
    world.api.ok("DELETE", f"/containers/{exited}")

    disk.free()
    world.check()


def test_a_container_goes_on_when_its_log_has_no_space(world, disk):
    script = "i=0; while [ $i -lt 200 ]; do echo line $i; i=$((i+1)); done; exit 4"
    container = world.create("talks", script)
    assert world.start_and_wait(container) == 4
    disk.fill()

    code = world.start_and_wait(container)

    assert code == 4
    assert world.api("GET", f"/containers/{container}/logs", stdout=1).status == 200
    disk.free()
    assert world.start_and_wait(container) == 4
    assert world.logs(container).endswith(b"line 199\n")
    world.api.ok("DELETE", f"/containers/{container}")
    world.check()
