"""Trees of files as builds see them: nodes by path, links resolved inside the tree only.

Paths are bytes without a leading slash; the root is empty. A *canonical* path has no link on
its way. Three trees exist: a sent context (index of its tar), a root file system (through the
rooted resolver) and a layer being written on top of one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from orlop.base.errors import InvalidInput
from orlop.wire.tar import EntryKind

__all__ = ["MAX_DEPTH", "Node", "Piece", "TooManyLinks", "Tree", "join", "resolve", "split", "walk"]

MAX_LINKS = 255
MAX_DEPTH = 1_000


class TooManyLinks(InvalidInput):
    """Symbolic links lead in circles."""

    code = "too-many-links"


@dataclass(slots=True)
class Node:
    """Metadata of a file. `identity` is equal for names of one file (hard links), else None.

    `place` is how the tree finds the data again: an offset in the context, a path in a root.
    """

    kind: EntryKind
    mode: int
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime_ns: int = 0
    link: bytes = b""
    major: int = 0
    minor: int = 0
    xattrs: Mapping[bytes, bytes] = field(default_factory=dict)
    identity: object = None
    place: object = None

    @property
    def is_directory(self) -> bool:
        """True for a directory."""
        return self.kind is EntryKind.DIRECTORY


class Tree(Protocol):
    """What copying and hashing need of a tree."""

    @property
    def has_root_header(self) -> bool:
        """False when the root's own metadata means nothing (a sent context)."""

    def find(self, path: bytes) -> Node | None:
        """The node at a canonical path; a link itself, never what it points to."""

    def names(self, path: bytes) -> list[bytes]:
        """Names in the directory at a canonical path, sorted."""

    def pieces(self, path: bytes, node: Node) -> Iterator[Piece]:
        """Where the bytes of a regular file are, in order; descriptors stay the tree's."""

    def xattrs(self, path: bytes, node: Node) -> Mapping[bytes, bytes]:
        """Extended attributes that a layer may carry."""


@dataclass(frozen=True, slots=True)
class Piece:
    """`size` bytes of a descriptor at `offset`; a negative descriptor means zeros."""

    fd: int
    offset: int
    size: int


def split(path: bytes) -> list[bytes]:
    """Components without empty ones and dots; `..` stays."""
    return [part for part in path.split(b"/") if part not in (b"", b".")]


def join(directory: bytes, name: bytes) -> bytes:
    """A child's path."""
    return directory + b"/" + name if directory else name


def resolve(tree: Tree, path: bytes, *, follows_last: bool = True) -> bytes:
    """The canonical path: links followed, `..` stopped at the root.

    What does not exist is taken as written, so the result may name nothing.

    Raises:
        TooManyLinks: more than `MAX_LINKS` links on the way.
    """
    pending = split(path)[::-1]
    done: list[bytes] = []
    links = 0
    while pending:
        part = pending.pop()
        if part == b"..":
            del done[-1:]
            continue
        done.append(part)
        if len(done) > MAX_DEPTH:
            raise TooManyLinks(f"path of more than {MAX_DEPTH} components")
        if not pending and not follows_last:
            break
        node = tree.find(b"/".join(done))
        if node is None or node.kind is not EntryKind.SYMLINK:
            continue
        links += 1
        if links > MAX_LINKS:
            raise TooManyLinks(f"too many levels of symbolic links: /{path.decode(errors='replace')[:200]}")
        done = [] if node.link.startswith(b"/") else done[:-1]
        pending += split(node.link)[::-1]
    return b"/".join(done)


def walk(tree: Tree, path: bytes) -> Iterator[tuple[bytes, Node]]:
    """The node at `path` and everything below, in preorder, names sorted."""
    pending = [path]
    while pending:
        here = pending.pop()
        node = tree.find(here)
        if node is None:
            continue
        yield here, node
        if node.is_directory:
            if here.count(b"/") > MAX_DEPTH:
                raise InvalidInput(f"directories nest deeper than {MAX_DEPTH}")
            pending += [join(here, name) for name in reversed(tree.names(here))]
