"""Structured log lines: one event per line, facts as fields, to one stream, as text or as JSON.

Not the standard `logging`: supervisors and init share this module, and must not import
anything that loads code late. Levels: error = someone must act, warning = degraded,
info = lifecycle, debug = everything else.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TextIO

from orlop.base.clock import SystemClock, format_rfc3339_milli
from orlop.base.errors import OrlopError

__all__ = ["FORMATS", "Log", "debug", "error", "info", "set_format", "set_level", "set_stream", "warning"]

LEVELS = {"debug": 10, "info": 20, "warn": 30, "warning": 30, "error": 40, "fatal": 50}
FORMATS = ("text", "json")

_clock = SystemClock()


class _Sink:
    stream: TextIO = sys.stderr
    threshold = 20
    is_json = False


def set_level(level: str) -> None:
    """Show `level` and above; names as dockerd takes them.

    Raises:
        ValueError: unknown level.
    """
    if level not in LEVELS:
        raise ValueError(f"unknown log level {level!r}: use one of {', '.join(LEVELS)}")
    _Sink.threshold = LEVELS[level]


def set_format(name: str) -> None:
    """Write `text` or `json` from now on; keys and level names of JSON are those of dockerd.

    Raises:
        ValueError: unknown format.
    """
    if name not in FORMATS:
        raise ValueError(f"unknown log format {name!r}: use one of {', '.join(FORMATS)}")
    _Sink.is_json = name == "json"


def set_stream(stream: TextIO) -> None:
    """Write to `stream` from now on."""
    _Sink.stream = stream


def _quote(value: object) -> str:
    text = str(value)
    if text and all(c > " " and c not in '"=\\' and c != "\x7f" for c in text):
        return text
    return '"' + text.encode("unicode_escape").decode("ascii").replace('"', '\\"') + '"'


def _json_line(level: str, time_text: str, message: str, facts: dict[str, object]) -> str:
    """One object; what an error tells to do is a field of its own. Our keys win over facts of their names."""
    fields: dict[str, object] = {}
    for name, value in facts.items():
        if isinstance(value, OrlopError):
            fields |= {name: value.message, "code": value.code}
            if value.hint:
                fields["hint"] = value.hint
        else:
            fields[name] = value if isinstance(value, bool | int | float) else str(value)
    return json.dumps(fields | {"level": level, "msg": message, "time": time_text}) + "\n"


def _write(level: str, message: str, facts: dict[str, object]) -> None:
    if LEVELS[level] < _Sink.threshold:
        return
    time_text = format_rfc3339_milli(_clock.now_ns())
    if _Sink.is_json:
        line = _json_line(level, time_text, message, facts)
    else:
        fields = "".join(f" {name}={_quote(value)}" for name, value in facts.items())
        line = f"{time_text} {level.upper():<7} {message}{fields}\n"
    try:
        _Sink.stream.write(line)
        _Sink.stream.flush()
    except (OSError, ValueError):  # a closed or full log must never stop the engine
        os.sched_yield()


def debug(message: str, **facts: object) -> None:
    """Write a debug line."""
    _write("debug", message, facts)


def info(message: str, **facts: object) -> None:
    """Write an info line."""
    _write("info", message, facts)


def warning(message: str, **facts: object) -> None:
    """Write a warning line."""
    _write("warning", message, facts)


def error(message: str, **facts: object) -> None:
    """Write an error line."""
    _write("error", message, facts)


class Log:
    """The same four functions with facts that are on every line."""

    def __init__(self, **facts: object) -> None:
        self._facts = facts

    def debug(self, message: str, **facts: object) -> None:
        _write("debug", message, self._facts | facts)

    def info(self, message: str, **facts: object) -> None:
        _write("info", message, self._facts | facts)

    def warning(self, message: str, **facts: object) -> None:
        _write("warning", message, self._facts | facts)

    def error(self, message: str, **facts: object) -> None:
        _write("error", message, self._facts | facts)
