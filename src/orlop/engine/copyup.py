"""The job that fills a new volume with what its image has at that place; runs in a worker."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from orlop.engine.rootview import open_root
from orlop.kernel.openat import RootedDir
from orlop.store.treecopy import copy_tree

__all__ = ["copy_up"]

Report = Callable[[dict[str, Any]], None]

_DIR_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def copy_up(payload: dict[str, Any], fds: list[int], report: Report) -> dict[str, Any]:  # noqa: ARG001
    """Copy the image's directory `source` into the empty volume `target`.

    Nothing happens when the image has no such directory, or the volume is no longer empty.
    """
    lowers = [payload["upper"], *payload["lowers"]] if payload.get("upper") else payload["lowers"]
    target = os.open(str(payload["target"]), _DIR_FLAGS)
    try:
        if os.listdir(target):
            return {"copied": False}
        with open_root({"lowers": lowers}) as root:
            source = _find_directory(root, str(payload["source"]))
            if source is None:
                return {"copied": False}
            try:
                copy_tree(source, target)
            finally:
                os.close(source)
    finally:
        os.close(target)
    return {"copied": True}


def _find_directory(root: RootedDir, path: str) -> int | None:
    try:
        return root.open_dir(path)
    except OSError:
        return None
