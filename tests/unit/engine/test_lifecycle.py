from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orlop.engine.lifecycle import (
    TABLE,
    AlreadyThere,
    Event,
    NotPossible,
    Status,
    apply,
    is_active,
    render_table,
)

DOCUMENT = Path(__file__).parents[3] / "docs" / "internals" / "lifecycle.md"


def step(status, event):
    return apply(status, event, "web", "a" * 64)


def test_the_documented_table_is_the_one_that_runs():
    assert render_table() in DOCUMENT.read_text()


def test_every_state_can_be_reached_and_left():
    assert {transition.next for transition in TABLE.values()} == set(Status)
    assert {status for status, _ in TABLE} == set(Status)


@settings(max_examples=60)
@given(st.lists(st.sampled_from(list(Event)), max_size=25))
def test_any_order_of_events_is_a_transition_or_a_refusal(events):
    status = Status.CREATED
    for event in events:
        with suppress(NotPossible, AlreadyThere):
            status = step(status, event).next
    assert status in Status


@pytest.mark.parametrize(
    ("status", "event", "text"),
    [
        (Status.PAUSED, Event.START, "cannot start a paused container, try unpause instead"),
        (Status.REMOVING, Event.START, "container is marked for removal and cannot be started"),
        (Status.EXITED, Event.PAUSE, f"Container {'a' * 64} is not running"),
        (Status.PAUSED, Event.PAUSE, f"Container {'a' * 64} is already paused"),
        (Status.RUNNING, Event.UNPAUSE, f"Container {'a' * 64} is not paused"),
        (
            Status.RUNNING,
            Event.REMOVE,
            (
                'cannot remove container "/web": container is running: '
                "stop the container before removing or force remove"
            ),
        ),
        (
            Status.PAUSED,
            Event.REMOVE,
            'cannot remove container "/web": container is paused and must be unpaused first',
        ),
        (Status.REMOVING, Event.REMOVE, "removal of container web is already in progress"),
    ],
)
def test_refusals_have_the_texts_that_clients_know(status, event, text):
    with pytest.raises(NotPossible) as refusal:
        step(status, event)

    assert refusal.value.message == text


def test_starting_a_running_container_changes_nothing():
    with pytest.raises(AlreadyThere):
        step(Status.RUNNING, Event.START)


def test_a_container_between_restarts_counts_as_running():
    assert is_active(Status.RESTARTING)
    assert not is_active(Status.EXITED)
