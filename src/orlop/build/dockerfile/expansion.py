"""Variable expansion as Dockerfiles know it: a small cousin of the shell's.

`$x ${x} ${x:-w} ${x-w} :+ + :? ? # ## % %% / //`, single and double quotes, an escape
character. A pattern knows `*`, `?` and the backslash. No command is ever run. Work is bounded:
output, nesting and pattern steps have limits, so doubling chains (`${A}${A}`) end early.

Spec: Dockerfile reference, "Environment replacement"; POSIX, "Parameter Expansion".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from orlop.base.errors import InvalidInput
from orlop.build.dockerfile import wildcard

__all__ = ["MAX_EXPANDED", "ExpansionError", "Rules", "expand_word", "expand_words"]

MAX_EXPANDED = 1 << 20  # characters that one word may become
_MAX_DEPTH = 32
_SPECIAL_PARAMETERS = frozenset("@*#?-$!0")
_END = ""


class ExpansionError(InvalidInput):
    """The word cannot be expanded; the message quotes the reason."""

    code = "invalid-expansion"


@dataclass(frozen=True, slots=True)
class Rules:
    """How text is read.

    `keep_quotes` leaves quotes in the result, `keep_escapes` leaves escape characters,
    `keep_unset` leaves unknown variables as written, `quotes_are_text` gives quotes no meaning.
    """

    escape: str = "\\"
    keep_quotes: bool = False
    keep_escapes: bool = False
    keep_unset: bool = False
    quotes_are_text: bool = False


def expand_word(text: str, env: Mapping[str, str], rules: Rules = Rules()) -> str:
    """The expanded text, quotes removed, never split.

    Raises:
        ExpansionError: bad syntax, a `${x:?}` that fired, or a limit.
    """
    return _run(text, env, rules)[0]


def expand_words(text: str, env: Mapping[str, str], rules: Rules = Rules()) -> list[str]:
    """The expanded text split at blanks that were not quoted.

    Raises:
        ExpansionError: as `expand_word`.
    """
    return _run(text, env, rules)[1]


def _run(text: str, env: Mapping[str, str], rules: Rules) -> tuple[str, list[str]]:
    if not any(c in text for c in "$<'\"") and rules.escape not in text:
        return text, text.split()
    scanner = _Scanner(text, env, rules)
    try:
        return scanner.until(_END, keep_escapes=rules.keep_escapes)
    except ExpansionError as error:
        shown = text if len(text) <= 200 else text[:200] + "..."
        raise ExpansionError(f'failed to process "{shown}": {error.message}') from None


class _Words:
    """Collects words: blanks split, unless they came from quotes or escapes."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self.done: list[str] = []

    def add(self, text: str) -> None:
        for char in text:
            if not char.isspace():
                self._parts.append(char)
            elif self._parts:
                self.finish()

    def add_raw(self, text: str) -> None:
        self._parts.append(text)

    def finish(self) -> list[str]:
        word = "".join(self._parts)
        if word:
            self.done.append(word)
        self._parts.clear()
        return self.done


class _Scanner:
    def __init__(self, text: str, env: Mapping[str, str], rules: Rules) -> None:
        self._text = text
        self._at = 0
        self._env = env
        self._rules = rules
        self._depth = 0
        self._produced = 0

    def _peek(self) -> str:
        return self._text[self._at] if self._at < len(self._text) else _END

    def _next(self) -> str:
        char = self._peek()
        self._at += len(char)
        return char

    def _spend(self, text: str) -> str:
        self._produced += len(text)
        if self._produced > MAX_EXPANDED:
            raise ExpansionError(f"expansion is longer than {MAX_EXPANDED} characters")
        return text

    def until(self, stop: str, *, keep_escapes: bool) -> tuple[str, list[str]]:
        """Read up to `stop` (consumed) or the end; both the text and its words."""
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise ExpansionError(f"substitutions nest deeper than {_MAX_DEPTH}")
        out: list[str] = []
        words = _Words()
        while (char := self._peek()) != _END:
            if char == stop:
                self._next()
                self._depth -= 1
                return "".join(out), words.finish()
            special = self._special(char)
            if special is not None:
                piece = special(keep_escapes)
                (words.add if char == "$" else words.add_raw)(piece)
                out.append(self._spend(piece))
                continue
            piece, is_raw = self._plain(keep_escapes)
            (words.add_raw if is_raw else words.add)(piece)
            out.append(self._spend(piece))
        if stop != _END:
            raise ExpansionError(f"unexpected end of statement while looking for matching {stop}")
        self._depth -= 1
        return "".join(out), words.finish()

    def _special(self, char: str) -> Callable[[bool], str] | None:
        match char:
            case "$":
                return self._dollar
            case "<":
                return self._heredoc_operator
            case "'" if not self._rules.quotes_are_text:
                return self._single_quoted
            case '"' if not self._rules.quotes_are_text:
                return self._double_quoted
        return None

    def _plain(self, keep_escapes: bool) -> tuple[str, bool]:
        char = self._next()
        if char != self._rules.escape:
            return char, False
        kept = char if keep_escapes else ""
        return kept + self._next(), True

    def _heredoc_operator(self, _keep_escapes: bool) -> str:
        """`<< EOF` is one word: blanks after the operator belong to it."""
        self._next()
        if self._peek() != "<":
            return "<"
        self._next()
        blanks = ""
        while self._peek() and self._peek() in "\t\r ":
            blanks += self._next()
        return "<<" + blanks

    def _single_quoted(self, _keep_escapes: bool) -> str:
        start = self._at
        end = self._text.find("'", start + 1)
        if end < 0:
            raise ExpansionError("unexpected end of statement while looking for matching single-quote")
        self._at = end + 1
        return self._text[start : end + 1] if self._rules.keep_quotes else self._text[start + 1 : end]

    def _double_quoted(self, keep_escapes: bool) -> str:
        quote = self._next()
        quote = quote if self._rules.keep_quotes else ""
        out = [quote]
        while True:
            char = self._peek()
            if char == _END:
                raise ExpansionError("unexpected end of statement while looking for matching double-quote")
            if char == '"':
                self._next()
                out.append(quote)
                return "".join(out)
            if char == "$":
                out.append(self._spend(self._dollar(keep_escapes)))
                continue
            out.append(self._quoted_char(keep_escapes))

    def _quoted_char(self, keep_escapes: bool) -> str:
        char = self._next()
        if char != self._rules.escape:
            return char
        following = self._peek()
        kept = char if keep_escapes else ""
        if following == _END:
            return kept
        if following in ('"', "$", self._rules.escape):
            return kept + self._next()
        return kept + char

    def _name(self) -> str:
        start = self._at
        first = self._peek()
        if first.isdigit():
            while self._peek().isdigit():
                self._at += 1
            return self._text[start : self._at]
        if first and first in _SPECIAL_PARAMETERS:
            return self._next()
        while (char := self._peek()) and (char.isalnum() or char == "_"):
            self._at += 1
        return self._text[start : self._at]

    def _dollar(self, _keep_escapes: bool) -> str:
        self._next()
        if self._peek() != "{":
            name = self._name()
            if not name:
                return "$"
            value = self._env.get(name)
            return (f"${name}" if self._rules.keep_unset else "") if value is None else value
        self._next()
        if self._peek() == _END:
            raise ExpansionError("syntax error: missing '}'")
        if self._peek() in "{}:":
            raise ExpansionError("syntax error: bad substitution")
        name = self._name()
        operator = self._next()
        if operator == "}":
            value = self._env.get(name)
            return (f"${{{name}}}" if self._rules.keep_unset else "") if value is None else value
        if operator == _END:
            raise ExpansionError("syntax error: missing '}'")
        if operator == "/":
            return self._replace(name)
        null_is_unset = operator == ":"
        if null_is_unset:
            operator = self._next()
        return self._modify(name, operator, null_is_unset=null_is_unset)

    def _operand(self, stop: str, *, keep_escapes: bool) -> str:
        try:
            return self.until(stop, keep_escapes=keep_escapes)[0]
        except ExpansionError:
            if self._peek() == _END and self._depth <= _MAX_DEPTH and self._produced <= MAX_EXPANDED:
                raise ExpansionError(f"syntax error: missing '{stop}'") from None
            raise

    def _modify(self, name: str, operator: str, *, null_is_unset: bool) -> str:
        shown = (":" if null_is_unset else "") + operator
        is_pattern = operator in ("#", "%")
        if operator not in ("+", "-", "?", "#", "%") or (null_is_unset and is_pattern):
            raise ExpansionError(f"unsupported modifier ({shown}) in substitution")
        operand = self._operand("}", keep_escapes=is_pattern)
        value = self._env.get(name)
        if value is None and self._rules.keep_unset:
            return f"${{{name}{shown}{operand}}}"
        is_missing = value is None or (null_is_unset and value == "")
        match operator:
            case "-":
                return operand if is_missing else value or ""
            case "+":
                return "" if is_missing else operand
            case "?":
                if is_missing:
                    state = "unset" if value is None else "empty"
                    raise ExpansionError(f"{name}: {operand or f'is not allowed to be {state}'}")
                return value or ""
            case _:
                return _trim(value or "", operand, operator)

    def _replace(self, name: str) -> str:
        is_global = self._peek() == "/"
        if is_global:
            self._next()
        pattern = self._operand("/", keep_escapes=True)
        replacement = self._operand("}", keep_escapes=True)
        value = self._env.get(name)
        if value is None:
            return f"${{{name}/{pattern}/{replacement}}}" if self._rules.keep_unset else ""
        with _pattern_errors(pattern):
            return wildcard.replace(value, pattern, replacement, is_global=is_global, limit=MAX_EXPANDED)


def _trim(value: str, operand: str, operator: str) -> str:
    is_longest = operand.startswith(operator)
    pattern = operand[1:] if is_longest else operand
    with _pattern_errors(pattern):
        if operator == "#":
            return wildcard.trim_prefix(value, pattern, is_longest=is_longest)
        return wildcard.trim_suffix(value, pattern, is_longest=is_longest)


class _pattern_errors:  # noqa: N801 - reads as a function
    def __init__(self, pattern: str) -> None:
        self._pattern = pattern

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, wildcard.BadPattern):
            raise ExpansionError(
                f"invalid pattern ({self._pattern}) in substitution: {error.message}"
            ) from None
