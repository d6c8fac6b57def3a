"""Jobs over the layers of images, run in workers: what each layer does, and how two images differ.

Only indexes are read (and, for a comparison, files of one length at different places). Nothing is mounted;
the layer files are opened by their names below the descriptor of our own directory.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

from orlop.base.errors import InvalidInput
from orlop.oci.digest import Digest, encoded
from orlop.store.layercompare import FILE, WHITEOUT, Change, Node, Tree, compare
from orlop.store.layerfile import read_head
from orlop.store.packages import MAX_DATABASE_BYTES, is_database, parse_packages
from orlop.wire.erofsread import ErofsInode, ErofsReader
from orlop.wire.tarheader import EntryKind

__all__ = ["JOBS", "difference", "inventory"]

_OPAQUE = b"trusted.overlay.opaque"
_MAX_CHANGES = 100_000  # in one answer; counts go on
_MAX_PATH_BYTES = 8 << 20  # of all paths in one answer: it has to fit in a message
_MAX_ENTRIES = 3_000_000  # of all layers together: their names are held in memory
_MAX_HIDDEN = 100
_CHUNK = 1 << 20
_KINDS = {kind: kind.name.lower() for kind in EntryKind}
Report = Callable[[dict[str, Any]], None]


def inventory(payload: dict[str, Any], fds: list[int], report: Report) -> dict[str, Any]:
    """What every layer of an image adds, changes and removes, and how much of it is hidden by others.

    Payload: `layers`, diff ids bottom first. fds: the directory of the layer files. Result: `layers`, one
    {added, changed, removed, size_bytes, hidden_bytes, changes, is_cut} each; `hidden`, the largest
    hidden files as [path, size, layer, hiding layer]. Changes are [kind, path, size].
    """
    del report
    with _Files(fds[0]) as files:
        tree = files.stack(payload["layers"])
    list_some = _Listing()
    layers = []
    for item in tree.reports:
        shown = list_some.take(item.changes)
        layers.append(
            {
                "added": item.added,
                "changed": item.changed,
                "removed": item.removed,
                "size_bytes": item.size_bytes,
                "hidden_bytes": item.hidden_bytes,
                "changes": shown,
                "is_cut": len(shown) < len(item.changes),
            }
        )
    largest = sorted(tree.hidden, key=lambda item: (-item[1].length, item[0]))[:_MAX_HIDDEN]
    hidden = [[_text(path), node.length, node.layer, by] for path, node, by in largest if node.length]
    return {"layers": layers, "hidden": hidden}


def difference(payload: dict[str, Any], fds: list[int], report: Report) -> dict[str, Any]:
    """How the tree of one image differs from that of another.

    Payload: `old` and `new`, diff ids bottom first. fds: the directory of the layer files. Result: `changes`
    as [kind, path, bytes more or less], `is_cut`, `counts` by kind, `size_bytes` more or less, and `packages`
    as [name, old version or "", new version or ""].
    """
    del report
    with _Files(fds[0]) as files:
        old, new = files.stack(payload["old"]), files.stack(payload["new"])
        counts = {"A": 0, "C": 0, "D": 0}
        listing, shown = _Listing(), list[list[Any]]()
        for change in compare(old, new, files.has_same_bytes):
            counts[change.kind] += 1
            shown += listing.take([change])
        packages = _package_changes(files.packages(old), files.packages(new))
    size = sum(node.size for node in new.nodes.values()) - sum(node.size for node in old.nodes.values())
    is_cut = sum(counts.values()) > len(shown)
    return {"changes": shown, "is_cut": is_cut, "counts": counts, "size_bytes": size, "packages": packages}


class _Listing:
    """Lists changes until an answer is full."""

    def __init__(self) -> None:
        self._rows_left = _MAX_CHANGES
        self._bytes_left = _MAX_PATH_BYTES

    def take(self, changes: Sequence[Change]) -> list[list[Any]]:
        """As many of these as there is room for."""
        shown: list[list[Any]] = []
        for change in changes:
            self._bytes_left -= len(change.path)
            if not self._rows_left or self._bytes_left < 0:
                break
            self._rows_left -= 1
            shown.append(_row(change))
        return shown


class _Files:
    """Layer files in memory, each once."""

    def __init__(self, directory: int) -> None:
        self._directory = directory
        self._numbers: dict[str, int] = {}
        self._views: list[mmap.mmap] = []
        self._stack = ExitStack()
        self._entries_left = _MAX_ENTRIES

    def __enter__(self) -> _Files:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def stack(self, diff_ids: Sequence[str]) -> Tree:
        """The merged tree of layers."""
        tree = Tree()
        for level, diff_id in enumerate(diff_ids):
            number = self._open(diff_id)
            reader = ErofsReader(self._views[number])
            if reader.inode(reader.root_nid).xattrs.get(_OPAQUE) == b"y":
                tree.hide_all()
            tree.add_layer(self._entries(reader, number, level))
        return tree

    def has_same_bytes(self, one: Node, other: Node) -> bool:
        """Compare two files of one length."""
        (first, start), (second, begin) = one.place, other.place
        left, right = self._views[first], self._views[second]
        for at in range(0, one.length, _CHUNK):
            size = min(_CHUNK, one.length - at)
            if left[start + at : start + at + size] != right[begin + at : begin + at + size]:
                return False
        return True

    def packages(self, tree: Tree) -> dict[str, str]:
        """Installed packages, as the databases in the tree say."""
        found: dict[str, str] = {}
        for path, node in tree.nodes.items():
            if node.kind == FILE and node.length <= MAX_DATABASE_BYTES and is_database(path):
                number, start = node.place
                found |= parse_packages(path, self._views[number][start : start + node.length])
        return found

    def _open(self, diff_id: str) -> int:
        if diff_id not in self._numbers:
            name = encoded(Digest(diff_id))
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._directory)
            try:
                self._entries_left -= read_head(fd, name).entry_count
                if self._entries_left < 0:
                    raise InvalidInput(
                        f"the layers have more than {_MAX_ENTRIES} entries: too many to compare"
                    )
                view = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
            finally:
                os.close(fd)
            self._numbers[diff_id] = len(self._views)
            self._views.append(self._stack.enter_context(view))
        return self._numbers[diff_id]

    @staticmethod
    def _entries(reader: ErofsReader, number: int, level: int) -> Iterator[tuple[bytes, Node]]:
        seen: set[int] = set()
        for path, inode in reader.walk():
            if path:
                yield path, _node(reader, inode, number, level, is_further=inode.nid in seen)
                seen.add(inode.nid)


def _node(reader: ErofsReader, inode: ErofsInode, number: int, level: int, *, is_further: bool) -> Node:
    if inode.kind is EntryKind.CHAR and inode.device == (0, 0):
        return Node(WHITEOUT)
    is_file = inode.kind is EntryKind.FILE
    return Node(
        _KINDS[inode.kind],
        size=inode.size if is_file and not is_further else 0,
        mode=inode.mode,
        uid=inode.uid,
        gid=inode.gid,
        target=reader.read(inode) if inode.kind is EntryKind.SYMLINK else b"",
        device=inode.device,
        xattrs=tuple(sorted(pair for pair in inode.xattrs.items() if pair[0] != _OPAQUE)),
        is_opaque=inode.xattrs.get(_OPAQUE) == b"y",
        place=(number, inode.data_offset) if is_file else (-1, -1),
        length=inode.size if is_file else 0,
        layer=level,
    )


def _package_changes(old: dict[str, str], new: dict[str, str]) -> list[list[str]]:
    names = sorted(old.keys() | new.keys())
    return [[name, old.get(name, ""), new.get(name, "")] for name in names if old.get(name) != new.get(name)]


def _row(change: Change) -> list[Any]:
    return [change.kind, _text(change.path), change.size]


def _text(path: bytes) -> str:
    return "/" + os.fsdecode(path)


JOBS = {"layers.inventory": inventory, "layers.difference": difference}
"""What the zygote's table (and `InlineWorkers` in tests) takes over."""
