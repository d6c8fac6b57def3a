r"""Go's filepath.Match, as COPY uses it for its sources: `*` and `?` stop at slashes.

A pattern is a row of tokens. Patterns with few stars become a regular expression; the rest
run as a set of states, one integer, moved once per character, so that no pattern makes
matching explode. (Lists with `**` and `!` are those of `orlop.wire.ignorefile`.)

Spec: Go path/filepath, Match.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from orlop.base.errors import InvalidInput

__all__ = ["BadPattern", "compile_match", "has_wildcard"]

MAX_PATTERN_CHARS = 4_096
_FEW_STARS = 2
_STAR = "[^/]*"

Matcher = Callable[[str], bool]


class BadPattern(InvalidInput):
    """The pattern has a syntax error; it is Go's ErrBadPattern."""

    code = "invalid-path-pattern"


def has_wildcard(path: str) -> bool:
    """True when an unescaped `*`, `?` or `[` is in the path."""
    return re.search(r"(?<!\\)(?:\\\\)*[*?\[]", path) is not None


@lru_cache(maxsize=1024)
def compile_match(pattern: str) -> Matcher:
    """A function that says what filepath.Match(pattern, path) says.

    Raises:
        BadPattern: bad syntax, or longer than `MAX_PATTERN_CHARS`.
    """
    if len(pattern) > MAX_PATTERN_CHARS:
        raise BadPattern(f"pattern longer than {MAX_PATTERN_CHARS} characters")
    tokens = _tokens(pattern)
    if tokens.count(_STAR) <= _FEW_STARS:
        expression = re.compile("".join(tokens), re.DOTALL)
        return lambda path: expression.fullmatch(path) is not None
    compiled = [None if token == _STAR else re.compile(token, re.DOTALL) for token in tokens]
    return lambda path: _run(compiled, path)


def _tokens(pattern: str) -> list[str]:
    """One regular expression per character matched, or `_STAR`."""
    tokens: list[str] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*":
            if not tokens or tokens[-1] != _STAR:
                tokens.append(_STAR)
        elif char == "?":
            tokens.append("[^/]")
        elif char == "[":
            text, at = _class(pattern, at)
            tokens.append(text)
        else:
            literal, at = _class_char(pattern, at - 1, is_in_class=False)
            tokens.append(re.escape(literal))
    return tokens


def _class(pattern: str, at: int) -> tuple[str, int]:
    """`a-z]` as the class of a regular expression, and where it ends."""
    is_negated = pattern.startswith("^", at)
    at += is_negated
    ranges: list[str] = []
    is_empty = True
    while is_empty or not pattern.startswith("]", at):
        is_empty = False
        low, at = _class_char(pattern, at, is_in_class=True)
        high = low
        if pattern.startswith("-", at):
            high, at = _class_char(pattern, at + 1, is_in_class=True)
        if low <= high:  # Go takes an upside-down range and matches nothing with it
            ranges.append(f"{re.escape(low)}-{re.escape(high)}")
    if not ranges:
        return ("[^/]" if is_negated else "(?!)"), at + 1
    return f"(?!/)[{'^' * is_negated}{''.join(ranges)}]", at + 1


def _class_char(pattern: str, at: int, *, is_in_class: bool) -> tuple[str, int]:
    is_escaped = pattern.startswith("\\", at)
    at += is_escaped
    if at >= len(pattern) or (is_in_class and not is_escaped and pattern[at] in "-]"):
        raise BadPattern(f"syntax error in pattern: {pattern[:200]!r}")
    return pattern[at], at + 1


def _run(tokens: list[re.Pattern[str] | None], path: str) -> bool:
    """Bit i is set when the tokens before i have matched what was read."""
    states = _close(tokens, 1)
    for char in path:
        after = 0
        for index, token in enumerate(tokens):
            if not states >> index & 1:
                continue
            if token is None:
                after |= (char != "/") << index
            elif token.match(char):
                after |= 1 << (index + 1)
        states = _close(tokens, after)
        if not states:
            return False
    return bool(states >> len(tokens) & 1)


def _close(tokens: list[re.Pattern[str] | None], states: int) -> int:
    for index, token in enumerate(tokens):
        if token is None and states >> index & 1:
            states |= 1 << (index + 1)
    return states
