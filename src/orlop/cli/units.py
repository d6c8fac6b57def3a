"""Sizes, durations and ages as docker prints them, and sizes as its users type them."""

from __future__ import annotations

import re
import shlex

from orlop.base.errors import InvalidInput

__all__ = [
    "human_ago",
    "human_duration",
    "human_size",
    "parse_duration_ns",
    "parse_size",
    "rfc3339_local",
    "shell_quote",
    "short_id",
]

_SIZE = re.compile(r"(-?[0-9]+(?:\.[0-9]+)?)\s*([kKmMgGtTpP]?)(?:i?[bB])?\Z")
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h)")
_NANOS = {"ns": 1, "us": 1e3, "µs": 1e3, "ms": 1e6, "s": 1e9, "m": 60e9, "h": 3600e9}


def human_size(size_bytes: float, digits: int = 4) -> str:
    """Decimal units with `digits` significant figures: 5.59MB, 1.24kB, 0B."""
    value = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if value < 1000 or unit == "PB":
            return f"{value:.{digits}g}{unit}"
        value /= 1000
    raise AssertionError(size_bytes)


def human_duration(seconds: float) -> str:
    """`Less than a second`, `About a minute`, `3 weeks`: the words of docker ps."""
    whole = int(seconds)
    minutes, hours = whole // 60, round(seconds / 3600)
    days = hours // 24
    for is_match, text in (
        (whole < 1, "Less than a second"),
        (whole == 1, "1 second"),
        (whole < 60, f"{whole} seconds"),
        (minutes == 1, "About a minute"),
        (minutes < 60, f"{minutes} minutes"),
        (hours == 1, "About an hour"),
        (hours < 48, f"{hours} hours"),
        (hours < 24 * 7 * 2, f"{days} days"),
        (hours < 24 * 30 * 2, f"{days // 7} weeks"),
        (hours < 24 * 365 * 2, f"{days // 30} months"),
    ):
        if is_match:
            return text
    return f"{int(seconds / 3600 / 24 / 365)} years"


def rfc3339_local(seconds: float) -> str:
    """A moment in the local time zone, as Go writes it: `2026-01-02T03:04:05+01:00`, `Z` for UTC."""
    import time

    local = time.localtime(seconds)
    offset = time.strftime("%z", local)
    zone = "Z" if offset in {"+0000", "-0000"} else f"{offset[:3]}:{offset[3:]}"
    return time.strftime("%Y-%m-%dT%H:%M:%S", local) + zone


def human_ago(seconds: float) -> str:
    """A past moment: `2 hours ago`."""
    return f"{human_duration(seconds)} ago"


def parse_size(text: str) -> int:
    """Bytes of `64m`, `1.5g`, `512`, `2GiB`: binary units, as docker's memory flags.

    Raises:
        InvalidInput: not a size.
    """
    match = _SIZE.match(text.strip())
    if not match:
        raise InvalidInput(f"invalid size: '{text}'", hint="for example 512m or 2g")
    power = " kmgtp".index(match[2].lower() or " ")
    return int(float(match[1]) * 1024**power)


def parse_duration_ns(text: str) -> int:
    """Nanoseconds of a Go duration such as `1m30s` or `500ms`.

    Raises:
        InvalidInput: not a duration.
    """
    pieces = _DURATION.findall(text)
    if text == "0":
        return 0
    if not pieces or "".join(number + unit for number, unit in pieces) != text:
        raise InvalidInput(f'invalid duration "{text}"', hint="for example 30s or 1m30s")
    return round(sum(float(number) * _NANOS[unit] for number, unit in pieces))


def short_id(value: str) -> str:
    """The first 12 hex digits."""
    return value.removeprefix("sha256:")[:12]


def shell_quote(words: list[str]) -> str:
    """A command line that a shell would read back."""
    return shlex.join(words)
