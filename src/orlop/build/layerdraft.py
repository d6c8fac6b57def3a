"""A layer being made: new files over a tree that stays as it is.

The draft is a tree itself, so later actions see what earlier ones made. Written out, it is a
tar whose bytes depend on nothing but its content: sorted, whole seconds, headers of all parent
directories once, with the metadata they have below.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from orlop.base.errors import InvalidInput
from orlop.build.trees import Node, Piece, Tree, join
from orlop.wire.tar import EntryKind

__all__ = ["Entry", "LayerDraft", "SubTree", "empty_tree"]

MAX_ENTRIES = 4_000_000
_WHITEOUT = b".wh."
OPAQUE_NAME = b".wh..wh..opq"


@dataclass(frozen=True, slots=True)
class Entry:
    """A new file: metadata, and the tree and path its bytes and attributes come from."""

    node: Node
    tree: Tree | None = None
    origin: bytes = b""
    data: bytes | None = None


class LayerDraft:
    """New entries over `base`."""

    def __init__(self, base: Tree) -> None:
        self._base = base
        self._new: dict[bytes, Entry] = {}
        self._children: dict[bytes, set[bytes]] = {}
        self._gone: set[bytes] = set()  # paths of the base that are hidden, with what is below them

    @property
    def has_root_header(self) -> bool:
        """See `Tree.has_root_header`."""
        return self._base.has_root_header

    @property
    def is_empty(self) -> bool:
        """True when nothing was changed."""
        return not self._new and not self._gone

    def find(self, path: bytes) -> Node | None:
        """See `Tree.find`."""
        entry = self._new.get(path)
        if entry is not None:
            return entry.node
        return None if self._is_hidden(path) else self._base.find(path)

    def names(self, path: bytes) -> list[bytes]:
        """See `Tree.names`."""
        found = set(self._children.get(path, ()))
        if not self._is_hidden(path):
            below = self._base.find(path)
            if below is not None and below.is_directory:
                names = self._base.names(path)
                found.update(name for name in names if join(path, name) not in self._gone)
        return sorted(found)

    def pieces(self, path: bytes, node: Node) -> Iterator[Piece]:
        """See `Tree.pieces`; not for entries made of bytes in memory."""
        entry = self._new.get(path)
        if entry is None:
            return self._base.pieces(path, node)
        assert entry.tree is not None, "data in memory has no pieces"
        return entry.tree.pieces(entry.origin, node)

    def xattrs(self, path: bytes, node: Node) -> Mapping[bytes, bytes]:
        """See `Tree.xattrs`."""
        entry = self._new.get(path)
        if entry is None:
            return self._base.xattrs(path, node)
        return entry.tree.xattrs(entry.origin, node) if entry.tree else {}

    def entry(self, path: bytes) -> Entry:
        """What is at `path`, as something that can be put elsewhere."""
        if path in self._new:
            return self._new[path]
        node = self._base.find(path)
        assert node is not None
        return Entry(node, self._base, path)

    def is_new(self, path: bytes) -> bool:
        """True when this layer has an entry of its own there."""
        return path in self._new

    def put(self, path: bytes, entry: Entry) -> None:
        """Add or replace an entry. Its parent must be a directory.

        Raises:
            InvalidInput: a name that layers reserve, or too many entries.
        """
        name = path.rpartition(b"/")[2]
        if name.startswith(_WHITEOUT):
            raise InvalidInput(
                f"cannot write {_show(path)}: names that begin with .wh. mean a deletion in a layer"
            )
        if len(self._new) >= MAX_ENTRIES:
            raise InvalidInput(f"layer with more than {MAX_ENTRIES} entries")
        self._new[path] = entry
        if path:
            self._children.setdefault(path.rpartition(b"/")[0], set()).add(name)

    def remove(self, path: bytes) -> None:
        """Remove what is at `path`, with everything below."""
        pending = [path]
        while pending:
            here = pending.pop()
            pending += [join(here, name) for name in self._children.pop(here, ())]
            self._new.pop(here, None)
        directory, _, name = path.rpartition(b"/")
        self._children.get(directory, set()).discard(name)
        if not self._is_hidden(path) and self._base.find(path) is not None:
            self._gone.add(path)

    def entries(self) -> Iterator[tuple[bytes, Entry]]:
        """Everything the layer's tar has to say, parents first, sorted."""
        told: set[bytes] = set()
        listed = sorted({*self._new, *self._whiteouts()}, key=lambda path: path.replace(b"/", b"\0"))
        for path in listed:
            yield from self._parents(path, told)
            if path not in told:
                told.add(path)
                yield path, self._new.get(path) or Entry(Node(EntryKind.FILE, 0o644), data=b"")

    def _parents(self, path: bytes, told: set[bytes]) -> Iterator[tuple[bytes, Entry]]:
        at = path.find(b"/")
        while at > 0:
            parent = path[:at]
            if parent not in told:
                told.add(parent)
                yield parent, self.entry(parent)
            at = path.find(b"/", at + 1)

    def _whiteouts(self) -> Iterator[bytes]:
        for path in self._gone:
            directory, _, name = path.rpartition(b"/")
            new = self._new.get(path)
            if new is None:
                yield join(directory, _WHITEOUT + name)
            elif new.node.is_directory:  # a new directory must not show what the old one had
                yield join(path, OPAQUE_NAME)

    def _is_hidden(self, path: bytes) -> bool:
        """True when the base's file at `path` is removed, or lies below what is no directory any more."""
        if not self._gone and not self._new:
            return False
        at = 0
        while at >= 0:
            at = path.find(b"/", at + 1)
            here = path if at < 0 else path[:at]
            if here in self._gone:
                return True
            new = self._new.get(here)
            if new is not None and at >= 0 and not new.node.is_directory:
                return True
        return False


class SubTree:
    """A directory of a draft as a root of its own: links inside it cannot lead out of it."""

    def __init__(self, tree: LayerDraft, prefix: bytes) -> None:
        self._tree = tree
        self._prefix = prefix
        self.has_root_header = True

    def full(self, path: bytes) -> bytes:
        """The path in the draft."""
        return join(self._prefix, path) if path else self._prefix

    def find(self, path: bytes) -> Node | None:
        """See `Tree.find`."""
        return self._tree.find(self.full(path))

    def names(self, path: bytes) -> list[bytes]:
        """See `Tree.names`."""
        return self._tree.names(self.full(path))

    def pieces(self, path: bytes, node: Node) -> Iterator[Piece]:
        """See `Tree.pieces`."""
        return self._tree.pieces(self.full(path), node)

    def xattrs(self, path: bytes, node: Node) -> Mapping[bytes, bytes]:
        """See `Tree.xattrs`."""
        return self._tree.xattrs(self.full(path), node)


class _EmptyTree:
    has_root_header = True

    def find(self, path: bytes) -> Node | None:
        return None if path else Node(EntryKind.DIRECTORY, 0o755)

    def names(self, path: bytes) -> list[bytes]:  # noqa: ARG002 - the protocol's shape
        return []

    def pieces(self, path: bytes, node: Node) -> Iterator[Piece]:  # noqa: ARG002
        return iter(())

    def xattrs(self, path: bytes, node: Node) -> Mapping[bytes, bytes]:  # noqa: ARG002
        return {}


def empty_tree() -> Tree:
    """Scratch."""
    return _EmptyTree()


def _show(path: bytes) -> str:
    return repr("/" + path[:200].decode("utf-8", "replace"))
