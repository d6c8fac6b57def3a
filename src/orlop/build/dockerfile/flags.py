"""Flags of an instruction: `--name=value`, checked against what the instruction knows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from orlop.build.dockerfile.errors import did_you_mean

__all__ = ["BOOLEAN", "LIST", "TEXT", "Flags"]

BOOLEAN, TEXT, LIST = "boolean", "text", "list"


class Flags:
    """The parsed flags of one instruction.

    Raises:
        ValueError: unknown, repeated or malformed flag, in the words that users know.
    """

    def __init__(self, written: Iterable[str], known: Mapping[str, str]) -> None:
        self._values: dict[str, list[str]] = {}
        for flag in written:
            name, equals, value = flag.removeprefix("--").partition("=")
            kind = known.get(name)
            if kind is None:
                raise ValueError(f"unknown flag: --{name}{did_you_mean(name, known)}")
            if name in self._values and kind is not LIST:
                raise ValueError(f"duplicate flag specified: --{name}")
            self._values.setdefault(name, []).append(_checked(name, kind, value, has_value=bool(equals)))

    def text(self, name: str, default: str = "") -> str:
        """Value of a text flag."""
        return self._values.get(name, [default])[-1]

    def all(self, name: str) -> tuple[str, ...]:
        """Values of a list flag, in order."""
        return tuple(self._values.get(name, ()))

    def find_boolean(self, name: str) -> bool | None:
        """True or false as given; None when absent."""
        return self._values[name][-1] == "true" if name in self._values else None


def _checked(name: str, kind: str, value: str, *, has_value: bool) -> str:
    if kind is BOOLEAN:
        if has_value and not value:
            raise ValueError(f"missing a value on flag: --{name}")
        word = value.lower() or "true"
        if word not in ("true", "false"):
            raise ValueError(f"expecting boolean value for flag --{name}, not: {value}")
        return word
    if not has_value:
        raise ValueError(f"missing a value on flag: --{name}")
    return value
