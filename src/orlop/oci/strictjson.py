"""Strict JSON: documents that two decoders could read differently are refused.

Refused: bytes that are not UTF-8 or begin with a byte order mark, keys that occur twice or
differ only by case (Go matches keys without case), a known key in the wrong case, NaN and
numbers beyond 64 bits or double range, lone surrogates, trailing data, nesting beyond 64
and documents beyond the size budget. `Fields` then reads typed values with the place in
every message, taking null as absent like Go.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from orlop.base.errors import InvalidInput

__all__ = [
    "DOCUMENT_LIMIT_BYTES",
    "HARD_LIMIT_BYTES",
    "Fields",
    "MalformedDocument",
    "decode",
    "decode_value",
]

DOCUMENT_LIMIT_BYTES = 4 << 20
HARD_LIMIT_BYTES = 16 << 20
_MAX_DEPTH = 64
_INT64 = range(-(1 << 63), 1 << 63)
_MAX_INT_DIGITS = 20
_SURROGATE = re.compile("[\ud800-\udfff]")
# Maps whose keys are the user's data, where `a` and `A` are two things.
_FREE_MAPS = frozenset({"labels", "annotations", "volumes", "exposedports"})


class MalformedDocument(InvalidInput):
    """A JSON document breaks its schema or could be read in two ways."""

    code = "malformed-document"


def decode(
    data: bytes, what: str, limit_bytes: int = DOCUMENT_LIMIT_BYTES, *, allow_uint64: bool = False
) -> dict[str, Any]:
    """Decode one JSON object; see `decode_value`.

    Raises:
        MalformedDocument: see the module.
    """
    value = decode_value(data, what, limit_bytes, allow_uint64=allow_uint64)
    if not isinstance(value, dict):
        raise MalformedDocument(f"{what} is not a JSON object")
    return value


def decode_value(
    data: bytes, what: str, limit_bytes: int = DOCUMENT_LIMIT_BYTES, *, allow_uint64: bool = False
) -> Any:
    """Decode one JSON document.

    Args:
        data: the exact bytes received.
        what: names the document in messages: `manifest`.
        limit_bytes: budget of the caller, at most `HARD_LIMIT_BYTES`.
        allow_uint64: numbers up to 2**64-1 are in range, too: the runtime-spec has some.

    Raises:
        MalformedDocument: see the module.
    """
    if len(data) > min(limit_bytes, HARD_LIMIT_BYTES):
        raise MalformedDocument(
            f"{what} has {len(data)} bytes, more than the {limit_bytes} that are accepted"
        )
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_float=_float,
            parse_int=_unsigned if allow_uint64 else _integer,
        )
    except UnicodeDecodeError as error:
        raise MalformedDocument(f"{what} is not UTF-8") from error
    except RecursionError as error:
        raise MalformedDocument(f"{what} is nested too deeply") from error
    except ValueError as error:
        raise MalformedDocument(f"{what} is not valid JSON: {str(error)[:200]}") from error
    _check(value, what)
    return value


class Fields:
    """Typed reading of one JSON object.

    Args:
        value: what `decode` gave for it.
        where: its place in messages: `manifest: layers[2]`.
        known: the keys of its schema; one of them in another case is refused.
    """

    __slots__ = ("_value", "where")

    def __init__(self, value: object, where: str, known: Iterable[str] = ()) -> None:
        if not isinstance(value, dict):
            raise MalformedDocument(f"{where} is not an object")
        exact = frozenset(known)
        folded = {key.casefold() for key in exact}
        for key in value:
            if key not in exact and key.casefold() in folded:
                raise MalformedDocument(f"{where} has the key {key!r} in the wrong case")
        self._value: dict[str, Any] = value
        self.where = where

    def __contains__(self, key: str) -> bool:
        return self._value.get(key) is not None

    def text(self, key: str, default: str = "") -> str:
        """A string without NUL."""
        value = self._value.get(key)
        if value is None:
            return default
        return self._text(value, key)

    def integer(self, key: str, default: int = 0) -> int:
        """A whole number in 64 bits."""
        value = self._value.get(key)
        if value is None:
            return default
        if type(value) is not int:
            raise MalformedDocument(f"{self.where}: {key} is not an integer")
        return value

    def flag(self, key: str) -> bool:
        """A boolean; absent is false."""
        value = self._value.get(key)
        if value is None:
            return False
        if not isinstance(value, bool):
            raise MalformedDocument(f"{self.where}: {key} is not a boolean")
        return value

    def texts(self, key: str, limit: int) -> tuple[str, ...] | None:
        """A list of strings, or None when absent: an empty list is something else."""
        value = self._value.get(key)
        return (
            None if value is None else tuple(self._text(item, key) for item in self._list(value, key, limit))
        )

    def text_map(self, key: str, limit: int) -> dict[str, str]:
        """An object of strings; absent is empty."""
        value = self._value.get(key)
        if value is None:
            return {}
        return {
            self._text(name, key): self._text(item, key)
            for name, item in self._map(value, key, limit).items()
        }

    def names(self, key: str, limit: int) -> tuple[str, ...]:
        """The keys of an object of empty objects, which is how Go writes a set."""
        value = self._value.get(key)
        return () if value is None else tuple(self._text(name, key) for name in self._map(value, key, limit))

    def child(self, key: str, known: Iterable[str] = ()) -> Fields | None:
        """A nested object, or None when absent."""
        value = self._value.get(key)
        return None if value is None else Fields(value, f"{self.where}: {key}", known)

    def children(self, key: str, limit: int, known: Iterable[str] = ()) -> list[Fields]:
        """A list of objects; absent is empty."""
        value = self._value.get(key)
        items = [] if value is None else self._list(value, key, limit)
        return [Fields(item, f"{self.where}: {key}[{number}]", known) for number, item in enumerate(items)]

    def _text(self, value: object, key: str) -> str:
        if not isinstance(value, str) or "\0" in value:
            raise MalformedDocument(f"{self.where}: {key} is not a string without NUL")
        return value

    def _list(self, value: object, key: str, limit: int) -> list[Any]:
        if not isinstance(value, list):
            raise MalformedDocument(f"{self.where}: {key} is not a list")
        if len(value) > limit:
            raise MalformedDocument(f"{self.where}: {key} has {len(value)} entries, more than {limit}")
        return value

    def _map(self, value: object, key: str, limit: int) -> Mapping[str, Any]:
        if not isinstance(value, dict):
            raise MalformedDocument(f"{self.where}: {key} is not an object")
        if len(value) > limit:
            raise MalformedDocument(f"{self.where}: {key} has {len(value)} entries, more than {limit}")
        return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice[:80]!r} occurs twice")
    return value


def _constant(text: str) -> float:
    raise ValueError(f"{text} is not a JSON number")


def _float(text: str) -> float:
    value = float(text)
    if value in {float("inf"), float("-inf")}:
        raise ValueError(f"number {text[:40]} is out of range")
    return value


def _integer(text: str) -> int:
    if len(text) > _MAX_INT_DIGITS or (value := int(text)) not in _INT64:
        raise ValueError(f"number {text[:40]} is out of range")
    return value


def _unsigned(text: str) -> int:
    if len(text) > _MAX_INT_DIGITS or not -(1 << 63) <= (value := int(text)) < 1 << 64:
        raise ValueError(f"number {text[:40]} is out of range")
    return value


def _check(document: Any, what: str) -> None:
    """Depth, surrogates and case-variant keys, without recursion."""
    pending: list[tuple[Any, int, bool]] = [(document, 1, False)]
    while pending:
        value, depth, free = pending.pop()
        if isinstance(value, str):
            if _SURROGATE.search(value):
                raise MalformedDocument(f"{what} has an unpaired surrogate")
            continue
        if not isinstance(value, dict | list):
            continue
        if depth > _MAX_DEPTH:
            raise MalformedDocument(f"{what} is nested deeper than {_MAX_DEPTH}")
        if isinstance(value, list):
            pending += [(item, depth + 1, False) for item in value]
            continue
        if not free and len({key.casefold() for key in value}) != len(value):
            raise MalformedDocument(f"{what} has keys that differ only by case")
        pending += [(key, depth, False) for key in value]
        pending += [(item, depth + 1, key.casefold() in _FREE_MAPS) for key, item in value.items()]
