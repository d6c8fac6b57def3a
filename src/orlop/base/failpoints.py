"""Named points at which tests make a step fail, crash or wait.

Grammar of a setting (the composition root reads it from the environment):
`name=action[,name=action...]` with action `crash` (exit at once, no clean-up, as kill -9
would), `error` (raise OSError EIO), `enospc` (raise OSError ENOSPC) or `delay:MILLISECONDS`.
`crash@3` acts on the third hit only. Off in production: one dictionary look-up per hit.
"""

from __future__ import annotations

import errno
import os
import time

__all__ = ["configure", "hit", "is_active", "record_hits", "recorded"]

CRASH_EXIT_CODE = 137

_actions: dict[str, tuple[str, int]] = {}
_counts: dict[str, int] = {}
_recording: set[str] | None = None


def configure(setting: str) -> None:
    """Replace all actions by those of `setting`; an empty string turns everything off.

    Raises:
        ValueError: the setting does not follow the grammar.
    """
    _actions.clear()
    _counts.clear()
    for part in filter(None, (piece.strip() for piece in setting.split(","))):
        name, equals, action = part.partition("=")
        action, _, nth = action.partition("@")
        if not equals or action.split(":")[0] not in {"crash", "error", "enospc", "delay"}:
            raise ValueError(f"invalid failpoint {part!r}: use NAME=crash|error|enospc|delay:MS[@NTH]")
        _actions[name] = (action, int(nth) if nth else 0)


def is_active() -> bool:
    """True when any failpoint is set."""
    return bool(_actions)


def record_hits() -> None:
    """Start to remember the names that are hit, for the sweep that crashes at each of them."""
    global _recording  # noqa: PLW0603 - one switch per process, set by tests only
    _recording = set()


def recorded() -> frozenset[str]:
    """The names hit since `record_hits`."""
    return frozenset(_recording or ())


def hit(name: str) -> None:
    """Mark a step boundary. Raises, crashes or waits when a test asked for it."""
    if _recording is not None:
        _recording.add(name)
    if not _actions or name not in _actions:
        return
    action, nth = _actions[name]
    _counts[name] = _counts.get(name, 0) + 1
    if nth and _counts[name] != nth:
        return
    if action == "crash":
        os._exit(CRASH_EXIT_CODE)
    if action.startswith("delay:"):
        time.sleep(int(action[6:]) / 1000)
        return
    number = errno.ENOSPC if action == "enospc" else errno.EIO
    raise OSError(number, os.strerror(number), f"failpoint {name}")
