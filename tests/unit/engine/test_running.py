import asyncio

import pytest

from fakes.containers import Plant, scenario
from orlop.engine.lifecycle import AlreadyThere, NotPossible, Status
from orlop.engine.requests import HostConfig, RestartPolicy
from orlop.runtime.contract import StartFailed
from orlop.runtime.spec import ExitRecord


@scenario
async def test_a_container_is_created_started_and_ends(made):
    container, task = await made.run(cmd=("true",))
    waiting = made.containers.wait("web", "next-exit")

    task.end(3)
    state = await waiting

    assert state.exit_code == 3
    assert container.status is Status.EXITED
    await made.settle()
    assert made.actions() == ["create", "start", "die"]


@scenario
async def test_starting_twice_is_not_modified(made):
    await made.run()

    with pytest.raises(AlreadyThere):
        await made.containers.start("web")


@scenario
async def test_a_failed_start_leaves_the_container_as_it_was_with_the_reason(made):
    await made.create()
    made.runtime.fails = "exec: nosuch: executable file not found in $PATH"

    with pytest.raises(StartFailed):
        await made.containers.start("web")

    state = made.containers.get("web").state
    assert (state.status, state.exit_code) == (Status.CREATED, 127)
    assert "executable file not found" in state.error


@scenario
async def test_a_stop_asks_first_and_kills_the_deaf(made):
    made.runtime.obeys = False
    container, task = await made.run()

    await made.containers.stop("web", timeout_s=0)

    assert task.signals == [15, 9]
    assert (container.status, container.state.exit_code) == (Status.EXITED, 137)
    assert container.state.was_stopped
    assert made.actions() == ["create", "start", "kill", "kill", "die", "stop"]


@scenario
async def test_stopping_what_is_stopped_is_not_modified(made):
    await made.create()

    with pytest.raises(AlreadyThere):
        await made.containers.stop("web")


@scenario
async def test_killing_what_does_not_run_is_refused(made):
    container_id = await made.create()

    with pytest.raises(NotPossible, match=f"container {container_id} is not running"):
        await made.containers.kill("web")


@scenario
async def test_a_kill_gets_through_to_a_container_that_is_being_stopped(made):
    made.runtime.obeys = False
    await made.run()
    stopping = asyncio.ensure_future(made.containers.stop("web", timeout_s=-1))
    await made.settle()

    await made.containers.kill("web")

    await stopping
    assert made.containers.get("web").status is Status.EXITED


@scenario
async def test_a_frozen_container_is_let_go_when_it_is_killed(made):
    container, task = await made.run()
    await made.containers.pause("web")
    assert container.status is Status.PAUSED

    await made.containers.kill("web")

    assert not task.is_frozen
    assert container.status is Status.EXITED


@scenario
async def test_auto_remove_takes_the_container_away_with_its_anonymous_volumes(made):
    host = HostConfig(network_mode="none", auto_remove=True)
    container, task = await made.run(host=host, volumes=frozenset({"/data"}))
    volume = container.record.mounts[0].point.name
    removed = made.containers.wait("web", "removed")

    task.end(0)
    await removed
    assert len(made.catalog) == 0
    gone = await made.until("volume", "destroy")

    assert gone.actor.id == volume
    assert made.snapshots.stored == {}
    assert made.volumes.find(volume) is None


@scenario
async def test_a_policy_starts_it_again_with_a_growing_delay(made):
    policy = RestartPolicy("on-failure", 1)
    container, first = await made.run(host=HostConfig(network_mode="none", restart_policy=policy))

    first.end(1)
    await made.settle()
    assert container.status is Status.RESTARTING
    made.actions()
    await made.until("container", "start")
    second = made.runtime.tasks[-1]
    assert second is not first
    assert (container.status, container.state.restart_count) == (Status.RUNNING, 1)
    second.end(1)
    await made.settle()

    assert container.status is Status.EXITED


@scenario
async def test_a_stop_between_restarts_ends_it(made):
    host = HostConfig(network_mode="none", restart_policy=RestartPolicy("always"))
    container, task = await made.run(host=host)
    task.end(1)
    await made.settle()

    await made.containers.stop("web")
    await asyncio.sleep(0.15)

    assert container.status is Status.EXITED
    assert len(made.runtime.tasks) == 1


@scenario
async def test_a_restart_by_the_user_does_not_trigger_auto_remove(made):
    container, _ = await made.run(host=HostConfig(network_mode="none", auto_remove=True))

    await made.containers.restart("web", timeout_s=0)

    assert container.status is Status.RUNNING
    assert made.actions()[-2:] == ["start", "restart"]


@scenario
async def test_a_running_container_is_removed_by_force_only(made):
    _, task = await made.run()

    with pytest.raises(NotPossible, match="stop the container before removing"):
        await made.containers.remove("web")
    await made.containers.remove("web", force=True)

    assert task.signals == [9]
    assert len(made.catalog) == 0


@scenario
async def test_rows_survive_the_engine_and_names_stay_taken(made):
    await made.create("web")
    await made.catalog.flush()
    other = Plant(made.root, made.db)

    await other.catalog.load()

    assert other.containers.get("web").record == made.containers.get("web").record
    await other.close(keeps_database=True)


@scenario
async def test_recovery_adopts_takes_over_and_marks_as_lost(made):
    running, task = await made.run("running")
    ended, _ = await made.run("ended")
    lost, _ = await made.run("lost")
    await made.catalog.flush()
    other = Plant(made.root, made.db)
    other.snapshots.stored = dict(made.snapshots.stored) | {"f" * 64: ()}
    other.runtime.found = {running.id: task, ended.id: ExitRecord(5, finished_at_ns=9 << 60)}
    await other.catalog.load()

    await other.reconciler.run()

    states = {item.name: item.state for item in other.catalog}
    assert states["running"].status is Status.RUNNING
    assert (states["ended"].status, states["ended"].exit_code) == (Status.EXITED, 5)
    assert (states["lost"].status, states["lost"].exit_code) == (Status.EXITED, 137)
    assert "lost" in states["lost"].error
    assert "f" * 64 not in other.snapshots.stored
    assert set(other.snapshots.stored) == {running.id, ended.id, lost.id}
    await other.close(keeps_database=True)


@scenario
async def test_auto_remove_is_caught_up_by_the_next_engine(made):
    host = HostConfig(network_mode="none", auto_remove=True)
    container, _ = await made.run(host=host)
    await made.catalog.flush()
    other = Plant(made.root, made.db)
    other.snapshots.stored = dict(made.snapshots.stored)
    other.runtime.found = {container.id: ExitRecord(0, finished_at_ns=1 << 60)}
    await other.catalog.load()

    await other.reconciler.run()
    other.reconciler.apply_policies()
    await other.until("container", "destroy")

    assert len(other.catalog) == 0
    await other.close(keeps_database=True)


@scenario
async def test_volumes_are_mounted_before_the_start_and_unmounted_after_the_end(made):
    host = HostConfig(network_mode="none", binds=("data:/data:ro", f"{made.root}:/bind:rw"), tmpfs={"/t": ""})

    container, task = await made.run(host=host)
    task.end(0)
    await made.until("volume", "unmount")

    told = [event for event in made.events._kept if (event.type, event.action) != ("volume", "create")]
    assert [(event.type, event.action) for event in told] == [
        ("container", "create"),
        ("volume", "mount"),
        ("container", "start"),
        ("container", "die"),
        ("volume", "unmount"),
    ]
    assert (told[1].actor.id, told[1].actor.attributes) == (
        "data",
        {
            "container": container.id,
            "destination": "/data",
            "driver": "local",
            "propagation": "",
            "read/write": "false",
        },
    )
    assert (told[4].actor.id, told[4].actor.attributes) == (
        "data",
        {"container": container.id, "driver": "local"},
    )
