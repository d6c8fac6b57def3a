"""Remove what is below a directory: a small tree where one stands, a large one in a worker.

Most containers write a few files or none, and a worker costs a fork. As in a worker, everything is
reached relative to the fd of its own directory and no link is followed; names are bytes that nobody
looks at.
"""

from __future__ import annotations

import contextlib
import os

from orlop.aio import offload
from orlop.procs.workers import Workers
from orlop.store.treewalk import DIRECTORY

__all__ = ["empty_if_small", "empty_tree"]

_ENTRIES = 64
_DEPTH = 6


async def empty_tree(workers: Workers, directory: int) -> None:
    """Remove everything below a directory, however large; the fd stays the caller's."""
    if not await offload.thread(empty_if_small, directory):
        await workers.run("trees.empty", {}, fds=[directory])


def empty_if_small(directory: int) -> bool:
    """Remove everything below a directory of a few entries; blocks.

    Returns False when it is not small: part of it may be gone then.
    """
    return _empty(directory, [_ENTRIES], _DEPTH)


def _empty(directory: int, left: list[int], depth: int) -> bool:
    found = []
    with os.scandir(directory) as entries:
        for entry in entries:
            left[0] -= 1
            if left[0] < 0:
                return False
            found.append((entry.name, entry.is_dir(follow_symlinks=False)))
    for name, is_directory in found:
        with contextlib.suppress(FileNotFoundError):  # a supervisor that ends removes its socket itself
            if not is_directory:
                os.unlink(name, dir_fd=directory)
            elif not _remove_directory(directory, name, left, depth):
                return False
    return True


def _remove_directory(parent: int, name: str, left: list[int], depth: int) -> bool:
    if depth == 0:
        return False
    fd = os.open(name, DIRECTORY, dir_fd=parent)
    try:
        is_empty = _empty(fd, left, depth - 1)
    finally:
        os.close(fd)
    if is_empty:
        os.rmdir(name, dir_fd=parent)
    return is_empty
