"""Build jobs of workers: read a context, hash files, write a layer. No asyncio in here.

A tree is named by a plain value: `{"kind": "context", "fd": n, "ignore": text or null, "hidden":
[paths]}` is the tar behind the n-th descriptor; `{"kind": "root", "lowers": [...]}` is a stack of
mounted layers, topmost first; `{"kind": "empty"}` is scratch.
"""

from __future__ import annotations

import base64
import contextlib
import mmap
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from orlop.base.errors import InvalidInput
from orlop.build.contenthash import ContentHasher
from orlop.build.contexttree import ContextTree
from orlop.build.fileops import apply_file_op
from orlop.build.layerdraft import empty_tree
from orlop.build.layerwrite import write_layer
from orlop.build.opjson import decode_file_op, decode_selection
from orlop.build.roottree import RootTree
from orlop.build.trees import Tree, resolve
from orlop.build.unpacking import ArchiveUnpacker
from orlop.kernel.filesystems import overlay_fd
from orlop.wire.ignorefile import IgnoreRules
from orlop.wire.tar import EntryKind, scan

__all__ = ["JOBS", "digests", "files", "layer", "open_context", "read_context_files"]

Report = Callable[[dict[str, Any]], None]


def files(payload: dict[str, Any], fds: list[int], report: Report) -> dict[str, Any]:
    """Read small files of a context. Payload: `tree`, `paths`, `limit_bytes`.

    Result: `files`: base64 by path, null for one that is not there; `entries`: their number in all.
    """
    del report
    with open_tree(payload["tree"], fds) as tree:
        assert isinstance(tree, ContextTree)
        found = read_context_files(tree, payload["paths"], payload["limit_bytes"])
        encoded = {
            path: None if data is None else base64.b64encode(data).decode() for path, data in found.items()
        }
        return {"files": encoded, "entries": tree.file_count}


def digests(payload: dict[str, Any], fds: list[int], report: Report) -> dict[str, Any]:
    """Digest selections of a tree. Payload: `tree`, `selections`. Result: `digests`, in order."""
    del report
    with open_tree(payload["tree"], fds) as tree:
        hasher = ContentHasher(tree)
        return {"digests": [hasher.digest(decode_selection(one)) for one in payload["selections"]]}


def layer(payload: dict[str, Any], fds: list[int], report: Report) -> dict[str, Any]:
    """Carry out a FileOp as the tar of a layer.

    Payload: `operation`; `base`, the tree it works on; `inputs`, trees by input index; `out`
    and `scratch`, numbers of descriptors; `offset` in `out`. Result: `entries`.
    """
    del report
    with contextlib.ExitStack() as stack:
        base = stack.enter_context(open_tree(payload["base"], fds))
        inputs = [stack.enter_context(open_tree(one, fds)) for one in payload["inputs"]]
        unpack = ArchiveUnpacker(fds[payload["scratch"]])
        draft = apply_file_op(decode_file_op(payload["operation"]), inputs, base, unpack)
        return {"entries": write_layer(draft, fds[payload["out"]], payload["offset"])}


@contextlib.contextmanager
def open_tree(named: Mapping[str, Any], fds: list[int]) -> Iterator[Tree]:
    """The tree that a payload names."""
    if named["kind"] == "context":
        yield open_context(fds[named["fd"]], named["ignore"], named["hidden"])
    elif named["kind"] == "root" and named["lowers"]:
        fd = overlay_fd(named["lowers"])
        try:
            yield RootTree(fd)
        finally:
            os.close(fd)
    else:
        yield empty_tree()


def open_context(fd: int, ignore: str | None, hidden: list[str]) -> ContextTree:
    """Index the context behind a descriptor and take out what the build must not see.

    Raises:
        TarError: not a context.
        InvalidPattern: the ignore rules are malformed.
    """
    if not os.fstat(fd).st_size:
        return ContextTree(fd)
    with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as view:
        tree = ContextTree.read(fd, scan(view))
    for path in hidden:
        tree.remove(os.fsencode(path))
    if ignore is not None:
        tree.ignore(IgnoreRules.parse(ignore))
    return tree


def read_context_files(tree: ContextTree, paths: list[str], limit_bytes: int) -> dict[str, bytes | None]:
    """Whole files by path, links followed inside the context.

    Raises:
        InvalidInput: a file is larger than the limit, or no regular file.
    """
    found: dict[str, bytes | None] = {}
    for path in paths:
        place = resolve(tree, os.fsencode(path))
        node = tree.find(place)
        if node is None:
            found[path] = None
            continue
        if node.kind is not EntryKind.FILE:
            raise InvalidInput(f"{path[:200]!r} in the build context is not a regular file")
        if node.size > limit_bytes:
            raise InvalidInput(f"{path[:200]!r} in the build context is larger than {limit_bytes} bytes")
        pieces = tree.pieces(place, node)
        found[path] = b"".join(
            os.pread(piece.fd, piece.size, piece.offset) if piece.fd >= 0 else bytes(piece.size)
            for piece in pieces
        )
    return found


JOBS: dict[str, Callable[[dict[str, Any], list[int], Report], dict[str, Any]]] = {
    "build.files": files,
    "build.digests": digests,
    "build.layer": layer,
}
