"""Restart policies: shall this container run again, and after how long? Pure.

The delay doubles from 100 ms up to a minute and starts anew once a run has lasted ten seconds
(dockerd's figures, on which users' expectations rest).
"""

from __future__ import annotations

from orlop.base.errors import InvalidInput
from orlop.engine.requests import RestartPolicy

__all__ = ["check_policy", "next_delay_s", "shall_restart", "shall_start_with_engine"]

_FIRST_DELAY_S = 0.1
_MAX_DELAY_S = 60.0
_GOOD_RUN_S = 10.0
_WORDS = ("no", "always", "on-failure", "unless-stopped")


def check_policy(policy: RestartPolicy) -> None:
    """Refuse what dockerd refuses, with its texts."""
    if policy.name and policy.name not in _WORDS:
        raise InvalidInput(
            f"invalid restart policy: unknown policy '{policy.name[:100]}'; "
            "use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        )
    if policy.maximum_retry_count == 0:
        return
    if policy.name != "on-failure":
        raise InvalidInput("invalid restart policy: maximum retry count can only be used with 'on-failure'")
    if policy.maximum_retry_count < 0:
        raise InvalidInput("invalid restart policy: maximum retry count cannot be negative")


def shall_restart(policy: RestartPolicy, exit_code: int, restart_count: int, *, was_stopped: bool) -> bool:
    """Decide at an exit. `was_stopped`: a user asked for it to end."""
    if was_stopped:
        return False
    match policy.name:
        case "always" | "unless-stopped":
            return True
        case "on-failure":
            limit = policy.maximum_retry_count
            return exit_code != 0 and (limit == 0 or restart_count < limit)
        case _:
            return False


def shall_start_with_engine(
    policy: RestartPolicy,
    exit_code: int,
    restart_count: int = 0,
    *,
    has_run: bool,
    was_stopped: bool,
    was_active: bool,
) -> bool:
    """Decide when the engine starts and finds the container not running.

    `was_active` means that it ran when the engine or the machine went down.
    """
    match policy.name:
        case "always":
            return has_run
        case "unless-stopped":
            return has_run and not was_stopped
        case "on-failure":
            return was_active and shall_restart(policy, exit_code, restart_count, was_stopped=was_stopped)
        case _:
            return False


def next_delay_s(previous_s: float, run_s: float) -> float:
    """The back-off before the next start."""
    if previous_s <= 0 or run_s >= _GOOD_RUN_S:
        return _FIRST_DELAY_S
    return min(previous_s * 2, _MAX_DELAY_S)
