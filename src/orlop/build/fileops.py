"""Apply the actions of a FileOp to a layer draft. Pure but for reads through trees.

Rules of COPY: a directory source means its content; a destination that is or ends as a
directory takes files by name; missing parents are made, existing ones stay as they are; the
destination's links are followed inside the root, links below a copied directory are not.

Spec: BuildKit solver/llbsolver/file and fsutil/copy; Dockerfile reference, "COPY", "ADD".
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from orlop.base.errors import InvalidInput
from orlop.build import graph as g
from orlop.build.cachekey import Selection
from orlop.build.chmod import apply_symbolic
from orlop.build.contenthash import SourceMissing
from orlop.build.layerdraft import Entry, LayerDraft
from orlop.build.owners import resolve_owner
from orlop.build.patterns import has_wildcard
from orlop.build.selecting import Filters, expand, select
from orlop.build.trees import Node, Tree, join, resolve
from orlop.wire.tar import EntryKind

__all__ = ["Unpacker", "apply_file_op"]

_NANO = 1_000_000_000
_DIRECTORY_MODE = 0o755

Unpacker = Callable[[LayerDraft, bytes, Tree, bytes, Node, tuple[int, int] | None], bool]
"""(draft, destination, tree, path, node, owner) -> True when the file was an archive and is unpacked."""


def apply_file_op(operation: g.FileOp, inputs: Sequence[Tree], base: Tree, unpack: Unpacker) -> LayerDraft:
    """Run all actions in order; the draft of the layer.

    Args:
        operation: a chain of actions: each works on the result of the one before.
        inputs: the trees of the vertex' inputs, in order.
        base: the tree that the first action works on.
        unpack: writes the content of an archive into the draft.

    Raises:
        SourceMissing: a path to copy does not exist.
        InvalidInput: what the message says.
    """
    draft = LayerDraft(base)
    for number, step in enumerate(operation.actions):
        expected = len(inputs) + number - 1
        assert number == 0 or step.input == expected, "actions of one operation form a chain"
        match step.action:
            case g.CopyAction() as copy:
                source = inputs[step.secondary_input] if step.secondary_input >= 0 else None
                _Copying(draft, source, copy, unpack).run()
            case g.MkdirAction() as mkdir:
                owner = resolve_owner(draft, mkdir.owner, is_strict=False) if mkdir.owner else (0, 0)
                path = resolve(draft, os.fsencode(mkdir.path))
                make_directories(draft, path, mkdir.mode, owner, mtime_ns=max(mkdir.timestamp_ns, 0) or None)
            case g.MkfileAction() as mkfile:
                _mkfile(draft, mkfile)
            case g.RmAction() as rm:
                _rm(draft, rm)
    return draft


def make_directories(
    draft: LayerDraft, path: bytes, mode: int, owner: tuple[int, int], *, mtime_ns: int | None = None
) -> None:
    """Make the directory at a canonical path and its missing parents.

    New ones get the time of the directory they are made in, so that equal builds give equal bytes.
    """
    parts = path.split(b"/") if path else []
    node = draft.find(b"")
    above_ns = node.mtime_ns if node else 0
    for count in range(len(parts)):
        here = b"/".join(parts[: count + 1])
        node = draft.find(here)
        if node is None:
            when = _seconds(above_ns if mtime_ns is None else mtime_ns)
            draft.put(here, Entry(Node(EntryKind.DIRECTORY, mode, *owner, mtime_ns=when)))
        elif not node.is_directory:
            raise InvalidInput(f"mkdir {_show(here)}: not a directory")
        else:
            above_ns = node.mtime_ns


def _mkfile(draft: LayerDraft, action: g.MkfileAction) -> None:
    owner = resolve_owner(draft, action.owner, is_strict=False) if action.owner else (0, 0)
    path = resolve(draft, os.fsencode(action.path))
    when = max(action.timestamp_ns, 0)
    node = Node(EntryKind.FILE, action.mode, *owner, size=len(action.data), mtime_ns=when)
    draft.put(path, Entry(node, data=action.data))


def _rm(draft: LayerDraft, action: g.RmAction) -> None:
    selection = Selection(action.path, has_wildcard=action.has_wildcard and has_wildcard(action.path))
    _, found = expand(draft, selection)
    for path in found:
        if draft.find(path) is None:
            if not action.may_be_missing:
                raise InvalidInput(f"rm {_show(path)}: no such file or directory")
            continue
        draft.remove(path)


class _Copying:
    def __init__(self, draft: LayerDraft, source: Tree | None, copy: g.CopyAction, unpack: Unpacker) -> None:
        self._draft = draft
        self._source = source
        self._copy = copy
        self._unpack = unpack
        self._owner = resolve_owner(draft, copy.owner, is_strict=True) if copy.owner else None
        self._filters = Filters.of(copy.includes, copy.excludes)

    def run(self) -> None:
        if self._source is None:
            raise SourceMissing(self._copy.source)
        is_pattern = self._copy.has_wildcard and has_wildcard(self._copy.source)
        selection = Selection(self._copy.source, is_pattern, self._copy.follows_links)
        if not is_pattern:
            self._one(self._source, os.fsencode(self._copy.source))
            return
        _, found = expand(self._source, selection)
        if not found and not self._copy.may_match_nothing:
            raise SourceMissing(self._copy.source)
        for path in found:
            self._one(self._source, path)

    def _one(self, tree: Tree, written: bytes) -> None:
        """Copy one source; its last component decides the name, not what a link there points to."""
        path = resolve(tree, written, follows_last=self._copy.follows_links)
        node = tree.find(path)
        if node is None or (written.endswith(b"/") and not node.is_directory):
            raise SourceMissing(self._copy.source)
        if self._copy.unpacks and node.kind is EntryKind.FILE and self._unpacked(tree, path, node):
            return
        name = written.rstrip(b"/").rpartition(b"/")[2]
        target = self._target(node, name)
        self._copy_tree(tree, path, target)

    def _unpacked(self, tree: Tree, path: bytes, node: Node) -> bool:
        target = resolve(self._draft, os.fsencode(self._copy.destination))
        return self._unpack(self._draft, target, tree, path, node, self._owner)

    def _target(self, node: Node, name: bytes) -> bytes:
        """Where the source goes; parents exist afterwards."""
        written = os.fsencode(self._copy.destination)
        head, _, last = written.rpartition(b"/")
        parent = head if last not in (b"", b".") else written
        self._make(resolve(self._draft, parent), node)
        target = resolve(self._draft, written)
        existing = self._draft.find(target)
        if existing is not None:
            is_into = existing.is_directory and not node.is_directory
            if is_into or (node.is_directory and not self._copy.copies_contents):
                target = join(target, name)
        elif node.is_directory and self._copy.copies_contents:
            self._make(target, node)
        self._make(target.rpartition(b"/")[0], node)
        return target

    def _make(self, path: bytes, node: Node) -> None:
        mode = self._copy.mode if self._copy.mode >= 0 else _DIRECTORY_MODE
        when = self._copy.timestamp_ns if self._copy.timestamp_ns >= 0 else node.mtime_ns
        make_directories(self._draft, path, mode, self._owner or (0, 0), mtime_ns=when)

    def _copy_tree(self, tree: Tree, top: bytes, target: bytes) -> None:
        cut = len(top) + 1 if top else 0
        for path, node in select(tree, top, self._filters):
            relative = path[cut:] if path != top else b""
            here = join(target, relative) if relative else target
            self._put(tree, path, node, here, is_top=not relative)

    def _put(self, tree: Tree, path: bytes, node: Node, target: bytes, *, is_top: bool) -> None:
        existing = self._draft.find(target)
        if existing is not None:
            if node.is_directory and not existing.is_directory:
                raise InvalidInput(f"cannot copy to non-directory: {_show(target)}")
            if existing.is_directory and not node.is_directory:
                raise InvalidInput(f"cannot replace to directory {_show(target)} with file")
            if node.is_directory and is_top:
                return  # the destination itself stays as it is
        self._draft.put(target, Entry(self._placed(node), tree, path))

    def _placed(self, node: Node) -> Node:
        uid, gid = self._owner if self._owner is not None else (node.uid, node.gid)
        mode = node.mode
        if node.kind is not EntryKind.SYMLINK:
            if self._copy.mode_text:
                mode = apply_symbolic(self._copy.mode_text, mode, is_directory=node.is_directory)
            elif self._copy.mode >= 0:
                mode = self._copy.mode
        when = self._copy.timestamp_ns if self._copy.timestamp_ns >= 0 else node.mtime_ns
        # spelt out: dataclasses.replace takes five times as long, and this runs once per file
        return Node(
            node.kind,
            mode,
            uid,
            gid,
            node.size,
            _seconds(when),
            node.link,
            node.major,
            node.minor,
            node.xattrs,
            node.identity,
            node.place,
        )


def _seconds(time_ns: int) -> int:
    """Layers keep whole seconds."""
    return time_ns // _NANO * _NANO


def _show(path: bytes) -> str:
    return "/" + path[:300].decode("utf-8", "replace")
