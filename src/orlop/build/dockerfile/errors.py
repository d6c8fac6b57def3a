"""Errors of a Dockerfile: one line of message, the quoted source with a caret, a suggestion."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from orlop.base.errors import InvalidInput

__all__ = ["DockerfileError", "did_you_mean", "excerpt"]

_CONTEXT_LINES = 2
_MAX_QUOTED = 200


class DockerfileError(InvalidInput):
    """The Dockerfile cannot be used.

    Args:
        message: without the position; the prefix is added here.
        line: first line of the instruction, from 1; 0 when no line is to blame.
        is_syntax: adds the prefix that clients know (`dockerfile parse error on line N: `).
    """

    code = "invalid-dockerfile"

    def __init__(
        self, message: str, line: int = 0, *, is_syntax: bool = True, hint: str | None = None, mark: str = ""
    ) -> None:
        # docker CLI and docker-py users know this prefix from every release since 18.09
        prefix = f"dockerfile parse error on line {line}: " if line and is_syntax else ""
        super().__init__(prefix + message, hint=hint, line=line)
        self.line = line
        self.mark = mark
        self.excerpt = ""

    def __str__(self) -> str:
        text = super().__str__()
        return f"{text}\n{self.excerpt}" if self.excerpt else text

    def with_source(self, lines: list[str]) -> DockerfileError:
        """Attach the quoted source; the first caller, who is nearest to the text, wins."""
        if self.line and not self.excerpt:
            self.excerpt = excerpt(lines, self.line, self.mark)
        return self


def excerpt(lines: list[str], line: int, mark: str = "") -> str:
    """The lines around `line`, numbered, with a caret under `mark` (or under the whole line)."""
    first = max(1, line - _CONTEXT_LINES)
    last = min(len(lines), line + _CONTEXT_LINES)
    width = len(str(last))
    shown: list[str] = []
    for number in range(first, last + 1):
        text = _printable(lines[number - 1].rstrip("\r\n"))
        marker = ">" if number == line else " "
        shown.append(f"{marker} {number:>{width}} | {text}")
        if number == line:
            shown.append(" " * (width + 5) + _caret(text, mark))
    return "\n".join(shown)


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """` (did you mean X?)` for a near miss, else nothing."""
    by_folded = {option.casefold(): option for option in options}
    matches = difflib.get_close_matches(word.casefold(), by_folded, n=1, cutoff=0.6)
    return f" (did you mean {by_folded[matches[0]]}?)" if matches else ""


def _caret(text: str, mark: str) -> str:
    at = text.find(mark) if mark else -1
    if at < 0:
        stripped = text.strip()
        return " " * (len(text) - len(text.lstrip())) + "^" * max(1, min(len(stripped), 80))
    return " " * at + "^" * min(len(mark), 80)


def _printable(text: str) -> str:
    clean = "".join(c if c.isprintable() or c == "\t" else "?" for c in text.replace("\t", "    "))
    return clean if len(clean) <= _MAX_QUOTED else clean[: _MAX_QUOTED - 3] + "..."
