import asyncio

import pytest

from orlop.transfer.progress import Feed, Meter, Progress, narrate, to_message


@pytest.mark.parametrize(
    ("progress", "message"),
    [
        (Progress("Pulling from library/alpine", "latest"), {"status": "Pulling from library/alpine", "id": "latest"}),
        (Progress("Already exists", "abc", is_layer=True), {"status": "Already exists", "progressDetail": {}, "id": "abc"}),
        (
            Progress("Downloading", "abc", 500_000, 1_000_000, is_layer=True),
            {
                "status": "Downloading",
                "progressDetail": {"current": 500_000, "total": 1_000_000},
                "progress": "[=========================>                         ]    500kB/1MB",
                "id": "abc",
            },
        ),
        (Progress(aux={"Tag": "1"}), {"progressDetail": {}, "aux": {"Tag": "1"}}),
        (Progress("Status: done"), {"status": "Status: done"}),
    ],
)  # fmt: skip
def test_messages_are_dockers(progress, message):
    assert to_message(progress) == message


def test_counts_merge_while_nobody_reads_and_statuses_do_not():
    async def main():
        feed = Feed()
        for count in range(1, 1000):
            feed.report(Progress("Downloading", "a", count, 1000, is_layer=True))
            feed.report(Progress("Downloading", "b", count, 1000, is_layer=True))
        feed.report(Progress("Pull complete", "a", is_layer=True))
        feed.finish()
        return [(p.id, p.status, p.current) async for p in feed.values()]

    assert asyncio.run(main()) == [
        ("a", "Downloading", 999),
        ("b", "Downloading", 999),
        ("a", "Pull complete", 0),
    ]


def test_a_meter_speaks_seldom_but_tells_the_end():
    async def main():
        seen = []
        meter = Meter(seen.append, "a", "Pushing", 1000)
        for count in range(1, 1001):
            meter.at(count)
        return [progress.current for progress in seen]

    told = asyncio.run(main())

    assert len(told) < 10
    assert told[-1] == 1000


async def collect(values, seen):
    async for progress in values:
        seen.append(progress.status)


def test_the_failure_comes_after_the_last_report():
    async def work(report):
        report(Progress("one"))
        raise ValueError("broken")

    async def main():
        seen = []
        with pytest.raises(ValueError, match="broken"):
            await collect(narrate("test", work), seen)
        return seen

    assert asyncio.run(main()) == ["one"]


def test_closing_early_cancels_the_work_and_waits_for_it():
    trace = []

    async def work(report):
        report(Progress("one"))
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            trace.append("ended")

    async def main():
        values = narrate("test", work)
        await anext(values)
        await values.aclose()

    asyncio.run(main())
    assert trace == ["ended"]
