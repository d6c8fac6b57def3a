"""Digests of files by content, for cache keys: equal to BuildKit's for equal files.

A file's digest covers its metadata without name and time, and its bytes. A directory's covers
its own header and, by name, the digest of everything in it. A selection with wildcards or
filters is the list of what it matches, by path and digest.

Spec: BuildKit cache/contenthash (checksum.go, tarsum.go).
"""

from __future__ import annotations

import hashlib
import os
import posixpath
from collections.abc import Iterator

from orlop.base.errors import InvalidInput
from orlop.build.cachekey import Selection
from orlop.build.selecting import Filters, expand, select
from orlop.build.trees import MAX_DEPTH, Node, Tree, join, resolve
from orlop.wire.tar import EntryKind

__all__ = ["ContentHasher", "SourceMissing"]

_CHUNK = 1 << 20
_ZEROS = bytes(_CHUNK)
_EMPTY = "sha256:" + hashlib.sha256().hexdigest()


class SourceMissing(InvalidInput):
    """A file that COPY or ADD names does not exist."""

    code = "source-missing"

    def __init__(self, path: str) -> None:
        shown = path.lstrip("/") or "/"
        # docker-py and CLI users know this text from the classic builder
        super().__init__(
            f"file not found in build context or excluded by .dockerignore: stat {shown[:300]}: "
            "file does not exist",
            hint="paths are relative to the context; look at .dockerignore too",
            path=path,
        )


class ContentHasher:
    """Digests of one tree, remembered while it lives."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._files: dict[bytes, str] = {}
        self._directories: dict[bytes, str] = {}

    def digest(self, selection: Selection) -> str:
        """The digest of what a selection takes.

        Raises:
            SourceMissing: the path does not exist (wildcards may match nothing).
        """
        path = os.fsencode(selection.path)
        if selection.is_filtered:
            return self._filtered(selection)
        found = resolve(self._tree, path, follows_last=selection.follows_links)
        node = self._tree.find(found)
        if node is None or (path.endswith(b"/") and not node.is_directory):
            raise SourceMissing(selection.path)
        return self._of(found, node)

    def _of(self, path: bytes, node: Node) -> str:
        return self._directory(path) if node.is_directory else self._file(path, node)

    def _directory(self, path: bytes) -> str:
        if path in self._directories:
            return self._directories[path]
        if path.count(b"/") > MAX_DEPTH // 2:
            raise InvalidInput(f"directories nest deeper than {MAX_DEPTH // 2}")
        hasher = hashlib.sha256(b"\0" + self._header(path).encode())
        for name in self._tree.names(path):
            child = join(path, name)
            node = self._tree.find(child)
            if node is not None:  # one frame per level: contexts may be 500 directories deep
                digest = self._directory(child) if node.is_directory else self._file(child, node)
                hasher.update(b"\0" + name + digest.encode())
        digest = self._directories[path] = "sha256:" + hasher.hexdigest()
        return digest

    def _header(self, path: bytes) -> str:
        """Digest of a directory's own metadata."""
        if not path and not self._tree.has_root_header:
            return _EMPTY
        node = self._tree.find(path)
        assert node is not None
        return self._file(path + b"/", node)

    def _file(self, path: bytes, node: Node) -> str:
        if path in self._files:
            return self._files[path]
        hasher = hashlib.sha256()
        size = node.size if node.kind is EntryKind.FILE else 0
        link = node.link if node.kind is EntryKind.SYMLINK else b""
        mode = 0o777 if node.kind is EntryKind.SYMLINK else node.mode & 0o7777
        fields = (
            (b"name", b""),
            (b"mode", b"%d" % mode),
            (b"uid", b"%d" % node.uid),
            (b"gid", b"%d" % node.gid),
            (b"size", b"%d" % size),
            (b"typeflag", node.kind.value),
            (b"linkname", link),
            (b"uname", b""),
            (b"gname", b""),
            (b"devmajor", b"%d" % node.major),
            (b"devminor", b"%d" % node.minor),
            *sorted(self._tree.xattrs(path.rstrip(b"/"), node).items()),
        )
        hasher.update(b"".join(key + value for key, value in fields))
        if size:
            for chunk in _read(self._tree, path, node):
                hasher.update(chunk)
        digest = self._files[path] = "sha256:" + hasher.hexdigest()
        return digest

    def _filtered(self, selection: Selection) -> str:
        prefix, tops = expand(self._tree, selection)
        filters = Filters.of(selection.includes, selection.excludes)
        matches = [
            path + b"/" if node.is_directory else path
            for top in tops
            for path, node in select(self._tree, top, filters)
        ]
        if not matches:
            return _EMPTY
        pairs = [(path, self._matched(path, selection)) for path in matches]
        name = posixpath.basename(selection.path.rstrip("/"))
        if len(pairs) == 1 and os.fsencode(name) == pairs[0][0].rstrip(b"/").rpartition(b"/")[2]:
            return pairs[0][1]
        hasher = hashlib.sha256()
        for path, digest in pairs:
            key = path.rstrip(b"/").removeprefix(prefix)
            hasher.update((b"\0" + key.lstrip(b"/").replace(b"/", b"\0") if key else b"\0") + digest.encode())
        return "sha256:" + hasher.hexdigest()

    def _matched(self, path: bytes, selection: Selection) -> str:
        if path.endswith(b"/"):
            return self._header(path.rstrip(b"/"))
        node = self._tree.find(path)
        assert node is not None
        if node.kind is EntryKind.SYMLINK and selection.follows_links:
            target = resolve(self._tree, path)
            found = self._tree.find(target)
            if found is None:
                raise SourceMissing(os.fsdecode(path))
            return self._of(target, found)
        return self._file(path, node)


def _read(tree: Tree, path: bytes, node: Node) -> Iterator[bytes]:
    for piece in tree.pieces(path, node):
        left, at = piece.size, piece.offset
        while left:
            chunk = _ZEROS[: min(left, _CHUNK)] if piece.fd < 0 else os.pread(piece.fd, min(left, _CHUNK), at)
            if not chunk:
                raise InvalidInput(f"{os.fsdecode(path)[:200]!r} became shorter while it was read")
            yield chunk
            left -= len(chunk)
            at += len(chunk)
