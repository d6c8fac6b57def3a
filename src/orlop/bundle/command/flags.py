"""Flags as the command lines of OCI runtimes have them: `--flag value`, `--flag=value`, `-f value`. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from orlop.bundle.refusal import Refused

__all__ = ["Flag", "Parsed", "parse_flags"]

Kind = Literal["text", "flag", "list", "number"]


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag: what it takes, its other names, and a line of help."""

    kind: Kind = "text"
    short: str = ""
    help: str = ""


@dataclass(slots=True)
class Parsed:
    """Values by long name, and the words that are left."""

    values: dict[str, str | bool | list[str]] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)

    def text(self, name: str, default: str = "") -> str:
        """The value of a text flag."""
        value = self.values.get(name, default)
        assert isinstance(value, str)
        return value

    def is_set(self, name: str) -> bool:
        """A flag without value, or whether one with a value was given."""
        return bool(self.values.get(name, False))

    def texts(self, name: str) -> list[str]:
        """Every value of a flag that may be repeated."""
        value = self.values.get(name, [])
        assert isinstance(value, list)
        return value

    def number(self, name: str, default: int = 0) -> int:
        """A whole number.

        Raises:
            Refused: it is none.
        """
        text = self.text(name)
        if not text:
            return default
        try:
            return int(text, 0)
        except ValueError:
            raise Refused(f'invalid value "{text}" for flag --{name}: it is no number') from None


def parse_flags(words: Sequence[str], flags: Mapping[str, Flag]) -> Parsed:
    """Read flags up to the first word that is none, or `--`.

    Raises:
        Refused: an unknown flag, or a value is missing.
    """
    names = {item.short: name for name, item in flags.items() if item.short} | {name: name for name in flags}
    parsed = Parsed()
    pending = list(words)
    while pending:
        word = pending.pop(0)
        if word == "--":
            break
        if not word.startswith("-") or word == "-":
            pending.insert(0, word)
            break
        given, equals, value = word.lstrip("-").partition("=")
        name = names.get(given, "")
        if not name:
            raise Refused(f"flag provided but not defined: -{given}")
        kind = flags[name].kind
        if kind == "flag":
            parsed.values[name] = _boolean(given, value) if equals else True
            continue
        if not equals:
            if not pending:
                raise Refused(f"flag needs an argument: -{given}")
            value = pending.pop(0)
        if kind == "list":
            parsed.values[name] = [*parsed.texts(name), value]
        else:
            parsed.values[name] = value
    parsed.words = pending
    return parsed


def _boolean(name: str, value: str) -> bool:
    if value.lower() in {"1", "t", "true"}:
        return True
    if value.lower() in {"0", "f", "false"}:
        return False
    raise Refused(f'invalid boolean value "{value}" for -{name}')
