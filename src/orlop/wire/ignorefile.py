r"""The rules of .dockerignore, for whoever sends a context and whoever receives one.

A line is a pattern; `#` in column 0 starts a comment; blanks around, a leading `/` and a trailing one
mean nothing; `!` re-includes. The last pattern that matches a path or one of its parent directories
decides. `*` and `?` stop at slashes, `**` does not and `**/` may be nothing, `[a-z]` is a class,
`\` escapes.

Matching takes time linear in path times pattern, whatever the pattern: patterns with few stars are
regular expressions, others run on a bit-parallel automaton. The answer for a directory is remembered
as the set of patterns that matched it or its parents, so a path costs one match per pattern.

Source: Docker Build reference, ".dockerignore files"; Go path/filepath, Match.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from typing import Final, Self

from orlop.base.errors import InvalidInput

__all__ = ["IgnoreRules", "InvalidPattern"]

MAX_PATTERNS: Final = 10_000
MAX_PATTERN_LENGTH: Final = 4096
_FEW_STARS = 2

Matcher = Callable[[str], bool]
Token = tuple[
    str, str
]  # kind: char, any, star, globstar, dirs, class; text: the regular expression of one character


class InvalidPattern(InvalidInput):
    """A line is not a pattern."""

    code = "invalid-ignore-pattern"


class IgnoreRules:
    """Compiled rules; paths are relative, with slashes, without a leading one."""

    def __init__(self, patterns: list[tuple[Matcher, bool]]) -> None:
        self._patterns = patterns
        self._masks: dict[str, int] = {"": 0}
        self.has_exceptions = any(is_exception for _, is_exception in patterns)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the text of an ignore file.

        Raises:
            InvalidPattern: a malformed pattern, or more than the limits allow.
        """
        patterns: list[tuple[Matcher, bool]] = []
        for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
            if line.startswith("#") or not line.strip():
                continue
            word = line.strip()
            is_exception = word.startswith("!")
            pattern = _clean(word[1:].strip() if is_exception else word)
            if not pattern:
                raise InvalidPattern(
                    f'illegal exclusion pattern: "{word}" in line {number} of the ignore file'
                )
            if pattern == ".":
                continue
            if len(patterns) == MAX_PATTERNS or len(pattern) > MAX_PATTERN_LENGTH:
                raise InvalidPattern(f"line {number} of the ignore file is beyond the limits")
            patterns.append((_compile(pattern, number), is_exception))
        return cls(patterns)

    def is_ignored(self, path: str) -> bool:
        """True when the path is left out of the context."""
        mask = self._mask(path)
        return bool(mask) and not self._patterns[mask.bit_length() - 1][1]

    def _mask(self, path: str) -> int:
        """The patterns that match the path or a parent, a bit each."""
        known = self._masks.get(path)
        if known is not None:
            return known
        parent = path.rpartition("/")[0]
        mask = self._mask(parent) if parent not in self._masks else self._masks[parent]
        for index, (matches, _) in enumerate(self._patterns):
            if not mask >> index & 1 and matches(path):
                mask |= 1 << index
        self._masks[path] = mask
        return mask

    def may_readmit_below(self, directory: str) -> bool:
        """True when something below an ignored directory may be included again."""
        return self.has_exceptions and bool(self._mask(directory))


def _clean(pattern: str) -> str:
    if not pattern:
        return ""
    return posixpath.normpath(pattern).lstrip("/") or "."


def _compile(pattern: str, line: int) -> Matcher:
    tokens = _tokens(pattern, line)
    stars = sum(1 for kind, _ in tokens if kind in {"star", "globstar", "dirs"})
    if not stars and all(kind == "char" for kind, _ in tokens):
        plain = "".join(re.sub(r"\\(.)", r"\1", text) for _, text in tokens)
        return plain.__eq__
    if stars <= _FEW_STARS:
        expression = "".join(_EXPRESSIONS.get(kind, text) for kind, text in tokens)
        compiled = re.compile(expression, re.DOTALL)
        return lambda path: compiled.fullmatch(path) is not None
    return _Automaton(tokens).matches


_EXPRESSIONS = {"star": "[^/]*", "globstar": ".*", "dirs": "(?:.*/)?"}


def _tokens(pattern: str, line: int) -> list[Token]:
    tokens: list[Token] = []
    at = 0
    while at < len(pattern):
        letter = pattern[at]
        if letter == "*":
            end = at
            while end < len(pattern) and pattern[end] == "*":
                end += 1
            is_dirs = end - at > 1 and pattern[end : end + 1] == "/"
            kind = "dirs" if is_dirs else ("globstar" if end - at > 1 else "star")
            if not (tokens and tokens[-1][0] == kind):
                tokens.append((kind, ""))
            at = end + is_dirs
        elif letter == "[":
            text, at = _class(pattern, at, line)
            tokens.append(("class", text))
        else:
            if letter == "\\":
                at += 1
                if at == len(pattern):
                    raise InvalidPattern(
                        f'syntax error in pattern "{pattern}" in line {line} of the ignore file'
                    )
            tokens.append(("any", "[^/]") if letter == "?" else ("char", re.escape(pattern[at])))
            at += 1
    return tokens


def _class(pattern: str, start: int, line: int) -> tuple[str, int]:
    """`[a-c^]` as a regular expression, and the index behind it."""
    at = start + 1
    is_negated = pattern[at : at + 1] == "^"
    at += is_negated
    items: list[str] = []
    while at < len(pattern) and (pattern[at] != "]" or not items):
        at += pattern[at] == "\\"
        low = pattern[at : at + 1]
        at += 1
        high = low
        if pattern[at : at + 1] == "-" and pattern[at + 1 : at + 2] not in {"", "]"}:
            at += 1
            at += pattern[at] == "\\"
            high = pattern[at : at + 1]
            at += 1
        if not low or not high or high < low:
            break
        items.append(re.escape(low) if low == high else f"{re.escape(low)}-{re.escape(high)}")
    if not items or pattern[at : at + 1] != "]":
        raise InvalidPattern(f'syntax error in pattern "{pattern}" in line {line} of the ignore file')
    return f"(?!/)[{'^' if is_negated else ''}{''.join(items)}]", at + 1


class _Automaton:
    """A pattern as a set of states in one integer: linear time, no backtracking.

    State i means that tokens before i are matched. Stars loop on their state; `dirs` loops on every
    character and lets go only at its start or behind a slash.
    """

    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self._final = 1 << len(tokens)
        self._steps: dict[str, tuple[int, int]] = {}
        self._skips = [kind in {"star", "globstar", "dirs"} for kind, _ in tokens]
        self._dirs = sum(1 << i for i, (kind, _) in enumerate(tokens) if kind == "dirs")

    def _close(self, states: int, *, entered: int, behind_slash: bool) -> int:
        """Add the states behind stars that match nothing; a `dirs` in progress must stand behind a slash."""
        for index, is_skipped in enumerate(self._skips):
            bit = 1 << index
            if states & bit and is_skipped:
                is_free = not self._dirs & bit or behind_slash or entered & bit
                if is_free:
                    entered |= (bit << 1) & ~states
                    states |= bit << 1
        return states

    def _step(self, letter: str) -> tuple[int, int]:
        """Masks of the states that a character moves on, and of those it keeps."""
        move = keep = 0
        for index, (kind, text) in enumerate(self._tokens):
            if kind == "star":
                keep |= (letter != "/") << index
            elif kind in {"globstar", "dirs"}:
                keep |= 1 << index
            elif re.fullmatch(text, letter, re.DOTALL):
                move |= 1 << index
        self._steps[letter] = (move, keep)
        return move, keep

    def matches(self, path: str) -> bool:
        """True when the whole path is matched."""
        states = self._close(1, entered=1, behind_slash=False)
        for letter in path:
            move, keep = self._steps.get(letter) or self._step(letter)
            moved = (states & move) << 1
            states = self._close(moved | (states & keep), entered=moved, behind_slash=letter == "/")
            if not states:
                return False
        return bool(states & self._final)
