"""What an engine does with the containers that an engine before it left."""

import asyncio
import contextlib
import os
from dataclasses import replace

import pytest

from fakes.containers import Plant, scenario
from orlop.engine.lifecycle import AlreadyThere, Status
from orlop.engine.requests import HostConfig, RestartPolicy
from orlop.engine.services import container_paths
from orlop.runtime.spec import ExitRecord


def policy(name, count=0):
    return HostConfig(network_mode="none", restart_policy=RestartPolicy(name, count))


@contextlib.asynccontextmanager
async def next_engine(made, *, boot="boot", found=None):
    """Another engine on the same rows; `found` is what it finds of containers, by id."""
    await made.catalog.flush()
    await made.background.close()
    second = Plant(made.root, made.db)
    object.__setattr__(second.services, "boot_id", boot)
    second.snapshots.stored = made.snapshots.stored
    second.runtime.found = found or {}
    for container_id in second.runtime.found:
        os.makedirs(container_paths(made.services, container_id).run_dir, exist_ok=True)
    await second.catalog.load()
    await second.reconciler.run()
    second.reconciler.apply_policies()
    try:
        yield second
    finally:
        await second.close(keeps_database=True)


async def until(check):
    while not check():
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("name", "starts"), [("no", False), ("always", True), ("unless-stopped", True), ("on-failure", True)]
)
def test_a_reboot_starts_what_ran_when_its_policy_says_so(tmp_path, name, starts):
    @scenario
    async def check(made):
        container, _ = await made.run(host=policy(name))
        container.change(restart_count=4)
        made.catalog.save_soon(container)
        async with next_engine(made, boot="another") as second:
            after = second.containers.get("web")
            assert after.state.exit_code == 255
            if not starts:
                assert after.status is Status.EXITED
                return
            await until(lambda: after.status is Status.RUNNING)
            assert after.state.restart_count == 1

    check(tmp_path)


@pytest.mark.parametrize(
    ("name", "starts"), [("always", True), ("unless-stopped", False), ("on-failure", False)]
)
def test_what_a_user_stopped_starts_with_the_engine_only_when_always(tmp_path, name, starts):
    @scenario
    async def check(made):
        await made.run(host=policy(name))
        await made.containers.stop("web")
        async with next_engine(made, boot="another") as second:
            after = second.containers.get("web")
            if starts:
                await until(lambda: after.status is Status.RUNNING)
            else:
                await second.settle()
                assert after.status is Status.EXITED

    check(tmp_path)


@pytest.mark.parametrize(("limit", "starts"), [(3, True), (2, False)])
def test_the_limit_of_failures_holds_across_engines(tmp_path, limit, starts):
    @scenario
    async def check(made):
        container, task = await made.run(host=policy("on-failure", limit))
        container.change(restart_count=2)
        made.catalog.save_soon(container)
        ended = ExitRecord(1, made.clock.now_ns() + 5, started_at_ns=task.started_at_ns)
        async with next_engine(made, found={container.id: ended}) as second:
            after = second.containers.get("web")
            if starts:
                await until(lambda: after.status is Status.RUNNING)
                assert after.state.restart_count == 3
            else:
                await second.settle()
                assert (after.status, after.state.exit_code) == (Status.EXITED, 1)

    check(tmp_path)


@scenario
async def test_a_failure_while_the_engine_shuts_down_is_dealt_with_by_the_next(made):
    container, task = await made.run(host=policy("on-failure"))
    made.runner.prepare_shutdown()
    task.end(3)
    await made.settle()
    assert container.status is Status.EXITED

    async with next_engine(made) as second:
        after = second.containers.get("web")
        await until(lambda: after.status is Status.RUNNING)
        assert after.state.restart_count == 1


@scenario
async def test_a_container_between_restarts_goes_on_with_the_next_engine(made):
    container, task = await made.run(host=policy("always"))
    task.end(1)
    await until(lambda: container.status is Status.RESTARTING)

    record = ExitRecord(1, container.state.finished_ns, started_at_ns=container.state.started_ns)
    async with next_engine(made, found={container.id: record}) as second:
        after = second.containers.get("web")
        assert after.state.exit_code == 1
        await until(lambda: after.status is Status.RUNNING)


@scenario
async def test_an_adopted_container_keeps_its_count_and_health(made):
    container, task = await made.run(host=policy("always"))
    container.change(restart_count=7, health="healthy")
    made.catalog.save_soon(container)

    async with next_engine(made, found={container.id: task}) as second:
        state = second.containers.get("web").state
        assert (state.status, state.restart_count) == (Status.RUNNING, 7)


@scenario
async def test_a_stop_during_a_start_is_meant_for_what_the_start_makes(made):
    await made.create()
    gate, start = asyncio.Event(), made.runtime.start

    async def slow(spec, attachments=()):
        await gate.wait()
        return await start(spec, attachments)

    made.runtime.start = slow
    starting = asyncio.create_task(made.containers.start("web"))
    await made.settle()
    stopping = asyncio.create_task(made.containers.stop("web"))
    await made.settle()
    assert not stopping.done()
    gate.set()
    await asyncio.gather(starting, stopping)

    assert made.containers.get("web").status is Status.EXITED


@scenario
async def test_a_stop_during_an_automatic_restart_is_the_end(made):
    container, task = await made.run(host=policy("always"))
    gate, start = asyncio.Event(), made.runtime.start

    async def slow(spec, attachments=()):
        await gate.wait()
        return await start(spec, attachments)

    made.runtime.start = slow
    task.end(1)
    await until(lambda: container.is_starting)
    stopping = asyncio.create_task(made.containers.stop("web"))
    await made.settle()
    gate.set()
    await stopping

    assert (container.status, container.state.was_stopped) == (Status.EXITED, True)
    with pytest.raises(AlreadyThere):
        await made.containers.stop("web")


@scenario
async def test_a_new_policy_counts_from_the_next_exit_on(made):
    container, task = await made.run()
    record = replace(container.record, host=policy("always"))
    await made.catalog.update(container, record)

    task.end(1)
    await until(lambda: container.status is Status.RUNNING and container.state.restart_count == 1)
