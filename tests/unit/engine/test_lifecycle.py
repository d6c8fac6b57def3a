from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orlop.engine.lifecycle import (
    REQUESTS,
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
        (Status.EXITED, Event.PAUSE, f"container {'a' * 64} is not running"),
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


ID = "a" * 64
UP = 'cannot remove container "/web": container is {}: stop the container before removing or force remove'
DOWN = f"cannot kill container: web: container {ID} is not running"
GOING = "container is marked for removal and cannot be {}"
NO_PAUSE = f"container {ID} is not running"
NO_UNPAUSE = f"Container {ID} is not paused"
# what a client sees: the state afterwards, 304, or the text of a 409; a start leaves the state until the
# program runs. Columns: start stop kill signal pause unpause update rename remove force-remove
OUTCOMES = {
    Status.CREATED: (
        "created",
        304,
        DOWN,
        DOWN,
        NO_PAUSE,
        NO_UNPAUSE,
        "created",
        "created",
        "removing",
        "removing",
    ),
    Status.RUNNING: (
        *(304, "running", "running", "running", "paused", NO_UNPAUSE, "running", "running"),
        *(UP.format("running"), "removing"),
    ),
    Status.PAUSED: (
        *("cannot start a paused container, try unpause instead", "paused", "paused", "paused"),
        *(f"Container {ID} is already paused", "running", "paused", "paused"),
        *('cannot remove container "/web": container is paused and must be unpaused first', "removing"),
    ),
    Status.RESTARTING: (
        *("restarting", "exited", "exited", "restarting"),
        *(f"Container {ID} is restarting, wait until the container is running", NO_UNPAUSE),
        *("restarting", "restarting", UP.format("restarting"), "removing"),
    ),
    Status.EXITED: (
        "exited",
        304,
        DOWN,
        DOWN,
        NO_PAUSE,
        NO_UNPAUSE,
        "exited",
        "exited",
        "removing",
        "removing",
    ),
    Status.REMOVING: (
        *(GOING.format("started"), 304, "removing", "removing", NO_PAUSE, NO_UNPAUSE),
        *(GOING.format("updated"), GOING.format("renamed")),
        *("removal of container web is already in progress",) * 2,
    ),
    Status.DEAD: (
        *(GOING.format("started"), 304, DOWN, DOWN, NO_PAUSE, NO_UNPAUSE),
        *(GOING.format("updated"), GOING.format("renamed"), "removing", "removing"),
    ),
}


def outcome(status, event):
    try:
        return step(status, event).next.value
    except AlreadyThere:
        return 304
    except NotPossible as refusal:  # 409
        return refusal.message


@pytest.mark.parametrize("status", list(Status))
def test_every_request_in_every_state_has_the_outcome_that_dockerd_gives(status):
    assert tuple(outcome(status, event) for event in REQUESTS) == OUTCOMES[status]


def test_what_happens_by_itself_is_never_lost_where_a_program_may_run():
    for status in (Status.RUNNING, Status.PAUSED, Status.REMOVING):
        assert (status, Event.EXITED) in TABLE
    for status in (Status.CREATED, Status.RESTARTING, Status.EXITED):
        assert {(status, Event.STARTED), (status, Event.START_FAILED)} <= TABLE.keys()
