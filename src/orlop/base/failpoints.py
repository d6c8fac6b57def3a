"""Named points at which tests make a step fail, crash or wait.

Grammar of a setting (the composition roots read it from the environment):
`name=action[,name=action...]` with action `crash` (exit at once, no clean-up, as kill -9
would), `error` (raise OSError EIO), `enospc` (raise OSError ENOSPC), `delay:MILLISECONDS`, or `skip`
(a step that asks `skips` is left out). `crash@3` acts on the third hit only. A setting `@FILE` lies
in that file and is read again whenever the file changes, in every process of the engine; hits are
counted from then on.
Off in production: one look at a variable per hit.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time

__all__ = ["configure", "hit", "is_active", "record_hits", "recorded", "skips"]

CRASH_EXIT_CODE = 137

_actions: dict[str, tuple[str, int]] = {}
_counts: dict[str, int] = {}
_recording: set[str] | None = None
_record_path = ""
_file = ""
_file_version = (0, 0)
_is_watching = False  # anything at all to do at a hit


def configure(setting: str) -> None:
    """Replace all actions by those of `setting`; an empty string turns everything off.

    Raises:
        ValueError: the setting does not follow the grammar.
    """
    global _file, _file_version
    _file, _file_version = (setting[1:], (0, 0)) if setting.startswith("@") else ("", (0, 0))
    _set_actions("" if _file else setting)


def is_active() -> bool:
    """True when any failpoint is set."""
    return bool(_actions)


def record_hits(path: str = "") -> None:
    """Start to remember the names that are hit, for the sweep that crashes at each of them.

    With a path they are also appended there, a line per hit, by this process and by those it forks.
    """
    global _recording, _record_path
    _recording, _record_path = set(), path
    _update()


def recorded() -> frozenset[str]:
    """The names hit since `record_hits`."""
    return frozenset(_recording or ())


def hit(name: str) -> None:
    """Mark a step boundary. Raises, crashes or waits when a test asked for it."""
    if not _is_watching:
        return
    if _recording is not None:
        _recording.add(name)
        if _record_path:
            _append(name)
    if _file:
        _read_file()
    if name not in _actions:
        return
    action, nth = _actions[name]
    _counts[name] = _counts.get(name, 0) + 1
    if nth and _counts[name] != nth:
        return
    if action == "crash":
        os._exit(CRASH_EXIT_CODE)
    if action == "skip":
        return
    if action.startswith("delay:"):
        time.sleep(int(action[6:]) / 1000)
        return
    number = errno.ENOSPC if action == "enospc" else errno.EIO
    raise OSError(number, os.strerror(number), f"failpoint {name}")


def skips(name: str) -> bool:
    """True when a test wants a step left out, to see that this is noticed. Looks at no file."""
    return bool(_actions) and _actions.get(name, ("", 0))[0] == "skip"


def _append(name: str) -> None:
    """One short write, whole among those of other processes; no fd is kept, forks may close any."""
    with contextlib.suppress(OSError), open(_record_path, "ab", buffering=0) as file:
        file.write(f"{name}\n".encode())


def _set_actions(setting: str) -> None:
    _actions.clear()
    _counts.clear()
    for part in filter(None, (piece.strip() for piece in setting.split(","))):
        name, equals, action = part.partition("=")
        action, _, nth = action.partition("@")
        if not equals or action.split(":")[0] not in {"crash", "error", "enospc", "delay", "skip"}:
            raise ValueError(f"invalid failpoint {part!r}: use NAME=crash|error|enospc|skip|delay:MS[@NTH]")
        _actions[name] = (action, int(nth) if nth else 0)
    _update()


def _read_file() -> None:
    global _file_version  # noqa: PLW0603
    try:
        status = os.stat(_file)
        version = (status.st_ino, status.st_mtime_ns)
        if version == _file_version:
            return
        with open(_file, encoding="utf-8") as file:
            setting = file.read()
    except OSError:
        version, setting = (0, 0), ""
    if version != _file_version:
        _set_actions(setting)
        _file_version = version


def _update() -> None:
    global _is_watching  # noqa: PLW0603
    _is_watching = bool(_actions) or bool(_file) or _recording is not None
