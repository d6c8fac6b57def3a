"""Shell wildcards of `${x#pattern}` and friends, matched without backtracking.

A pattern is a row of tokens; the set of tokens reached so far is one integer's bits, moved
once per character. Time is linear in the value whatever the pattern says.
"""

from __future__ import annotations

from orlop.base.errors import InvalidInput

__all__ = ["BadPattern", "replace", "trim_prefix", "trim_suffix"]

_MAX_STEPS = 4_000_000


class BadPattern(InvalidInput):
    """The pattern has an invalid escape, or matching it is too much work."""

    code = "invalid-substitution-pattern"


class _Star:
    pass


class _Any:
    pass


_STAR = _Star()
_ANY = _Any()
_Token = str | _Star | _Any


def _parse(pattern: str) -> list[_Token]:
    tokens: list[_Token] = []
    position = 0
    while position < len(pattern):
        char = pattern[position]
        position += 1
        if char == "*":
            if not tokens or tokens[-1] is not _STAR:
                tokens.append(_STAR)
        elif char == "?":
            tokens.append(_ANY)
        elif char == "\\":
            following = pattern[position : position + 1]
            position += 1
            if following not in ("}", "/", "*", "?", "\\"):
                raise BadPattern(f"invalid escape '\\{following}'")
            tokens.append(following)
        else:
            tokens.append(char)
    return tokens


class _Fuel:
    def __init__(self) -> None:
        self._left = _MAX_STEPS

    def burn(self, steps: int) -> None:
        self._left -= steps
        if self._left < 0:
            raise BadPattern("matching takes too many steps")


def _close(tokens: list[_Token], states: int) -> int:
    """A star may match nothing: whoever stands before it also stands behind it."""
    for index, token in enumerate(tokens):
        if token is _STAR and states >> index & 1:
            states |= 1 << (index + 1)
    return states


def _step(tokens: list[_Token], states: int, char: str) -> int:
    after = 0
    for index, token in enumerate(tokens):
        if not states >> index & 1:
            continue
        if token is _STAR:
            if char != "\n":
                after |= 1 << index
        elif (token is _ANY and char != "\n") or token == char:
            after |= 1 << (index + 1)
    return _close(tokens, after)


def _ends(tokens: list[_Token], value: str, start: int, fuel: _Fuel, *, is_longest: bool) -> int:
    """Where a match that begins at `start` ends, shortest or longest; -1 for none."""
    states = _close(tokens, 1)
    final = 1 << len(tokens)
    found = start if states & final else -1
    if found >= 0 and not is_longest:
        return found
    for position in range(start, len(value)):
        fuel.burn(len(tokens) + 1)
        states = _step(tokens, states, value[position])
        if not states:
            break
        if states & final:
            found = position + 1
            if not is_longest:
                break
    return found


def trim_prefix(value: str, pattern: str, *, is_longest: bool) -> str:
    """`${value#pattern}` and `${value##pattern}`."""
    end = _ends(_parse(pattern), value, 0, _Fuel(), is_longest=is_longest)
    return value[end:] if end >= 0 else value


def trim_suffix(value: str, pattern: str, *, is_longest: bool) -> str:
    """`${value%pattern}` and `${value%%pattern}`."""
    end = _ends(_parse(pattern)[::-1], value[::-1], 0, _Fuel(), is_longest=is_longest)
    return value[: len(value) - end] if end >= 0 else value


def replace(value: str, pattern: str, replacement: str, *, is_global: bool, limit: int) -> str:
    """`${value/pattern/replacement}` and, for all matches, `${value//pattern/replacement}`."""
    tokens = _parse(pattern)
    fuel = _Fuel()
    out: list[str] = []
    size = at = 0
    last_end = -1
    while at <= len(value):
        end = _ends(tokens, value, at, fuel, is_longest=True)
        if end < 0 or end == at == last_end:  # an empty match right behind another does not count
            piece = value[at : at + 1]
            at += 1
        elif not is_global:
            return "".join([*out, replacement, value[end:]])
        else:
            piece = replacement + (value[at : at + 1] if end == at else "")
            last_end = end
            at = end + 1 if end == at else end
        out.append(piece)
        size += len(piece)
        if size > limit:
            raise BadPattern(f"the result is longer than {limit} characters")
    return "".join(out)
