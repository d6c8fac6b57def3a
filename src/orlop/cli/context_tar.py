"""A build context as a tar stream: what .dockerignore leaves of a directory.

The Dockerfile and .dockerignore are always sent; the engine applies the rules again and drops them.
Files are read while the stream is sent; a file that changes size meanwhile is an error.
"""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from typing import BinaryIO

from orlop.base.errors import InvalidInput
from orlop.wire.ignorefile import IgnoreRules

__all__ = ["pack_context", "pack_stdin_dockerfile", "pack_tree"]

_CHUNK_BYTES = 1 << 20


class _Pipe(io.RawIOBase):
    """What tarfile writes, taken out again in pieces."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override] # tarfile gives bytes only
        self.pieces.append(bytes(data))
        return len(data)

    def take(self) -> Iterator[bytes]:
        pieces, self.pieces = self.pieces, []
        if pieces:
            yield b"".join(pieces)


def pack_stdin_dockerfile(source: BinaryIO) -> Iterator[bytes]:
    """`build -`: a Dockerfile alone, or a context tar given as it is."""
    head = source.read(_CHUNK_BYTES)
    if len(head) > 262 and (head[257:262] == b"ustar" or head[:2] == b"\x1f\x8b"):
        yield head
        while piece := source.read(_CHUNK_BYTES):
            yield piece
        return
    data = head + source.read()
    pipe = _Pipe()
    with tarfile.open(fileobj=pipe, mode="w|") as tar:
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))
    yield from pipe.take()


def pack_context(root: str, dockerfile: str) -> Iterator[bytes]:
    """Walk `root` in name order and give its tar.

    Raises:
        InvalidInput: there is no such Dockerfile, or a file cannot be read.
    """
    if not os.path.lexists(os.path.join(root, dockerfile)):
        raise InvalidInput(
            f"unable to prepare context: unable to evaluate symlinks in Dockerfile path: "
            f"lstat {os.path.join(root, dockerfile)}: no such file or directory"
        )
    rules = _rules(root, dockerfile)
    always = {dockerfile, ".dockerignore", f"{dockerfile}.dockerignore"}
    return _pack(root, lambda path: path in always or not rules.is_ignored(path), rules)


def pack_tree(source: str, inside: str, *, keeps_owner: bool) -> Iterator[bytes]:
    """The tar of a file or tree for `cp`; its top is named `inside`.

    Raises:
        InvalidInput: something cannot be read.
    """
    pipe = _Pipe()

    def change(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        if not keeps_owner:
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = ""
        return entry

    with tarfile.open(fileobj=pipe, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_CHUNK_BYTES) as tar:
        for path in _tree(source):
            name = os.path.normpath(os.path.join(inside, os.path.relpath(path, source)))
            try:
                tar.add(path, name, recursive=False, filter=change)
            except OSError as error:
                raise InvalidInput(f"cannot send {path}: {(error.strerror or str(error)).lower()}") from error
            yield from pipe.take()
    yield from pipe.take()


def _tree(source: str) -> Iterator[str]:
    yield source
    if os.path.isdir(source) and not os.path.islink(source):
        for entry in sorted(os.scandir(source), key=lambda entry: entry.name):
            yield from _tree(entry.path)


def _rules(root: str, dockerfile: str) -> IgnoreRules:
    for name in (f"{dockerfile}.dockerignore", ".dockerignore"):
        try:
            with open(os.path.join(root, name), "rb") as file:
                return IgnoreRules.parse(file.read().decode(errors="surrogateescape"))
        except FileNotFoundError:
            continue
    return IgnoreRules.parse("")


def _pack(root: str, is_wanted: Callable[[str], bool], rules: IgnoreRules) -> Iterator[bytes]:
    pipe = _Pipe()
    with tarfile.open(fileobj=pipe, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_CHUNK_BYTES) as tar:
        for path in _walk(root, "", is_wanted, rules):
            _add(tar, root, path)
            yield from pipe.take()
    yield from pipe.take()


def _walk(root: str, below: str, is_wanted: Callable[[str], bool], rules: IgnoreRules) -> Iterator[str]:
    for entry in sorted(os.scandir(os.path.join(root, below)), key=lambda entry: entry.name):
        path = f"{below}/{entry.name}" if below else entry.name
        is_directory = entry.is_dir(follow_symlinks=False)
        if is_wanted(path):
            yield path
        elif not (is_directory and rules.may_readmit_below(path)):
            continue
        if is_directory:
            yield from _walk(root, path, is_wanted, rules)


def _add(tar: tarfile.TarFile, root: str, path: str) -> None:
    full = os.path.join(root, path)
    try:
        if stat.S_ISSOCK(os.lstat(full).st_mode):
            return
        entry = tar.gettarinfo(full, path)
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        if entry.isreg():
            with open(full, "rb") as file:
                tar.addfile(entry, file)
        else:
            tar.addfile(entry)
    except OSError as error:
        raise InvalidInput(f"cannot send {path}: {(error.strerror or str(error)).lower()}") from error
