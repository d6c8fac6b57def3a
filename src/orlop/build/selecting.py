"""What a COPY source means in a tree: wildcards expanded, filters applied, order fixed.

Hashing and copying share this, so that a cache key covers exactly what is copied.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from orlop.base.errors import InvalidInput
from orlop.build.cachekey import Selection
from orlop.build.patterns import compile_match, has_wildcard
from orlop.build.trees import Node, Tree, join, resolve
from orlop.wire.ignorefile import IgnoreRules

__all__ = ["Filters", "expand", "select"]

MAX_MATCHES = 1_000_000


def expand(tree: Tree, selection: Selection) -> tuple[bytes, list[bytes]]:
    """The canonical path in front of the first wildcard, and what matches behind it.

    Without wildcards the one match is the path itself, links followed as the selection says;
    it need not exist.
    """
    if not selection.has_wildcard:
        path = resolve(tree, os.fsencode(selection.path), follows_last=selection.follows_links)
        return path, [path]
    parts = [part for part in selection.path.split("/") if part]
    first = next(index for index, part in enumerate(parts) if has_wildcard(part))
    prefix = resolve(tree, os.fsencode("/".join(parts[:first])))
    match = compile_match("/".join(parts[first:]))
    found: list[bytes] = []
    for path, relative in _candidates(tree, prefix, len(parts) - first):
        if match(os.fsdecode(relative)):
            found.append(path)
            if len(found) > MAX_MATCHES:
                raise InvalidInput(f"{selection.path[:200]!r} matches more than {MAX_MATCHES} files")
    return prefix, found


def _candidates(tree: Tree, prefix: bytes, depth: int) -> Iterator[tuple[bytes, bytes]]:
    """Everything at `depth` levels below the prefix: a pattern matches slash by slash."""
    node = tree.find(prefix)
    if node is None or not node.is_directory:
        return
    pending = [(join(prefix, name), name, 1) for name in reversed(tree.names(prefix))]
    while pending:
        path, relative, level = pending.pop()
        if level == depth:
            yield path, relative
            continue
        node = tree.find(path)
        if node is not None and node.is_directory:
            names = reversed(tree.names(path))
            pending += [(join(path, name), join(relative, name), level + 1) for name in names]


@dataclass(frozen=True, slots=True)
class Filters:
    """What of a selected tree is taken; None takes all, or leaves nothing out."""

    includes: IgnoreRules | None = None
    excludes: IgnoreRules | None = None

    @classmethod
    def of(cls, includes: tuple[str, ...], excludes: tuple[str, ...]) -> Filters:
        """From the patterns of an operation.

        Raises:
            InvalidPattern: bad syntax.
        """
        return cls(_rules(includes), _rules(excludes))

    def passes(self, path: str) -> bool:
        """True when the path, relative to what is copied, is taken."""
        if self.includes is not None and not self.includes.is_ignored(path):
            return False
        return self.excludes is None or not self.excludes.is_ignored(path)

    def may_pass_below(self, path: str) -> bool:
        """True when something below a directory that does not pass may."""
        if self.excludes is not None and self.excludes.is_ignored(path):
            return self.excludes.may_readmit_below(path)
        return self.includes is not None


def _rules(patterns: tuple[str, ...]) -> IgnoreRules | None:
    # a line break or a leading `#` means something to a file of rules, never in a flag's value
    lines = [("\\" if text.startswith("#") else "") + text for text in patterns if "\n" not in text]
    return IgnoreRules.parse("\n".join(lines)) if lines else None


def select(tree: Tree, top: bytes, filters: Filters) -> Iterator[tuple[bytes, Node]]:
    """`top` and what is below it and passes the filters, in preorder.

    Filters see paths relative to `top`; a `top` that is a file is seen by its name. A directory
    that does not pass comes along when something in it does.
    """
    node = tree.find(top)
    if node is None:
        return
    if not node.is_directory and not filters.passes(os.fsdecode(top.rpartition(b"/")[2])):
        return
    yield top, node
    if not node.is_directory:
        return
    waiting: list[tuple[bytes, Node]] = []  # directories that come along if something in them passes
    pending = [(join(top, name), name) for name in reversed(tree.names(top))]
    while pending:
        path, relative = pending.pop()
        node = tree.find(path)
        if node is None:
            continue
        while waiting and not path.startswith(waiting[-1][0] + b"/"):
            waiting.pop()
        shown = os.fsdecode(relative)
        passes = filters.passes(shown)
        if passes:
            yield from waiting
            waiting.clear()
            yield path, node
        if node.is_directory and (passes or filters.may_pass_below(shown)):
            if not passes:
                waiting.append((path, node))
            pending += [(join(path, name), join(relative, name)) for name in reversed(tree.names(path))]
