"""Go durations: `1h30m`, `1.5s`, `500ms` to nanoseconds, and back as Go prints them."""

from __future__ import annotations

import re

__all__ = ["format_go_duration", "parse_go_duration"]

_UNITS_NS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_PART = re.compile(r"([0-9]{1,18})?(?:\.([0-9]{0,18}))?(ns|us|µs|μs|ms|s|m|h)")
_MAX_NS = (1 << 63) - 1


def parse_go_duration(text: str) -> int:
    """Nanoseconds of Go's time.ParseDuration.

    Raises:
        ValueError: not a duration, or beyond 292 years.
    """
    if text == "0":
        return 0
    sign = -1 if text.startswith("-") else 1
    body = text[1:] if text[:1] in "+-" else text
    total = at = 0
    while at < len(body):
        match = _PART.match(body, at)
        if match is None or not (match[1] or match[2]):
            raise ValueError(f'time: invalid duration "{text[:60]}"')
        unit = _UNITS_NS[match[3]]
        fraction = match[2] or ""
        total += int(match[1] or 0) * unit + int(fraction or 0) * unit // 10 ** len(fraction)
        at = match.end()
    if not body or total > _MAX_NS:
        raise ValueError(f'time: invalid duration "{text[:60]}"')
    return sign * total


def format_go_duration(value_ns: int) -> str:
    """As Go's Duration.String: `1h30m0s`, `1.5s`, `500ms`, `0s`."""
    if value_ns == 0:
        return "0s"
    sign, value = ("-", -value_ns) if value_ns < 0 else ("", value_ns)
    for unit, size in (("ns", 1), ("µs", 1_000), ("ms", 1_000_000)):
        if value < size * 1_000:
            return sign + _decimal(value, size) + unit
    seconds_ns = value % 60_000_000_000
    minutes = value // 60_000_000_000
    text = _decimal(seconds_ns, 1_000_000_000) + "s"
    if minutes:
        text = f"{minutes % 60}m{text}"
    if minutes >= 60:
        text = f"{minutes // 60}h{text}"
    return sign + text


def _decimal(value: int, size: int) -> str:
    whole, rest = divmod(value, size)
    if not rest:
        return str(whole)
    return f"{whole}.{str(rest).rjust(len(str(size)) - 1, '0').rstrip('0')}"
