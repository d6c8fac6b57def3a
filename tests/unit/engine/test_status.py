import pytest

from orlop.engine.lifecycle import Status
from orlop.engine.model import State
from orlop.engine.status import command_line, human_duration, status_text

NOW = 1_000_000 * 10**9


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (119, "About a minute"),
        (120, "2 minutes"),
        (46 * 60, "46 minutes"),
        (3600, "About an hour"),
        (3 * 3600, "3 hours"),
        (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"),
        (14 * 86400, "2 weeks"),
        (61 * 86400, "2 months"),
        (800 * 86400, "2 years"),
    ],
)
def test_durations_are_told_as_people_do(seconds, text):
    assert human_duration(seconds) == text


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (State(), "Created"),
        (State(Status.RUNNING, started_ns=NOW - 5 * 10**9), "Up 5 seconds"),
        (State(Status.RUNNING, started_ns=NOW - 5 * 10**9, health="healthy"), "Up 5 seconds (healthy)"),
        (
            State(Status.RUNNING, started_ns=NOW - 5 * 10**9, health="starting"),
            "Up 5 seconds (health: starting)",
        ),
        (State(Status.PAUSED, started_ns=NOW - 5 * 10**9), "Up 5 seconds (Paused)"),
        (State(Status.EXITED, exit_code=3, finished_ns=NOW - 180 * 10**9), "Exited (3) 3 minutes ago"),
        (State(Status.RESTARTING, exit_code=1, finished_ns=NOW - 10**9), "Restarting (1) 1 second ago"),
        (State(Status.REMOVING), "Removal In Progress"),
        (State(Status.DEAD), "Dead"),
    ],
)
def test_the_status_line_is_docker_s(state, text):
    assert status_text(state, NOW) == text


def test_arguments_with_spaces_are_quoted():
    assert command_line("sh", ("-c", "echo hi")) == "sh -c 'echo hi'"
