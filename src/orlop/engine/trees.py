"""Directories of our own that strangers have filled: removed and measured by fd, large ones by workers."""

from __future__ import annotations

import os

from orlop.procs.workers import Workers
from orlop.store.smalltree import empty_tree

__all__ = ["remove_tree", "tree_usage"]

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


async def remove_tree(workers: Workers, path: str) -> None:
    """Remove a directory and everything below; fine when it is not there."""
    try:
        fd = os.open(path, _DIRECTORY)
    except FileNotFoundError:
        return
    try:
        await empty_tree(workers, fd)
    finally:
        os.close(fd)
    os.rmdir(path)


async def tree_usage(workers: Workers, path: str) -> int:
    """Bytes on disk below a directory."""
    fd = os.open(path, _DIRECTORY)
    try:
        answer = await workers.run("trees.usage", {}, fds=[fd])
    finally:
        os.close(fd)
    return int(answer["size_bytes"])
