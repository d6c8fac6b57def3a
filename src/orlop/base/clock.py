"""Time comes from here, so that tests move it by hand."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol

__all__ = [
    "Clock",
    "ManualClock",
    "SystemClock",
    "format_rfc3339_milli",
    "format_rfc3339_nano",
    "parse_rfc3339_nano",
]

_NANO = 1_000_000_000


class Clock(Protocol):
    """Wall time for people, monotonic time for intervals."""

    def now_ns(self) -> int:
        """Nanoseconds since the epoch."""

    def monotonic_s(self) -> float:
        """Seconds on a clock that never jumps."""


class SystemClock:
    """The machine's clocks."""

    def now_ns(self) -> int:
        return time.time_ns()

    def monotonic_s(self) -> float:
        return time.monotonic()


class ManualClock:
    """A clock that stands still until it is moved."""

    def __init__(self, now_ns: int = 1_700_000_000 * _NANO) -> None:
        self._now_ns = now_ns
        self._monotonic_ns = 0

    def now_ns(self) -> int:
        return self._now_ns

    def monotonic_s(self) -> float:
        return self._monotonic_ns / _NANO

    def advance(self, seconds: float) -> None:
        """Move both clocks forward."""
        step = round(seconds * _NANO)
        self._now_ns += step
        self._monotonic_ns += step


def format_rfc3339_nano(value_ns: int) -> str:
    """`2024-01-02T03:04:05.123456789Z`, trailing zeros cut: Go's time.RFC3339Nano in UTC."""
    seconds, nanos = divmod(value_ns, _NANO)
    base = (
        datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat()
    )  # strftime drops zeros of year 1
    fraction = f".{nanos:09d}".rstrip("0") if nanos else ""
    return f"{base}{fraction}Z"


def format_rfc3339_milli(value_ns: int) -> str:
    """`2024-01-02T03:04:05.120Z`: always three digits, so that lines of a log align and sort."""
    seconds, nanos = divmod(value_ns, _NANO)
    base = format_rfc3339_nano(seconds * _NANO).removesuffix("Z")
    return f"{base}.{nanos // 1_000_000:03d}Z"


def parse_rfc3339_nano(text: str) -> int:
    """Nanoseconds since the epoch of an RFC 3339 time with up to nine fraction digits.

    Raises:
        ValueError: the text is not such a time.
    """
    head, zone = (text[:-1], "+00:00") if text[-1:] in "Zz" else (text[:-6], text[-6:])
    base, _, fraction = head.partition(".")
    if fraction and (not fraction.isdecimal() or len(fraction) > 9):
        raise ValueError(f"invalid RFC 3339 time: {text!r}")
    moment = datetime.fromisoformat(base + zone)
    return int(moment.timestamp()) * _NANO + int(fraction.ljust(9, "0") or 0)
