"""What layers do to one another: added, changed and removed files, and bytes that nobody sees any more. Pure.

A layer is a sequence of (path, node), parents first, as its index lists it. Stacking layers gives a *tree*;
on the way every layer gets a *report*. Bytes of a file count where its content lies: a file that a later
layer overwrites, deletes or only touches (a chmod) is *hidden* there, and still stored and sent with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

__all__ = ["DIRECTORY", "FILE", "WHITEOUT", "Change", "Node", "Report", "Tree", "compare"]

FILE, DIRECTORY, SYMLINK, WHITEOUT = "file", "directory", "symlink", "whiteout"


@dataclass(frozen=True, slots=True)
class Node:
    """One name of a layer. `place` says where the bytes of a file lie: equal places, equal bytes."""

    kind: str
    size: int = 0  # of a file's content; 0 for its further hard links
    mode: int = 0
    uid: int = 0
    gid: int = 0
    target: bytes = b""  # of a symbolic link
    device: tuple[int, int] = (0, 0)
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    is_opaque: bool = False
    place: tuple[int, int] = (-1, -1)  # layer, offset
    length: int = 0  # of the content, also for further hard links
    layer: int = 0


@dataclass(frozen=True, slots=True)
class Change:
    """What happened to a path: `A`, `C` or `D`, and the bytes of the file that came or went."""

    kind: str
    path: bytes
    size: int


@dataclass(slots=True)
class Report:
    """What one layer does."""

    added: int = 0
    changed: int = 0
    removed: int = 0
    size_bytes: int = 0
    hidden_bytes: int = 0  # of this layer's own files, by layers above it
    changes: list[Change] = field(default_factory=list)

    def note(self, change: Change) -> None:
        """Count a change and keep it."""
        match change.kind:
            case "A":
                self.added += 1
            case "C":
                self.changed += 1
            case _:
                self.removed += 1
        self.changes.append(change)


class Tree:
    """The merged tree of a stack of layers, and what each of them did."""

    def __init__(self) -> None:
        self.nodes: dict[bytes, Node] = {}
        self.reports: list[Report] = []
        self._children: dict[bytes, set[bytes]] = {}
        self._links: Counter[tuple[int, tuple[int, int]]] = Counter()  # names that show a content
        self.hidden: list[tuple[bytes, Node, int]] = []  # path, what was hidden, by which layer

    def add_layer(self, entries: Iterable[tuple[bytes, Node]]) -> Report:
        """Put a layer on top; `entries` without the root, parents first."""
        report = Report()
        number = len(self.reports)
        self.reports.append(report)
        for path, node in entries:
            if node.kind == WHITEOUT:
                if path in self.nodes:
                    report.note(Change("D", path, self._remove(path, number)))
                continue
            if node.is_opaque:
                for child in sorted(self._children.get(path, ())):
                    report.note(Change("D", child, self._remove(child, number)))
            self._put(path, node, report, number)
        return report

    def hide_all(self) -> None:
        """The next layer hides everything below it."""
        number = len(self.reports)
        for path in [path for path in self.nodes if b"/" not in path]:
            self._remove(path, number)

    def _put(self, path: bytes, node: Node, report: Report, number: int) -> None:
        report.size_bytes += node.size
        old = self.nodes.get(path)
        if old is None:
            report.note(Change("A", path, node.size))
        elif old.kind == node.kind == DIRECTORY:
            if _words(old) != _words(node):
                report.note(Change("C", path, 0))
        else:
            self._remove(path, number)
            report.note(Change("C", path, node.size))
        self.nodes[path] = node
        if node.kind == FILE:
            self._links[node.layer, node.place] += 1
        self._children.setdefault(path.rpartition(b"/")[0], set()).add(path)

    def _remove(self, path: bytes, by: int) -> int:
        """Take a name and all below it away; the bytes of the files."""
        pending, size = [path], 0
        while pending:
            name = pending.pop()
            node = self.nodes.pop(name, None)
            if node is not None and node.kind == FILE:
                self._links[node.layer, node.place] -= 1
                if not self._links[node.layer, node.place]:  # no hard link shows it any more
                    size += node.length
                    self.reports[node.layer].hidden_bytes += node.length
                    self.hidden.append((name, node, by))
            pending += self._children.pop(name, ())
        self._children.get(path.rpartition(b"/")[0], set()).discard(path)
        return size


def compare(old: Tree, new: Tree, has_same_bytes: Callable[[Node, Node], bool]) -> Iterator[Change]:
    """What differs between two trees, sorted by path; times do not count.

    Args:
        old: the tree that is compared with.
        new: the tree that is looked at.
        has_same_bytes: asked for files of one length at different places.
    """
    for path in sorted(old.nodes.keys() | new.nodes.keys()):
        before, after = old.nodes.get(path), new.nodes.get(path)
        if before is None:
            assert after is not None
            yield Change("A", path, after.length)
        elif after is None:
            yield Change("D", path, before.length)
        elif _words(before) != _words(after) or not _is_same_content(before, after, has_same_bytes):
            yield Change("C", path, after.length - before.length)


def _is_same_content(before: Node, after: Node, has_same_bytes: Callable[[Node, Node], bool]) -> bool:
    if before.kind != FILE or before.place == after.place:
        return True
    return has_same_bytes(before, after)


def _words(node: Node) -> tuple[object, ...]:
    length = node.length if node.kind == FILE else 0
    return node.kind, length, node.mode, node.uid, node.gid, node.target, node.device, node.xattrs
