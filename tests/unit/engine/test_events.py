import asyncio

import pytest

from orlop.base.clock import ManualClock
from orlop.base.errors import InvalidInput
from orlop.engine.events import EventBus
from orlop.engine.filters import Filters, parse_timestamp_ns
from orlop.wire import gojson


def publish(bus, action="start", name="web", **attributes):
    values = {"name": name, "image": "busybox:latest", **attributes}
    return bus.publish("container", action, "c" * 64, values)


async def collect(subscription, count):
    return [(await anext(subscription)).action for _ in range(count)]


def test_an_event_has_the_new_and_the_old_form():
    event = publish(EventBus(ManualClock()))

    document = gojson.to_plain(event)

    assert document["status"] == document["Action"] == "start"
    assert document["id"] == document["Actor"]["ID"] == "c" * 64
    assert document["from"] == "busybox:latest"
    assert document["scope"] == "local"
    assert document["timeNano"] // 10**9 == document["time"]


def test_listeners_get_what_happens_after_they_came():
    async def run():
        bus = EventBus(ManualClock())
        publish(bus, "create")
        subscription = bus.subscribe()
        publish(bus, "start")
        publish(bus, "die")

        assert await collect(subscription, 2) == ["start", "die"]

    asyncio.run(run())


def test_kept_events_are_replayed_from_a_time():
    async def run():
        clock = ManualClock()
        bus = EventBus(clock)
        publish(bus, "create")
        clock.advance(10)
        publish(bus, "start")
        subscription = bus.subscribe(since_ns=clock.now_ns(), until_ns=clock.now_ns() + 1)
        clock.advance(10)

        assert [event.action async for event in subscription] == ["start"]
        assert bus.listener_count() == 0

    asyncio.run(run())


def test_a_closed_subscription_ends():
    async def run():
        bus = EventBus(ManualClock())
        subscription = bus.subscribe()
        waiting = asyncio.ensure_future(anext(subscription, None))
        await asyncio.sleep(0)
        subscription.close()

        assert await waiting is None

    asyncio.run(run())


def test_a_slow_listener_loses_the_oldest_and_blocks_nobody():
    async def run():
        bus = EventBus(ManualClock())
        subscription = bus.subscribe()
        for number in range(5000):
            publish(bus, str(number))

        assert (await anext(subscription)).action == str(5000 - 4096)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        ({"event": ["start"]}, True),
        ({"event": ["health_status"]}, True),
        ({"event": ["stop"]}, False),
        ({"type": ["container"]}, True),
        ({"type": ["image"]}, False),
        ({"container": ["web"]}, True),
        ({"container": ["cccc"]}, True),
        ({"container": ["other"]}, False),
        ({"image": ["busybox"]}, True),
        ({"image": ["alpine"]}, False),
        ({"label": ["tier=front"]}, True),
        ({"label": ["tier"], "event": ["start"]}, True),
        ({"label": ["tier=back"]}, False),
        ({"label!": ["tier=back"]}, True),
        ({"label!": ["tier=front"]}, False),
        ({"label!": ["tier"]}, False),
        ({"container": ["we"]}, True),
        ({"node": ["worker"]}, False),
    ],
)
def test_filters_choose(filters, wanted):
    bus = EventBus(ManualClock())
    subscription = bus.subscribe(filters=filters)

    publish(bus, "health_status: healthy" if "health_status" in str(filters) else "start", tier="front")

    assert bool(subscription._queue) is wanted


def test_unknown_filters_let_everything_pass():
    bus = EventBus(ManualClock())
    subscription = bus.subscribe(filters={"colour": ["red"]})
    publish(bus)

    assert len(subscription._queue) == 1


def test_an_end_alone_replays_what_is_kept():
    clock = ManualClock()
    bus = EventBus(clock)
    publish(bus)
    subscription = bus.subscribe(until_ns=clock.now_ns() + 1)

    assert len(subscription._queue) == 1


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("10", 10 * 10**9),
        ("10.5", 10_500_000_000),
        ("1970-01-01T00:00:10Z", 10 * 10**9),
        ("1970-01-02", 86_400 * 10**9),
        ("1970-01-01T00:01", 60 * 10**9),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1h30m", 100_000 * 10**9 - 5400 * 10**9),
        ("10s", 99_990 * 10**9),
    ],
)
def test_times_are_read_in_docker_s_forms(text, wanted):
    assert parse_timestamp_ns(text, 100_000 * 10**9) == wanted


def test_a_wrong_time_is_refused():
    with pytest.raises(InvalidInput):
        parse_timestamp_ns("yesterday", 0)


def test_labels_are_matched_by_name_or_by_value():
    filters = Filters({"label": ["a", "b=1"], "label!": ["c"]})

    assert filters.matches_labels("label", {"a": "", "b": "1"})
    assert not filters.matches_labels("label", {"a": "", "b": "2"})
    assert not filters.excludes_labels("label!", {"c": "x"})


def test_an_endless_pattern_is_only_text():
    assert not Filters({"name": ["(a+)+$" * 100]}).matches_pattern("name", "a" * 40)
