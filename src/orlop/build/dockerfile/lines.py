"""Lexer: bytes of a Dockerfile to logical lines with their heredocs.

A logical line is what one instruction says: continuation lines joined, comments between them
dropped, escape directive honoured. Heredoc bodies that follow it are attached.

Spec: Dockerfile reference, "Format", "Parser directives", "Here-Documents".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from orlop.build.dockerfile.errors import DockerfileError
from orlop.build.dockerfile.expansion import ExpansionError, Rules, expand_words

__all__ = ["Heredoc", "LogicalLine", "Source", "find_heredoc", "read_source"]

MAX_DOCKERFILE_BYTES = 16 << 20
MAX_LINE_BYTES = 65_535  # one physical line, as BuildKit's scanner
MAX_LOGICAL_CHARS = 1 << 20
MAX_INSTRUCTIONS = 4_000  # an image config cannot tell of more
MAX_HEREDOCS = 100

_DIRECTIVE = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*$")
_KNOWN_DIRECTIVES = ("syntax", "escape", "check")
_HEREDOC = re.compile(r"(\d*)<<(-?)\s*([^<]*)\Z")
_HEREDOC_INSTRUCTIONS = ("RUN", "COPY", "ADD")
_BLANKS = re.compile(r"[\t\v\f\r ]+")


@dataclass(frozen=True, slots=True)
class Heredoc:
    """One here-document: `name` ends it, `content` is its raw body."""

    name: str
    content: str
    is_expanded: bool
    strips_tabs: bool

    @property
    def text(self) -> str:
        """The body as the instruction sees it."""
        return re.sub(r"(?m)^\t+", "", self.content) if self.strips_tabs else self.content


@dataclass(frozen=True, slots=True)
class LogicalLine:
    """One instruction's text, its first and last line (from 1) and its heredocs."""

    text: str
    first: int
    last: int
    heredocs: tuple[Heredoc, ...] = ()


@dataclass(frozen=True, slots=True)
class Source:
    """A Dockerfile taken apart: physical lines for messages, logical lines for the parser."""

    lines: list[str]
    logical: list[LogicalLine]
    escape: str
    directives: dict[str, str]
    warnings: list[str] = field(default_factory=list)


def read_source(data: bytes) -> Source:
    """Take a Dockerfile apart.

    Raises:
        DockerfileError: limits, bad directives, an unterminated heredoc, no instructions,
            bytes that are not UTF-8 inside an instruction.
    """
    if len(data) > MAX_DOCKERFILE_BYTES:
        raise DockerfileError(f"the Dockerfile is larger than {MAX_DOCKERFILE_BYTES >> 20} MiB")
    lines = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape").split("\n")
    if lines and not lines[-1]:
        lines.pop()
    reader = _Reader(lines)
    try:
        logical = list(reader.read())
    except DockerfileError as error:
        raise error.with_source(lines) from None
    if not logical:
        raise DockerfileError("file with no instructions")
    return Source(lines, logical, reader.escape, reader.directives, reader.warnings)


def find_heredoc(word: str) -> tuple[str, bool, bool] | None:
    """Name, whether its body is expanded, whether tabs are stripped; None when it is no heredoc."""
    match = _HEREDOC.match(word)
    if match is None or not match[3]:
        return None
    try:
        words = expand_words(match[3], {}, Rules(keep_unset=True))
        raw = expand_words(match[3], {}, Rules(keep_unset=True, keep_quotes=True))
    except ExpansionError:
        return None
    if len(words) != 1 or len(raw) != 1:
        return None
    is_expanded = _count_quotes(words[0]) == _count_quotes(raw[0])
    return words[0], is_expanded, match[2] == "-"


def _count_quotes(text: str) -> int:
    return text.count("'") + text.count('"')


class _Reader:
    def __init__(self, lines: list[str]) -> None:
        self._lines = lines
        self._at = 0  # lines consumed so far
        self._count = 0
        self.escape = "\\"
        self.directives: dict[str, str] = {}
        self.warnings: list[str] = []

    def read(self) -> Iterator[LogicalLine]:
        self._read_directives()
        while self._at < len(self._lines):
            text = self._next_physical().lstrip()
            if text.startswith("#"):
                continue
            first = self._at
            text = self._join(text)
            if not text.strip():
                continue
            self._count += 1
            if self._count > MAX_INSTRUCTIONS:
                raise DockerfileError(f"more than {MAX_INSTRUCTIONS} instructions", first)
            heredocs = tuple(self._read_heredocs(text, first))
            _check_text(text, first)
            yield LogicalLine(text, first, self._at, heredocs)

    def _next_physical(self) -> str:
        line = self._lines[self._at]
        self._at += 1
        if len(line) > MAX_LINE_BYTES:
            raise DockerfileError(
                f"dockerfile line greater than max allowed size of {MAX_LINE_BYTES}", self._at
            )
        return line.rstrip("\r")

    def _read_directives(self) -> None:
        while self._at < len(self._lines):
            match = _DIRECTIVE.match(self._lines[self._at].strip())
            if match is None or match[1].lower() not in _KNOWN_DIRECTIVES:
                return
            name = match[1].lower()
            if name in self.directives:
                raise DockerfileError(f"only one {name} parser directive can be used", self._at + 1)
            self.directives[name] = match[2]
            if name == "escape":
                self._set_escape(match[2])
            self._at += 1

    def _set_escape(self, value: str) -> None:
        if value not in ("\\", "`"):
            raise DockerfileError(
                f"invalid escape token '{value[:20]}' does not match ` or \\", self._at + 1, mark=value
            )
        self.escape = value

    def _join(self, text: str) -> str:
        """Follow continuation lines; comments among them vanish, blank ones are warned of."""
        text, goes_on = self._cut_escape(text)
        parts = [text]
        size = len(text)
        is_blank_seen = False
        while goes_on and self._at < len(self._lines):
            line = self._next_physical()
            stripped = line.lstrip()
            if stripped.startswith("#"):
                continue
            if not stripped:
                is_blank_seen = True
                continue
            line, goes_on = self._cut_escape(line)
            parts.append(line)
            size += len(line)
            if size > MAX_LOGICAL_CHARS:
                raise DockerfileError(f"instruction longer than {MAX_LOGICAL_CHARS} characters", self._at)
        joined = "".join(parts)
        if is_blank_seen:
            self.warnings.append(f"Empty continuation line found in: {joined[:200]}")
        return joined

    def _cut_escape(self, line: str) -> tuple[str, bool]:
        """Without its continuation mark: the escape character at the end, not itself escaped."""
        bare = line.rstrip(" \t")
        if bare == self.escape:
            return "", True
        if bare.endswith(self.escape) and bare[-2] != self.escape:
            return bare[:-1], True
        return line, False

    def _read_heredocs(self, text: str, first: int) -> Iterator[Heredoc]:
        if "<<" not in text or not _may_have_heredoc(text):
            return
        rules = Rules(keep_quotes=True, keep_escapes=True, keep_unset=True)
        try:
            words = expand_words(text, {}, rules)
        except ExpansionError:
            return  # an apostrophe in a RUN line: the shell's business
        found = [heredoc for heredoc in map(find_heredoc, words) if heredoc]
        if len(found) > MAX_HEREDOCS:
            raise DockerfileError(f"more than {MAX_HEREDOCS} heredocs in one instruction", first)
        for name, is_expanded, strips_tabs in found:
            yield Heredoc(
                name, self._read_body(name, first, strips_tabs=strips_tabs), is_expanded, strips_tabs
            )

    def _read_body(self, name: str, first: int, *, strips_tabs: bool) -> str:
        body: list[str] = []
        while self._at < len(self._lines):
            line = self._lines[self._at]
            self._at += 1
            end = line.rstrip("\r\n")
            if (end.lstrip("\t") if strips_tabs else end) == name:
                text = "".join(body)
                _check_text(text, first)
                return text
            body.append(line + "\n")
        raise DockerfileError("unterminated heredoc", first, mark=name)


def _may_have_heredoc(text: str) -> bool:
    words = _BLANKS.split(text.strip(), 2)
    if words[0].upper() == "ONBUILD" and len(words) > 1:
        words = words[1:]
    if words[0].upper() not in _HEREDOC_INSTRUCTIONS:
        return False
    rest = _BLANKS.split(text.strip(), 1)
    return len(rest) < 2 or not _is_json_list(rest[1])


def _is_json_list(rest: str) -> bool:
    from orlop.build.dockerfile.words import json_list

    try:
        return json_list(rest) is not None
    except ValueError:
        return True


def _check_text(text: str, line: int) -> None:
    if "\0" in text:
        raise DockerfileError("the instruction contains a NUL byte", line)
    if any("\ud800" <= char <= "\udfff" for char in text) if not text.isascii() else False:
        raise DockerfileError("the instruction is not valid UTF-8", line)
