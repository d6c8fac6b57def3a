"""Lowering of COPY and ADD: a FileOp with one copy per source."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from orlop.build import graph as g
from orlop.build.dockerfile import instructions as ins
from orlop.build.dockerfile.errors import DockerfileError
from orlop.build.dockerfile.lines import Heredoc
from orlop.build.dockerfile.paths import absolute
from orlop.build.dockerfile.scope import Scope

__all__ = ["CONTEXT", "LoweredCopy", "lower_copy", "parse_owner"]

CONTEXT = g.SourceOp("local://context")
_URL = re.compile(r"https?://", re.IGNORECASE)
_GIT = re.compile(r"(?:git://|git@|ssh://)|.*\.git(?:#.*|\?.*)?\Z", re.IGNORECASE)
_SYMBOLIC_MODE = re.compile(
    r"[ugoa]*(?:[+=-](?:[rwxXst]*|[ugo]))+(?:,[ugoa]*(?:[+=-](?:[rwxXst]*|[ugo]))+)*\Z"
)
_MAX_ID = (1 << 31) - 1


@dataclass(frozen=True, slots=True)
class LoweredCopy:
    """The operation, its inputs, and what the history says."""

    operation: g.FileOp
    inputs: tuple[g.Edge, ...]
    said: str


def lower_copy(
    copy: ins.Copy | ins.Add,
    scope: Scope,
    directory: str,
    *,
    base: g.Edge | None,
    origin: g.Edge | None,
    vertices: dict[g.VertexId, g.Vertex],
) -> LoweredCopy:
    """Lower COPY or ADD on top of `base`.

    Args:
        copy: the instruction.
        scope: variables for the paths.
        directory: the working directory, for a relative destination.
        base: the state written to; None is empty.
        origin: the state of `--from`; None is an empty one.
        vertices: where new vertices go.

    Raises:
        DockerfileError: bad chown or chmod, or a source that COPY cannot take.
    """
    return _Copying(copy, scope, directory, base, origin, vertices).lower()


def parse_owner(text: str, base: int) -> g.Owner:
    """`user[:group]`, each a name or a number; names are looked up in input `base`."""
    user, colon, group = text.partition(":")
    return g.Owner(
        _principal(user, base) if user else None, _principal(group, base) if colon and group else None
    )


def _principal(text: str, base: int) -> g.Principal:
    if text == "root":
        return g.Principal(id=0)
    if text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) <= _MAX_ID:
        return g.Principal(id=int(text))
    return g.Principal(name=text, base=base)


class _Copying:
    def __init__(
        self,
        copy: ins.Copy | ins.Add,
        scope: Scope,
        directory: str,
        base: g.Edge | None,
        origin: g.Edge | None,
        vertices: dict[g.VertexId, g.Vertex],
    ) -> None:
        self._copy = copy
        self._scope = scope
        self._origin = origin
        self._vertices = vertices
        self._is_add = isinstance(copy, ins.Add)
        self._inputs: list[g.Edge] = [] if base is None else [base]
        self._base = g.SCRATCH if base is None else 0
        self._destination = absolute(
            directory, scope.expand(copy.sources.destination, copy), keeps_slash=True
        )
        owner = scope.expand(copy.owner, copy)
        self._owner = self._parse_chown(owner)
        mode = scope.expand(copy.mode, copy)
        self._mode, self._mode_text = self._parse_chmod(mode)
        flags = [f"--chown={owner}"] if owner else []
        flags += [f"--chmod={mode}"] if mode else []
        self._said = ["ADD" if self._is_add else "COPY", *flags]
        self._copies: list[tuple[int, g.CopyAction]] = []

    def lower(self) -> LoweredCopy:
        if isinstance(self._copy, ins.Add) and self._copy.checksum and not self._has_lone_url():
            raise self._error("checksum requires HTTP(S) or Git sources", "--checksum")
        for written in self._copy.sources.paths:
            source = self._scope.expand(written, self._copy)
            self._said.append(source)
            self._add_source(source)
        for heredoc in self._copy.sources.files:
            self._said.append(f"<<{heredoc.name}")
            self._add_heredoc(heredoc)
        self._said.append(self._scope.expand(self._copy.sources.destination, self._copy))
        return LoweredCopy(self._operation(), tuple(self._inputs), " ".join(self._said))

    def _operation(self) -> g.FileOp:
        """A chain of copies: each works on what the one before has made."""
        actions: list[g.FileAction] = []
        last = len(self._copies) - 1
        for number, (secondary, action) in enumerate(self._copies):
            before = self._base if number == 0 else len(self._inputs) + number - 1
            actions.append(g.FileAction(action, before, secondary, 0 if number == last else -1))
        return g.FileOp(tuple(actions))

    def _add_source(self, source: str) -> None:
        if _URL.match(source) or (self._is_add and _GIT.match(source)):
            self._add_remote(source)
            return
        unpacks = self._is_add
        if isinstance(self._copy, ins.Add) and self._copy.unpack is not None:
            unpacks = self._copy.unpack
        action = g.CopyAction(
            source=absolute("/", source),
            destination=self._destination,
            owner=self._owner,
            mode=self._mode,
            mode_text=self._mode_text,
            follows_links=True,
            copies_contents=True,
            unpacks=unpacks,
            creates_path=True,
            has_wildcard=True,
            may_match_nothing=True,
            excludes=self._copy.excludes,
        )
        self._copies.append((self._input(self._source_edge()), action))

    def _source_edge(self) -> g.Edge | None:
        if isinstance(self._copy, ins.Copy) and self._copy.origin:
            return self._origin
        return g.add_vertex(self._vertices, CONTEXT, (), name="load build context")

    def _add_remote(self, source: str) -> None:
        if not self._is_add:
            raise self._error("source can't be a URL for COPY", source)
        name = posixpath.basename(urlsplit(source).path) or "__unnamed__"
        edge = g.add_vertex(
            self._vertices, g.SourceOp(source), (), name=f"ADD {source}", line=self._copy.line
        )
        action = g.CopyAction(
            f"/{name}",
            self._destination,
            owner=self._owner,
            mode=self._mode,
            mode_text=self._mode_text,
            creates_path=True,
        )
        self._copies.append((self._input(edge), action))

    def _add_heredoc(self, heredoc: Heredoc) -> None:
        text = heredoc.text
        if heredoc.is_expanded:
            text = self._scope.expand_body(text, self._copy)
        if "/" in heredoc.name or heredoc.name in (".", ".."):
            raise self._error(f"a heredoc cannot be named {heredoc.name!r}", heredoc.name)
        path = f"/{heredoc.name}"
        make = g.MkfileAction(path, 0o644, text.encode())
        operation = g.FileOp((g.FileAction(make, g.SCRATCH, output=0),))
        edge = g.add_vertex(
            self._vertices, operation, (), name="preparing inline document", line=self._copy.line
        )
        action = g.CopyAction(
            path,
            self._destination,
            owner=self._owner,
            mode=self._mode,
            mode_text=self._mode_text,
            creates_path=True,
            excludes=self._copy.excludes,
        )
        self._copies.append((self._input(edge), action))

    def _input(self, edge: g.Edge | None) -> int:
        if edge is None:
            return g.SCRATCH
        if edge not in self._inputs:
            self._inputs.append(edge)
        return self._inputs.index(edge)

    def _has_lone_url(self) -> bool:
        paths = self._copy.sources.paths
        return len(paths) == 1 and bool(_URL.match(paths[0]) or _GIT.match(paths[0]))

    def _parse_chown(self, text: str) -> g.Owner | None:
        if not text:
            return None
        if text.count(":") > 1 or text == ":":
            raise self._error(f"invalid chown string: {text}", text)
        return parse_owner(text, self._base)

    def _parse_chmod(self, text: str) -> tuple[int, str]:
        if not text:
            return -1, ""
        if re.fullmatch(r"[0-7]{1,8}", text) and int(text, 8) <= 0o7777:
            return int(text, 8), ""
        if _SYMBOLIC_MODE.match(text):
            return -1, text
        raise self._error(
            f"invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777", text
        )

    def _error(self, message: str, token: str) -> DockerfileError:
        return DockerfileError(message, self._copy.line, is_syntax=False, mark=token)
