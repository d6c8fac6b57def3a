"""Spans of a request, its children, and nothing at all while nobody listens."""

import asyncio

import pytest

from orlop.base import trace
from orlop.base.errors import NotFound

PARENT = f"00-{'a1' * 16}-{'b2' * 8}-01"


@pytest.fixture
def told():
    spans = []
    trace.set_sink(spans.append)
    yield spans
    trace.set_sink(None)


def in_task(work):
    return asyncio.run(work())


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (PARENT, ("a1" * 16, "b2" * 8, True)),
        (f"00-{'a1' * 16}-{'b2' * 8}-00", ("a1" * 16, "b2" * 8, False)),
        (f"01-{'a1' * 16}-{'b2' * 8}-03-more", ("a1" * 16, "b2" * 8, True)),
        (f"00-{'a1' * 16}-{'b2' * 8}-01-more", None),
        (f"ff-{'a1' * 16}-{'b2' * 8}-01", None),
        (f"00-{'0' * 32}-{'b2' * 8}-01", None),
        (f"00-{'a1' * 16}-{'0' * 16}-01", None),
        (f"00-{'A1' * 16}-{'b2' * 8}-01", None),
        (PARENT + "\n", None),
        ("", None),
        ("0" * 10_000, None),
    ],
)
def test_a_traceparent_is_read_as_w3c_says(text, found):
    assert trace.parse_traceparent(text) == found


def test_without_a_sink_nothing_is_made():
    assert not trace.is_on()
    assert trace.span("a") is trace.span("b")
    with trace.span("a", x=1) as nothing:
        assert nothing is None


def test_children_belong_to_the_request_that_began_them(told):
    async def work():
        request = trace.begin("GET", PARENT)
        with trace.span("outer", size=3):
            await asyncio.create_task(child())
        with trace.span("sibling"):
            pass
        request.end()

    async def child():
        with trace.span("inner"):
            pass

    in_task(work)

    inner, outer, sibling, request = told
    assert [span.name for span in told] == ["inner", "outer", "sibling", "GET"]
    assert {span.trace_id for span in told} == {"a1" * 16}
    assert request.parent_id == "b2" * 8
    assert (outer.parent_id, sibling.parent_id, inner.parent_id) == (
        request.span_id,
        request.span_id,
        outer.span_id,
    )
    assert outer.attributes == {"size": 3}
    assert all(span.started_ns <= span.ended_ns for span in told)


def test_a_client_that_is_not_sampled_is_not_recorded(told):
    async def work():
        with trace.begin("GET", PARENT[:-1] + "0"), trace.span("child"):
            pass

    in_task(work)

    assert told == []


def test_work_after_the_end_of_the_request_is_no_part_of_it(told):
    async def work():
        trace.begin("GET", "").end()
        with trace.span("late"):
            pass

    in_task(work)

    assert [span.name for span in told] == ["GET"]


def test_an_error_is_told_and_goes_on(told):
    async def work():
        with trace.begin("GET", ""), trace.span("child"):
            raise NotFound("no such thing", hint="make one")

    with pytest.raises(NotFound):
        in_task(work)

    assert [span.error for span in told] == ["no such thing", "no such thing"]
