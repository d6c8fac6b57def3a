"""The words in which lists describe a container: durations, status line, command line.

Texts as dockerd prints them (units.HumanDuration, State.String): scripts parse `docker ps`.
"""

from __future__ import annotations

from orlop.engine.lifecycle import Status
from orlop.engine.model import State

__all__ = ["command_line", "human_duration", "status_text"]

_NANO = 1_000_000_000


def human_duration(seconds: float) -> str:
    """`About a minute`, `3 hours`, `2 weeks`."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    minutes = whole // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    return _human_hours(seconds)


def _human_hours(seconds: float) -> str:
    hours = int(seconds / 3600 + 0.5)
    if hours == 1:
        return "About an hour"
    for limit, size, word in (
        (48, 1, "hours"),
        (336, 24, "days"),
        (1440, 168, "weeks"),
        (17520, 720, "months"),
    ):
        if hours < limit:
            return f"{hours // size} {word}"
    return f"{int(seconds / 3600) // 24 // 365} years"


def status_text(state: State, now_ns: int) -> str:
    """`Up 5 seconds (healthy)`, `Exited (0) 3 minutes ago`, `Created`, ..."""
    up = human_duration((now_ns - state.started_ns) / _NANO)
    down = human_duration((now_ns - state.finished_ns) / _NANO)
    match state.status:
        case Status.RUNNING:
            return f"Up {up}{_health_suffix(state)}"
        case Status.PAUSED:
            return f"Up {up} (Paused)"
        case Status.RESTARTING:
            return f"Restarting ({state.exit_code}) {down} ago"
        case Status.REMOVING:
            return "Removal In Progress"
        case Status.DEAD:
            return "Dead"
        case Status.CREATED:
            return "Created"
        case Status.EXITED:
            return f"Exited ({state.exit_code}) {down} ago" if state.finished_ns else ""


def _health_suffix(state: State) -> str:
    match state.health:
        case "":
            return ""
        case "starting":
            return " (health: starting)"
        case other:
            return f" ({other})"


def command_line(path: str, args: tuple[str, ...]) -> str:
    """Path and arguments in one line; an argument with a space is put in single quotes."""
    return " ".join([path, *(f"'{arg}'" if " " in arg else arg for arg in args)])
