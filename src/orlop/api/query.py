"""Query strings with the habits of dockerd's form values."""

from __future__ import annotations

from urllib.parse import parse_qsl

from orlop.base.errors import InvalidInput
from orlop.engine.filters import Filters
from orlop.wire import gojson
from orlop.wire.godecode import InvalidJson

__all__ = ["Query", "parse_filters"]

MAX_FIELDS = 1000
MAX_FILTER_BYTES = 1 << 20
_FALSE = frozenset({"", "0", "no", "false", "none"})
_INT64 = 1 << 63


class Query:
    """Parsed query parameters; a parameter may repeat."""

    def __init__(self, text: str) -> None:
        self._values: dict[str, list[str]] = {}
        if not text:
            return
        try:
            pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FIELDS)
        except ValueError:
            raise InvalidInput(f"too many query parameters: limit is {MAX_FIELDS}") from None
        for name, value in pairs:
            self._values.setdefault(name, []).append(value)

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def discard(self, name: str) -> None:
        """Forget a parameter that the client's version does not have."""
        self._values.pop(name, None)

    def get(self, name: str, default: str = "") -> str:
        """The first value."""
        values = self._values.get(name)
        return values[0] if values else default

    def get_all(self, name: str) -> list[str]:
        """All values in order."""
        return self._values.get(name, [])

    def get_bool(self, name: str, *, default: bool = False) -> bool:
        """False for "", 0, no, false and none in any case; true for everything else."""
        if name not in self._values:
            return default
        return self.get(name).strip().lower() not in _FALSE

    def get_int(self, name: str, default: int = 0) -> int:
        """A decimal int64; empty is the default.

        Raises:
            InvalidInput: not a number; the text is Go's.
        """
        number = self.find_int(name)
        return default if number is None else number

    def find_int(self, name: str) -> int | None:
        """Like `get_int`, None when missing or empty."""
        text = self.get(name).strip()
        if not text:
            return None
        digits = text[1:] if text[0] in "+-" else text
        if not (digits.isascii() and digits.isdecimal()) or len(digits) > 30:
            raise InvalidInput(f'strconv.ParseInt: parsing "{text[:60]}": invalid syntax')
        number = int(text)
        if not -_INT64 <= number < _INT64:
            raise InvalidInput(f'strconv.ParseInt: parsing "{text}": value out of range')
        return number

    def filters(self, name: str = "filters") -> Filters:
        """The `filters` parameter; see `parse_filters`."""
        return Filters(self.filter_values(name))

    def filter_values(self, name: str = "filters") -> dict[str, tuple[str, ...]]:
        """The same as a plain mapping, for those who build their own."""
        return parse_filters(self.get(name))


def parse_filters(text: str) -> dict[str, tuple[str, ...]]:
    """Docker's filter grammar: `{"label": {"a=b": true}}`, or the older `{"label": ["a=b"]}`.

    Values whose flag is false are dropped. Which keys a noun accepts is the engine's business.

    Raises:
        InvalidInput: not of either form.
    """
    if not text:
        return {}
    try:
        document = gojson.parse(text.encode("utf-8", "replace"), limit=MAX_FILTER_BYTES)
    except InvalidJson as error:
        raise InvalidInput(f"invalid filter: {error.message}") from None
    if not isinstance(document, dict):
        raise InvalidInput("invalid filter: not a map")
    return {key: _filter_values(key, value) for key, value in document.items()}


def _filter_values(key: str, value: object) -> tuple[str, ...]:
    if isinstance(value, dict) and all(isinstance(flag, bool) for flag in value.values()):
        return tuple(item for item, flag in value.items() if flag)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise InvalidInput(f"invalid filter '{key[:60]}': want a map of values or a list of strings")
