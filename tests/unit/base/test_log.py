import io
import json
import re

import pytest

from orlop.base import log
from orlop.base.clock import ManualClock
from orlop.base.errors import NotFound


@pytest.fixture
def stream():
    stream = io.StringIO()
    log.set_stream(stream)
    yield stream
    import sys

    log.set_stream(sys.stderr)
    log.set_level("info")
    log.set_format("text")


def test_facts_are_fields_and_odd_values_are_quoted(stream):
    log.info("pulled", image="alpine", note='a "b"\nc')

    assert stream.getvalue().endswith('INFO    pulled image=alpine note="a \\"b\\"\\nc"\n')


def test_lines_below_the_level_are_dropped(stream):
    log.set_level("warn")

    log.info("quiet")
    log.warning("loud")

    assert "quiet" not in stream.getvalue()
    assert "loud" in stream.getvalue()


def test_bound_facts_come_first(stream):
    log.Log(container="abc").error("died", code=1)

    assert stream.getvalue().endswith("died container=abc code=1\n")


def test_a_closed_stream_is_survived(stream):
    stream.close()

    log.error("nobody hears this")


def test_json_has_a_line_per_event_and_says_what_to_do(stream):
    log.set_format("json")

    log.warning(
        "no\nroom", error=NotFound("no such disk", hint="add one"), number=3, level="mine", raw=b"\xff"
    )

    (line,) = stream.getvalue().splitlines()
    found = json.loads(line)
    assert re.fullmatch(r"\d{4}-.*Z", found.pop("time"))
    assert found == {
        "level": "warning",
        "msg": "no\nroom",
        "error": "no such disk",
        "code": "not-found",
        "hint": "add one",
        "number": 3,
        "raw": "b'\\xff'",
    }


def test_unknown_format_is_refused():
    with pytest.raises(ValueError, match="unknown log format"):
        log.set_format("xml")


def test_unknown_level_is_refused():
    with pytest.raises(ValueError, match="unknown log level"):
        log.set_level("chatty")


def test_times_of_all_lines_have_milliseconds_and_one_length(stream, monkeypatch):
    clock = ManualClock(1_700_000_000_670_000_000)
    monkeypatch.setattr(log, "_clock", clock)

    log.info("one")
    clock.advance(0.33)
    log.info("two")

    times = re.findall(r"^\S+", stream.getvalue(), re.MULTILINE)
    assert times == ["2023-11-14T22:13:20.670Z", "2023-11-14T22:13:21.000Z"]
