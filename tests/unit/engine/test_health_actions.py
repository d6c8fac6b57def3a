import asyncio
import socket

import pytest

from fakes.containers import scenario
from orlop.base.errors import InvalidInput
from orlop.engine.health import pause_s
from orlop.engine.health_actions import asked_action
from orlop.engine.lifecycle import Status
from orlop.engine.requests import ContainerConfig, CreateRequest, HealthConfig, HostConfig, OrlopConfig
from orlop.runtime.contract import TaskGone

MS = 1_000_000
CHECK = HealthConfig(test=("CMD", "probe"), interval=MS, retries=2, timeout=50 * MS)


class FakeProbe:
    """An exec that ends with a code, or hangs until it is killed."""

    def __init__(self, code):
        self.stream, theirs = socket.socketpair()
        self.stream.setblocking(False)
        self.signals = []
        self._end = asyncio.get_running_loop().create_future()
        if code is not None:
            self._end.set_result(code)
            theirs.close()
        else:
            self._theirs = theirs

    async def wait(self):
        return await asyncio.shield(self._end)

    async def signal(self, number):
        if self._end.done():
            raise TaskGone("gone")
        self.signals.append(number)
        self._theirs.close()
        self._end.set_result(128 + number)


def probing(made, codes):
    """Every task's probes end with these codes, then with the last one again; None hangs."""
    made.probes = []

    async def run(self, spec, attach=None):
        probe = FakeProbe(codes.pop(0) if len(codes) > 1 else codes[0])
        made.probes.append(probe)
        return probe

    start = made.runtime.start

    async def start_probed(spec, attachments=()):
        task = await start(spec, attachments)
        task.exec = run.__get__(task)
        return task

    made.runtime.start = start_probed


async def begin(made, codes, action="", labels=None, check=CHECK):
    probing(made, codes)
    config = ContainerConfig(image="busybox", healthcheck=check, labels=labels)
    wanted = CreateRequest(
        config, HostConfig(network_mode="none"), name="web", orlop=OrlopConfig(health_on_failure=action)
    )
    await made.containers.create(wanted)
    await made.containers.start("web")
    return made.containers.get("web"), made.runtime.tasks[-1]


async def until(check):
    while not check():
        await asyncio.sleep(0.002)


@scenario
async def test_none_only_says_so(made):
    container, task = await begin(made, [1])

    await until(lambda: len(made.probes) > 5)

    assert (container.state.health, task.signals) == ("unhealthy", [])
    assert made.actions().count("health_status: unhealthy") == 1


@scenario
async def test_a_restart_waits_for_its_back_off_and_is_told(made):
    container, task = await begin(made, [1, 1, 0], "restart")

    await until(lambda: container.state.restart_count == 1)
    assert container.status is Status.RESTARTING
    assert container.restart_delay_s == 0.1
    await until(lambda: container.state.health == "healthy")

    assert task.signals == [15]
    assert "health_action: restart" in made.actions()
    assert not container.state.was_stopped


@scenario
async def test_a_label_is_as_good_for_clients_that_know_nothing_else(made):
    container, _ = await begin(made, [1], labels={"orlop.health-on-failure": "stop"})

    await until(lambda: container.status is Status.EXITED)

    assert container.state.was_stopped


@scenario
async def test_a_kill_leaves_the_rest_to_the_restart_policy(made):
    container, task = await begin(made, [1], "kill")

    await until(lambda: container.status is Status.EXITED)

    assert task.signals == [9]
    assert (container.state.exit_code, container.state.health) == (137, "unhealthy")
    assert not container.state.was_stopped


@scenario
async def test_a_user_s_stop_wins_over_a_restart(made):
    made.runtime.obeys = False
    container, task = await begin(made, [1], "restart")
    await until(lambda: 15 in task.signals)

    await made.containers.stop("web", timeout_s=0)
    await made.settle()

    assert (container.status, container.state.restart_count) == (Status.EXITED, 0)


@scenario
async def test_a_probe_that_hangs_is_killed_and_the_next_one_waits_for_that(made):
    container, _ = await begin(made, [None])

    await until(lambda: len(made.probes) == 3)

    assert [probe.signals for probe in made.probes[:2]] == [[9], [9]]
    assert container.health_log[0].output == "Health check exceeded timeout (50ms)"
    assert container.health_log[0].exit_code == -1


@scenario
async def test_a_frozen_container_is_not_probed_and_keeps_its_health(made):
    container, _ = await begin(made, [0])
    await until(lambda: container.state.health == "healthy")
    await made.containers.pause("web")
    await asyncio.sleep(0.01)
    count = len(made.probes)
    for _ in range(20):
        await asyncio.sleep(0.002)

    assert (len(made.probes), container.state.health) == (count, "healthy")
    await made.containers.unpause("web")
    await until(lambda: len(made.probes) > count)


@scenario
async def test_the_log_keeps_five_probes(made):
    container, _ = await begin(made, [0])

    await until(lambda: len(made.probes) > 7)

    assert len(container.health_log) == 5


@scenario
async def test_an_action_that_does_not_exist_is_refused(made):
    with pytest.raises(InvalidInput, match="invalid action on failing health 'explode'"):
        await begin(made, [1], "explode")


def test_a_label_of_the_request_is_as_good_as_the_field():
    labels = {"orlop.health-on-failure": "restart"}

    assert asked_action(OrlopConfig(), labels).health_on_failure == "restart"
    assert asked_action(OrlopConfig(health_on_failure="stop"), labels).health_on_failure == "stop"
    assert asked_action(OrlopConfig(), None) == OrlopConfig()
    with pytest.raises(InvalidInput, match="invalid action on failing health 'x'"):
        asked_action(OrlopConfig(), {"orlop.health-on-failure": "x"})


@scenario
async def test_a_label_of_the_image_asks_for_nothing(made):
    container, _ = await begin(made, [0])
    object.__setattr__(container.record.config, "labels", {"orlop.health-on-failure": "restart"})

    assert not container.record.orlop.health_on_failure


@pytest.mark.parametrize(
    ("left", "interval", "start_interval", "wanted"),
    [(0, 30, 5, 30), (60, 30, 5, 5), (2, 30, 5, 2), (60, 3, 5, 3)],
)
def test_a_probe_comes_when_the_start_period_ends(left, interval, start_interval, wanted):
    assert pause_s(left, interval, start_interval) == wanted
