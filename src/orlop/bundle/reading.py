"""Typed reading of a runtime-spec document: every refusal names the field by its path. Pure.

Go reads these documents for others, so null is absent. Unknown fields are passed over, as the
spec asks ("Extensibility").
"""

from __future__ import annotations

from typing import Any

from orlop.oci.strictjson import MalformedDocument

__all__ = ["Reader", "malformed"]

_INT64_MAX = 2**63 - 1


def malformed(reader: Reader, key: str, reason: str) -> MalformedDocument:
    """The refusal of one field."""
    return MalformedDocument(f"{reader.place(key)}: {reason}")


class Reader:
    """One JSON object and where it stands in the document (`linux.resources`, "" for the top)."""

    __slots__ = ("raw", "where")

    def __init__(self, value: Any, where: str = "") -> None:
        if not isinstance(value, dict):
            raise MalformedDocument(f"{where or 'config.json'}: is not an object")
        self.raw: dict[str, Any] = value
        self.where = where

    def place(self, key: str) -> str:
        """The path of a field."""
        return f"{self.where}.{key}" if self.where else key

    def has(self, key: str) -> bool:
        """Whether the field is there and not null."""
        return self.raw.get(key) is not None

    def text(self, key: str) -> str:
        """A string without NUL; absent is empty."""
        value = self.raw.get(key)
        return "" if value is None else self._text(value, key)

    def flag(self, key: str) -> bool:
        """A boolean; absent is false."""
        value = self.raw.get(key)
        if value is None:
            return False
        if not isinstance(value, bool):
            raise malformed(self, key, "is not a boolean")
        return value

    def integer(self, key: str, minimum: int = -_INT64_MAX - 1, maximum: int = _INT64_MAX) -> int | None:
        """A whole number within bounds, None when absent."""
        value = self.raw.get(key)
        if value is None:
            return None
        if type(value) is not int:
            raise malformed(self, key, "is not an integer")
        if not minimum <= value <= maximum:
            raise malformed(self, key, f"{value} is not between {minimum} and {maximum}")
        return value

    def required_integer(self, key: str, minimum: int, maximum: int) -> int:
        """Like `integer`; absent is 0, as Go leaves it, and must be within the bounds, too."""
        value = self.integer(key, minimum, maximum)
        if value is None:
            if minimum > 0:
                raise malformed(self, key, "is missing")
            return 0
        return value

    def texts(self, key: str, limit: int) -> tuple[str, ...]:
        """A list of strings; absent is empty."""
        return tuple(self._text(item, f"{key}[{index}]") for index, item in enumerate(self._list(key, limit)))

    def integers(self, key: str, limit: int, maximum: int) -> tuple[int, ...]:
        """A list of numbers from 0; absent is empty."""
        found = self._list(key, limit)
        for index, item in enumerate(found):
            if type(item) is not int or not 0 <= item <= maximum:
                raise malformed(self, f"{key}[{index}]", f"is not a number from 0 to {maximum}")
        return tuple(found)

    def text_map(self, key: str, limit: int) -> dict[str, str]:
        """An object of strings; absent is empty."""
        return {
            self._text(name, key): self._text(item, f"{key}.{name}")
            for name, item in self._map(key, limit).items()
        }

    def object(self, key: str) -> Reader | None:
        """Like `child`; an object without content counts as absent."""
        found = self.child(key)
        return found if found is not None and found.raw else None

    def child(self, key: str) -> Reader | None:
        """A nested object, None when absent."""
        value = self.raw.get(key)
        return None if value is None else Reader(value, self.place(key))

    def children(self, key: str, limit: int) -> list[Reader]:
        """A list of objects; absent is empty."""
        return [
            Reader(item, f"{self.place(key)}[{index}]") for index, item in enumerate(self._list(key, limit))
        ]

    def child_map(self, key: str, limit: int) -> list[tuple[str, Reader]]:
        """An object of objects."""
        return [
            (self._text(name, key), Reader(item, f"{self.place(key)}.{name}"))
            for name, item in self._map(key, limit).items()
        ]

    def _text(self, value: Any, key: str) -> str:
        if not isinstance(value, str):
            raise malformed(self, key, "is not a string")
        if "\0" in value:
            raise malformed(self, key, "contains a NUL")
        return value

    def _list(self, key: str, limit: int) -> list[Any]:
        value = self.raw.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            raise malformed(self, key, "is not a list")
        if len(value) > limit:
            raise malformed(self, key, f"has {len(value)} entries, more than {limit}")
        return value

    def _map(self, key: str, limit: int) -> dict[str, Any]:
        value = self.raw.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise malformed(self, key, "is not an object")
        if len(value) > limit:
            raise malformed(self, key, f"has {len(value)} entries, more than {limit}")
        return value
