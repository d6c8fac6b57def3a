"""The context of a build as a tree: the index of a tar that is never unpacked.

Later entries replace earlier ones, missing parents are made up, a hard link is another name of
the file it points to. Owners become root, as every client's context does; attributes that
would steer an overlay or a security module are dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from orlop.build.trees import MAX_DEPTH, Node, Piece, join, split
from orlop.wire.ignorefile import IgnoreRules
from orlop.wire.tar import EntryKind, TarEntry, TarError

__all__ = ["ContextTree", "kept_xattrs", "pieces_at"]

MAX_SPARSE_BYTES = 64 << 30  # zeros that a sparse file may stand for beyond its data
_CAPABILITY = b"security.capability"


def kept_xattrs(xattrs: Mapping[bytes, bytes]) -> Mapping[bytes, bytes]:
    """Attributes that go into a layer: the user's own and file capabilities."""
    if not xattrs:
        return xattrs
    return {
        name: value
        for name, value in xattrs.items()
        if name == _CAPABILITY or (name.startswith(b"user.") and not name.startswith(b"user.overlay."))
    }


def pieces_at(fd: int, node: Node) -> Iterator[Piece]:
    """Where a file's bytes are: its place is the offset of its data and its sparse map."""
    place = node.place
    assert isinstance(place, tuple)
    offset, sparse = place
    if sparse is None:
        yield Piece(fd, offset, node.size)
        return
    at = 0
    for start, length in sparse:
        if start > at:
            yield Piece(-1, 0, start - at)
        yield Piece(fd, offset, length)
        offset += length
        at = start + length
    if node.size > at:
        yield Piece(-1, 0, node.size - at)


class ContextTree:
    """A tree over the bytes of one descriptor, which stays the caller's."""

    has_root_header = False

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._root = Node(EntryKind.DIRECTORY, 0o755)
        self._children: dict[bytes, dict[bytes, Node]] = {b"": {}}
        self._sorted: dict[bytes, list[bytes]] = {}
        self._zeros = 0

    @classmethod
    def read(cls, fd: int, entries: Iterable[TarEntry]) -> ContextTree:
        """Index the entries of the tar behind `fd`.

        Raises:
            TarError: names that leave the tree, links to nothing, absurd depth or sparseness.
        """
        tree = cls(fd)
        for entry in entries:
            tree._add(entry)
        return tree

    @property
    def file_count(self) -> int:
        """Everything but the root."""
        return sum(map(len, self._children.values()))

    def find(self, path: bytes) -> Node | None:
        """See `Tree.find`."""
        if not path:
            return self._root
        directory, _, name = path.rpartition(b"/")
        return self._children.get(directory, {}).get(name)

    def names(self, path: bytes) -> list[bytes]:
        """See `Tree.names`."""
        if path not in self._sorted:
            self._sorted[path] = sorted(self._children.get(path, ()))
        return self._sorted[path]

    def pieces(self, path: bytes, node: Node) -> Iterator[Piece]:  # noqa: ARG002 - the protocol's shape
        """See `Tree.pieces`."""
        return pieces_at(self._fd, node)

    def xattrs(self, path: bytes, node: Node) -> Mapping[bytes, bytes]:  # noqa: ARG002
        """See `Tree.xattrs`."""
        return node.xattrs

    def remove(self, path: bytes) -> None:
        """Take a file out; fine when there is none."""
        directory, _, name = path.rpartition(b"/")
        if self._children.get(directory, {}).pop(name, None) is not None:
            self._forget(path)
            self._sorted.pop(directory, None)

    def ignore(self, rules: IgnoreRules) -> None:
        """Take out what the rules leave out; a directory with files taken back in stays."""
        self._ignore_below(b"", rules)

    def _ignore_below(self, directory: bytes, rules: IgnoreRules) -> bool:
        """Filter one directory; True when something is left in it. Depth is bounded by `_canonical`."""
        children = self._children.get(directory, {})
        for name in list(children):
            path = join(directory, name)
            shown = path.decode("utf-8", "surrogateescape")
            is_directory = children[name].is_directory
            if not rules.is_ignored(shown):
                if is_directory:
                    self._ignore_below(path, rules)
            elif not (is_directory and rules.may_readmit_below(shown) and self._ignore_below(path, rules)):
                del children[name]
                self._forget(path)
        self._sorted.pop(directory, None)
        return bool(children)

    # --- building ---

    def _add(self, entry: TarEntry) -> None:
        path = _canonical(entry.path, entry)
        if not path:
            if entry.kind is EntryKind.DIRECTORY:
                self._root.mode, self._root.mtime_ns = entry.mode & 0o7777, entry.mtime_ns
            return
        node = self._node_of(entry)
        siblings = self._parent_of(path, entry)
        name = path.rpartition(b"/")[2]
        old = siblings.get(name)
        if old is not None and not (old.is_directory and node.is_directory):
            self._forget(path)
        siblings[name] = node
        if node.is_directory:
            self._children.setdefault(path, {})

    def _node_of(self, entry: TarEntry) -> Node:
        if entry.kind is EntryKind.HARDLINK:
            target = self.find(_canonical(entry.link, entry))
            if target is None or target.is_directory:
                raise TarError(
                    f"context: hard link {_show(entry.path)} points to {_show(entry.link)}, not a file"
                )
            target.identity = target.identity or object()
            return target
        node = Node(
            entry.kind,
            entry.mode & 0o7777,
            size=entry.size,
            mtime_ns=entry.mtime_ns,
            link=entry.link,
            major=entry.major,
            minor=entry.minor,
            xattrs=kept_xattrs(entry.xattrs),
        )
        if entry.kind is EntryKind.FILE:
            node.place = (entry.data_offset, entry.sparse)
            self._zeros += entry.size - entry.stored_size
            if self._zeros > MAX_SPARSE_BYTES:
                raise TarError(
                    f"context: sparse files stand for more than {MAX_SPARSE_BYTES >> 30} GiB of zeros"
                )
        return node

    def _parent_of(self, path: bytes, entry: TarEntry) -> dict[bytes, Node]:
        """The directory of a new entry, made up where it is missing; nothing is followed."""
        directory = path.rpartition(b"/")[0]
        found = self._children.get(directory)
        if found is not None:
            return found
        name = directory.rpartition(b"/")[2]
        above = self._parent_of(directory, entry)
        old = above.get(name)
        if old is not None and not old.is_directory:
            raise TarError(
                f"context: {_show(entry.path)} lies below {_show(directory)}, which is not a directory"
            )
        above[name] = Node(EntryKind.DIRECTORY, 0o755)
        return self._children.setdefault(directory, {})

    def _forget(self, path: bytes) -> None:
        pending = [path]
        while pending:
            here = pending.pop()
            self._sorted.pop(here, None)
            pending += [join(here, name) for name in self._children.pop(here, ())]


def _canonical(path: bytes, entry: TarEntry) -> bytes:
    parts = split(path)
    if b".." in parts:
        raise TarError(f"context: {_show(entry.path)} has `..` in its path")
    if len(parts) > MAX_DEPTH // 2:
        raise TarError(f"context: {_show(entry.path)} lies deeper than {MAX_DEPTH // 2} directories")
    return b"/".join(parts)


def _show(path: bytes) -> str:
    return repr(path[:200].decode("utf-8", "replace"))
