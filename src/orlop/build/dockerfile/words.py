"""How the text behind an instruction's name is cut: flags, words, JSON lists, key=value."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

__all__ = ["Command", "NotStrings", "json_list", "split_command", "split_key_values", "split_words"]

_BLANKS = re.compile(r"[\t\v\f\r ]+")


class NotStrings(ValueError):
    """A JSON list in an instruction holds something that is not a string."""


@dataclass(frozen=True, slots=True)
class Command:
    """`name` as written, flags without their quotes, the rest trimmed."""

    name: str
    flags: tuple[str, ...]
    rest: str


def split_command(text: str, escape: str) -> Command:
    """Cut the name and the leading `--flags` off a logical line."""
    parts = _BLANKS.split(text.strip(), 1)
    if len(parts) < 2:
        return Command(parts[0], (), "")
    flags, rest = _split_flags(parts[1], escape)
    return Command(parts[0], flags, rest.strip())


def _split_flags(text: str, escape: str) -> tuple[tuple[str, ...], str]:
    flags: list[str] = []
    at = 0
    while True:
        while at < len(text) and text[at].isspace():
            at += 1
        if not text.startswith("--", at):
            return tuple(flags), text[at:]
        word, at = _flag_word(text, at, escape)
        if word == "--":
            return tuple(flags), text[at:]
        flags.append(word)


def _flag_word(text: str, at: int, escape: str) -> tuple[str, int]:
    """One flag from `at`: quotes group, the escape character takes the next one literally."""
    out: list[str] = []
    quote = ""
    while at < len(text):
        char = text[at]
        if not quote and char.isspace():
            break
        if char == escape:
            at += 1
            out.append(text[at : at + 1])
        elif quote and char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote = char
        else:
            out.append(char)
        at += 1
    return "".join(out), min(at, len(text))


def json_list(text: str) -> list[str] | None:
    """The strings of a JSON list; None when the text is not one (then it is shell form).

    Raises:
        NotStrings: it is a JSON list, but of something else.
    """
    text = text.lstrip()
    if not text.startswith("["):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not all(isinstance(item, str) for item in value):
        raise NotStrings("when using JSON array syntax, arrays must be comprised of strings only")
    return [item.encode("utf-8", "replace").decode() for item in value]


def split_words(text: str, escape: str) -> list[str]:
    """Words with their quotes and escapes still in place, for ENV, LABEL and ARG."""
    words: list[str] = []
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        word, at = _raw_word(text, at, escape)
        if word:
            words.append(word)
    return words


def _raw_word(text: str, at: int, escape: str) -> tuple[str, int]:
    out: list[str] = []
    quote = ""
    while at < len(text):
        char = text[at]
        if not quote and char.isspace():
            break
        if char == escape and quote != "'":
            if at + 1 == len(text):
                break  # a lone escape at the end says nothing
            out.append(text[at : at + 2])
            at += 2
            continue
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        out.append(char)
        at += 1
    return "".join(out), at + (at < len(text) and text[at] == escape)


def split_key_values(text: str, escape: str, name: str) -> list[tuple[str, str, bool]]:
    """Pairs of ENV and LABEL with a mark for the legacy form `KEY value`.

    Raises:
        ValueError: with the text that users know.
    """
    words = split_words(text, escape)
    if not words:
        raise ValueError(f"{name} requires at least one argument")
    if "=" not in words[0]:
        parts = _BLANKS.split(text, 1)
        if len(parts) < 2:
            raise ValueError(f"{name} must have two arguments")
        return [(parts[0], parts[1], True)]
    pairs: list[tuple[str, str, bool]] = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise ValueError(
                f"Syntax error - can't find = in {json.dumps(word)}. Must be of the form: name=value"
            )
        if not key:
            raise ValueError(f"{name} names can not be blank")
        pairs.append((key, value, False))
    return pairs
