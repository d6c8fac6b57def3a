"""Docker's filters: keys to sets of values, and the times that `since` and `until` take."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

from orlop.base.clock import parse_rfc3339_nano
from orlop.base.errors import InvalidInput

__all__ = ["Filters", "parse_timestamp_ns"]

_NANO = 1_000_000_000
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_UNITS = {"ns": 1, "us": 1e3, "µs": 1e3, "ms": 1e6, "s": 1e9, "m": 60e9, "h": 3600e9}
_TIME_FORMS = (
    (re.compile(r"\d{4}-\d\d-\d\d\Z"), "T00:00:00Z"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d\Z"), ":00:00Z"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d\Z"), ":00Z"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\Z"), "Z"),
    (re.compile(r".*(Z|[+-]\d\d:\d\d)\Z"), ""),
)


class Filters:
    """Keys to the values given for them; a key without values is not there."""

    def __init__(self, values: Mapping[str, Iterable[str]] | None = None) -> None:
        self._values = {key: tuple(items) for key, items in (values or {}).items()}

    def __bool__(self) -> bool:
        return any(self._values.values())

    def __contains__(self, key: str) -> bool:
        return bool(self._values.get(key))

    def get(self, key: str) -> tuple[str, ...]:
        """All values of a key."""
        return self._values.get(key, ())

    def check_keys(self, known: Collection[str]) -> None:
        """Refuse unknown keys with dockerd's text."""
        for key in self._values:
            if key not in known:
                raise InvalidInput(f"invalid filter '{key}'")

    def get_bool(self, key: str, *, default: bool = False) -> bool:
        """The one boolean of a key."""
        values = self.get(key)
        if not values:
            return default
        words = {"1": True, "true": True, "t": True, "0": False, "false": False, "f": False}
        found = {words.get(value.lower()) for value in values}
        if len(found) != 1 or None in found:
            raise InvalidInput(f"invalid filter '{key}=[{' '.join(values)[:200]}]'")
        return bool(found.pop())

    def matches_exactly(self, key: str, *candidates: str) -> bool:
        """True without values, or when one of them is one of the candidates."""
        values = self.get(key)
        return not values or any(candidate in values for candidate in candidates)

    def matches_pattern(self, key: str, text: str) -> bool:
        """True without values, or when one is equal to the text or matches as a regular expression."""
        values = self.get(key)
        return not values or any(value == text or _search(value, text) for value in values)

    def matches_labels(self, key: str, labels: Mapping[str, str] | None) -> bool:
        """All of `name` or `name=value` must be among the labels."""
        return all(_has_label(wanted, labels or {}) for wanted in self.get(key))

    def excludes_labels(self, key: str, labels: Mapping[str, str] | None) -> bool:
        """True when none of the `label!=` values is among the labels."""
        return not any(_has_label(unwanted, labels or {}) for unwanted in self.get(key))


def _has_label(wanted: str, labels: Mapping[str, str]) -> bool:
    name, equals, value = wanted.partition("=")
    return name in labels and (not equals or labels[name] == value)


def _search(pattern: str, text: str) -> bool:
    if len(pattern) > 256 or len(text) > 1024:  # regular expressions of strangers are kept small
        return pattern in text
    try:
        return re.search(pattern, text) is not None
    except (re.error, RecursionError, OverflowError):
        return pattern in text


def parse_timestamp_ns(text: str, now_ns: int) -> int:
    """Docker's times: seconds with fraction, RFC 3339 in several lengths, or a duration before now.

    Raises:
        InvalidInput: none of these.
    """
    text = text.strip()
    number = re.fullmatch(r"(-?\d{1,18})(?:\.(\d{1,9}))?", text)
    if number:
        return int(number[1]) * _NANO + int((number[2] or "0").ljust(9, "0"))
    pieces = list(_DURATION.finditer(text))
    if pieces and "".join(piece[0] for piece in pieces) == text:
        return now_ns - int(sum(float(piece[1]) * _UNITS[piece[2]] for piece in pieces))
    for form, suffix in _TIME_FORMS:
        if form.match(text):
            try:
                return parse_rfc3339_nano(text + suffix)
            except ValueError:
                break
    raise InvalidInput(f'failed to parse value as time or duration: "{text[:100]}"')
