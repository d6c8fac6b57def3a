"""Jobs that attach a tree to the host's mount namespace, and take it away again; run in workers.

A worker is one thread and shares nothing of its file system view, so it may enter another mount
namespace, which the engine, being many threads, cannot.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from orlop.base.errors import InvalidInput
from orlop.kernel.mount import MNT_DETACH, UMOUNT_NOFOLLOW, attach, umount2
from orlop.kernel.namespaces import CLONE_NEWNS, setns

__all__ = ["JOBS", "attach_tree", "detach_tree"]

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
Report = Callable[[dict[str, Any]], None]


def attach_tree(payload: dict[str, Any], fds: list[int], report: Report) -> dict[str, Any]:
    """Attach a detached tree. Payload: `target`. fds: the mount namespace, the tree.

    Raises:
        InvalidInput: the target is no directory, or a link.
    """
    del report
    namespace, tree = fds
    setns(namespace, CLONE_NEWNS)
    try:
        target = os.open(payload["target"], _DIRECTORY)
    except OSError as error:
        raise InvalidInput(
            f"cannot mount at {payload['target']}: {(error.strerror or '').lower()}",
            hint="the directory must exist on the engine's host",
        ) from error
    attach(tree, target)
    return {}


def detach_tree(payload: dict[str, Any], fds: list[int], report: Report) -> dict[str, Any]:
    """Unmount `target`; fine when nothing is mounted there. fds: the mount namespace."""
    del report
    setns(fds[0], CLONE_NEWNS)
    try:
        umount2(payload["target"], MNT_DETACH | UMOUNT_NOFOLLOW)
    except OSError as error:
        if error.errno not in {2, 22}:  # ENOENT, EINVAL: somebody was faster
            raise
    return {}


JOBS = {"images.attach": attach_tree, "images.detach": detach_tree}
"""What the zygote's table takes over."""
