"""`orlop cp`: files between a container and here, or a tar stream with `-`.

Docker's rules: `SRC/.` copies the content of a directory; a destination that is an existing directory
takes the source under its own name, otherwise the source gets the destination's name.
Source: docker CLI reference, `docker container cp`.
"""

from __future__ import annotations

import base64
import io
import json
import os
import sys
import tarfile
from collections.abc import Iterator
from typing import Any, BinaryIO

from orlop.base.errors import InvalidInput
from orlop.cli.context import Context
from orlop.cli.flags import Command, Flag, Parsed
from orlop.client.client import ApiError, path_of

COMMAND = Command(
    "cp [OPTIONS] CONTAINER:SRC_PATH DEST_PATH|- | SRC_PATH|- CONTAINER:DEST_PATH",
    "Copy files/folders between a container and the local filesystem",
    (
        Flag("archive", "a", "bool", text="Archive mode (copy all uid/gid information)"),
        Flag("follow-link", "L", "bool", text="Always follow symbol link in SRC_PATH"),
        Flag("quiet", "q", "bool", text="Suppress progress output during copy"),
    ),
    min_args=2,
    max_args=2,
)
_CHUNK_BYTES = 1 << 20
_GO_MODE_DIR = 1 << 31


def run(context: Context, parsed: Parsed) -> int:
    """Copy in the direction that the arguments say."""
    (source_name, source), (target_name, target) = map(_split, parsed.args)
    if bool(source_name) == bool(target_name):
        raise InvalidInput(
            "copying between containers is not supported"
            if source_name
            else "must specify at least one container source"
        )
    if source_name:
        _copy_out(context, source_name, source, target)
    else:
        _copy_in(context, parsed, source, (target_name, target))
    return 0


def _split(word: str) -> tuple[str, str]:
    """Container and path; a word that starts with a slash or a dot is a local path."""
    name, colon, path = word.partition(":")
    return (name, path) if colon and word[0] not in "/." else ("", word)


def _copy_out(context: Context, name: str, source: str, target: str) -> None:
    exchange = context.client.open("GET", path_of("containers", name, "archive"), {"path": source})
    if target == "-":
        for piece in exchange.chunks():
            sys.stdout.buffer.write(piece)
        return
    parent, rename = _local_place(target, source)
    stream = io.BufferedReader(_Chunks(exchange.chunks()), _CHUNK_BYTES)
    with tarfile.open(fileobj=stream, mode="r|") as tar:
        top = os.path.basename(os.path.normpath(source)) if not source.endswith("/.") else "."
        for entry in tar:
            name_inside = entry.name.lstrip("/")
            first, _, rest = name_inside.partition("/")
            if rename is not None and first in {top, "."}:
                name_inside = "/".join(filter(None, (rename, rest)))
            entry.name = name_inside or "."
            tar.extract(entry, parent, filter="data")


def _local_place(target: str, source: str) -> tuple[str, str | None]:
    """The directory to extract in, and the name that the first component gets (None = its own)."""
    if os.path.isdir(target):
        return target, "" if source.endswith("/.") else None
    parent = os.path.dirname(os.path.abspath(target))
    if not os.path.isdir(parent) or target.endswith("/"):
        raise InvalidInput(f'invalid output path: directory "{target}" does not exist')
    return parent, os.path.basename(os.path.abspath(target))


class _Chunks(io.RawIOBase):
    """An iterator of bytes as a raw stream."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = piece
        count = min(len(buffer), len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        return count


def _copy_in(context: Context, parsed: Parsed, source: str, target: tuple[str, str]) -> None:
    name, path = target
    if source == "-":
        _put(context, name, path or "/", _read(sys.stdin.buffer), parsed)
        return
    if not os.path.lexists(source):
        raise InvalidInput(f"lstat {source}: no such file or directory")
    if parsed["follow-link"]:
        source = os.path.realpath(source)
    directory, inside = _container_place(context, name, path or "/", source)
    _put(context, name, directory, _pack(source, inside, keeps_owner=parsed["archive"]), parsed)


def _container_place(context: Context, name: str, path: str, source: str) -> tuple[str, str]:
    """The directory in the container, and the name that the source gets there."""
    own = os.path.basename(os.path.abspath(source))
    try:
        exchange = context.client.open("HEAD", path_of("containers", name, "archive"), {"path": path})
    except ApiError as error:
        if error.status != 404 or path.endswith("/"):
            raise
        return os.path.dirname(path) or "/", os.path.basename(path)
    stat = json.loads(base64.b64decode(exchange.head.headers["x-docker-container-path-stat"]))
    exchange.close()
    if stat["mode"] & _GO_MODE_DIR:
        return path, "." if source.endswith("/.") else own
    return os.path.dirname(path.rstrip("/")) or "/", os.path.basename(path.rstrip("/"))


def _pack(source: str, inside: str, *, keeps_owner: bool) -> Iterator[bytes]:
    from orlop.cli.context_tar import pack_tree

    return pack_tree(source, inside, keeps_owner=keeps_owner)


def _read(stream: BinaryIO) -> Iterator[bytes]:
    while piece := stream.read(_CHUNK_BYTES):
        yield piece


def _put(context: Context, name: str, path: str, body: Iterator[bytes], parsed: Parsed) -> None:
    query = {"path": path, "noOverwriteDirNonDir": True, "copyUIDGID": parsed["archive"] or None}
    headers = {"Content-Type": "application/x-tar"}
    context.client.open(
        "PUT", path_of("containers", name, "archive"), query, body=body, headers=headers
    ).read()
