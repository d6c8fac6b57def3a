"""What a scrape says of the engine and its containers, and whom it does not wait for."""

import asyncio
from dataclasses import dataclass, field

import pytest

from orlop.base.clock import ManualClock
from orlop.base.errors import InvalidInput
from orlop.engine import telemetry
from orlop.engine.events import EventBus
from orlop.engine.lifecycle import Status
from orlop.engine.meters import Histogram, Meters
from orlop.engine.model import Container, Record, State
from orlop.engine.requests import ContainerConfig, HostConfig, NetworkingConfig
from orlop.engine.telemetry import Telemetry, is_loopback, split_metrics_address
from orlop.engine.views import HealthLog
from orlop.runtime.contract import Stats, TaskGone


@dataclass
class Facts:
    info: dict = field(default_factory=lambda: {"version": "1"})
    cpu_count: int = 2
    memory_bytes: int = 1 << 30


class FakeTask:
    def __init__(self, answer):
        self.answer = answer
        self.asked = 0

    async def stats(self):
        self.asked += 1
        if self.answer is None:
            await asyncio.Event().wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def container(name, task=None, image="busybox", **state):
    record = Record(
        id=name.ljust(64, "0"),
        name=name,
        created_ns=1,
        image_id="sha256:1",
        image_name=image,
        layers=(),
        platform="linux",
        path="sh",
        args=(),
        config=ContainerConfig(),
        host=HostConfig(),
        networking=NetworkingConfig(),
        mounts=(),
    )
    made = Container(record, State(status=Status.RUNNING if task else Status.EXITED, **state))
    made.task = task
    return made


class FakeCatalog(dict):
    def __iter__(self):
        return iter(tuple(self.values()))


def world(*containers):
    catalog, events, meters, clock = FakeCatalog(), EventBus(), Meters(), ManualClock()
    events.on_publish = meters.published
    catalog.update({item.id: item for item in containers})
    return Telemetry(catalog, events, meters, Facts(), clock), events, meters, clock


def lines(document, start):
    return [line for line in document.decode().splitlines() if line.startswith(start)]


def test_a_container_is_known_by_id_name_and_image():
    stats = Stats(
        read_at_ns=1,
        cpu_total_ns=1_500_000_000,
        memory_usage_bytes=100,
        memory_detail={"inactive_file": 40},
        pids_current=3,
        networks={"eth0": {"rx_bytes": 5}, "eth1": {"rx_bytes": 1}},
        blkio=((8, 0, "Read", 7),),
    )
    scrape = world(
        container("web", FakeTask(stats), health="healthy", restart_count=2, started_ns=5_000_000_000),
        container("old", exit_code=3, finished_ns=1),
    )[0]

    shown = asyncio.run(scrape.document())

    labels = '{id="web000000000",name="web",image="busybox"}'
    for line in (
        f"orlop_container_up{labels} 1",
        f"orlop_container_restarts_total{labels} 2",
        f"orlop_container_start_time_seconds{labels} 5.0",
        f"orlop_container_cpu_seconds_total{labels} 1.5",
        f"orlop_container_memory_working_set_bytes{labels} 60",
        f"orlop_container_pids{labels} 3",
        f"orlop_container_network_receive_bytes_total{labels} 6",
        f"orlop_container_block_read_bytes_total{labels} 7",
        'orlop_container_health{id="web000000000",name="web",image="busybox",status="healthy"} 1',
        'orlop_container_exit_code{id="old000000000",name="old",image="busybox"} 3',
        'engine_daemon_container_states_containers{state="running"} 1',
        'engine_daemon_container_states_containers{state="stopped"} 1',
        "engine_daemon_engine_cpus_cpus 2",
    ):
        assert f"\n{line}\n" in shown.decode(), line
    assert not lines(shown, 'orlop_container_cpu_seconds_total{id="old')


def test_a_container_that_does_not_answer_is_left_out_and_left_alone(monkeypatch):
    monkeypatch.setattr(telemetry, "_READ_TIMEOUT_S", 0.02)
    wedged, ended, fine = (
        FakeTask(None),
        FakeTask(TaskGone("gone")),
        FakeTask(Stats(read_at_ns=1, pids_current=1)),
    )
    scrape, _, _, clock = world(container("w", wedged), container("e", ended), container("f", fine))

    async def scrapes():
        first = await scrape.document()
        clock.advance(5)
        await scrape.document()
        clock.advance(60)
        await scrape.document()
        return first

    first = asyncio.run(scrapes())

    assert [line[-1] for line in lines(first, "orlop_container_stats_up{")] == ["0", "0", "1"]
    assert len(lines(first, "orlop_container_pids{")) == 1
    assert (wedged.asked, fine.asked) == (2, 3)


def test_scrapes_that_come_together_share_one_reading():
    task = FakeTask(Stats(read_at_ns=1))
    scrape = world(container("a", task))[0]

    async def both():
        return await asyncio.gather(scrape.document(), scrape.document())

    one, other = asyncio.run(both())

    assert one == other
    assert task.asked == 1


def test_what_the_engine_did_is_counted():
    scrape, events, meters, _ = world(container("a"))
    events.publish("container", "oom", "a".ljust(64, "0"), {"image": "x"})
    events.publish("container", "start", "gone", {"image": "x"})
    meters.answered("ContainerStart", 204, 0.02)
    meters.answered("ContainerStart", 404, 9.0)
    meters.probed(HealthLog(start="", end="", exit_code=1, output=""))

    shown = asyncio.run(scrape.document()).decode()

    for line in (
        "engine_daemon_events_total 2",
        'engine_daemon_container_actions_seconds_bucket{action="start",le="0.01"} 0',
        'engine_daemon_container_actions_seconds_bucket{action="start",le="0.025"} 1',
        'engine_daemon_container_actions_seconds_count{action="start"} 1',
        'orlop_api_request_seconds_count{operation="ContainerStart"} 2',
        'orlop_api_responses_total{code="4xx"} 1',
        "engine_daemon_health_checks_failed_total 1",
        'orlop_container_oom_events_total{id="a00000000000",name="a",image="busybox"} 1',
    ):
        assert f"\n{line}\n" in shown, line


def test_kills_of_a_container_that_is_gone_are_forgotten():
    _, events, meters, _ = world()
    events.publish("container", "oom", "a", {"image": "x"})
    events.publish("container", "destroy", "a", {"image": "x"})

    assert not meters.oom_kills


def test_a_bound_belongs_to_its_bucket():
    histogram = Histogram()
    for took_s in (0.005, 10.0, 10.1):
        histogram.add(took_s)

    assert (histogram.counts[0], histogram.counts[-2], histogram.counts[-1]) == (1, 1, 1)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9323", ("127.0.0.1", 9323)),
        (":9323", ("0.0.0.0", 9323)),
        ("[::1]:0", ("::1", 0)),
        ("tcp://host:1", ("host", 1)),
    ],
)
def test_addresses_are_read_as_dockerd_does(text, address):
    assert split_metrics_address(text) == address


@pytest.mark.parametrize("text", ["9323", "host", "host:x", "host:65536", "::1:80", "host:-1"])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(InvalidInput, match="HOST:PORT"):
        split_metrics_address(text)


def test_only_this_machine_is_loopback():
    assert [is_loopback(host) for host in ("127.0.0.2", "::1", "localhost", "0.0.0.0", "10.0.0.1")] == [
        True,
        True,
        True,
        False,
        False,
    ]
