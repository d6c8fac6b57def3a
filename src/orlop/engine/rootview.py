"""A container's root as a worker sees it: one fd, through which all paths are resolved.

A running container is looked at through its first process, with every mount it has. A stopped one's
overlay is mounted in the worker's own mount namespace (gone with the worker), with its volumes and
binds on top. Runs in workers: no asyncio.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from typing import Any

from orlop.base.errors import Kind, OrlopError
from orlop.kernel import mount
from orlop.kernel.filesystems import overlay_fd
from orlop.kernel.openat import RootedDir

__all__ = ["RootGone", "open_root"]


class RootGone(OrlopError):
    """The container's root cannot be looked at."""

    kind = Kind.CONFLICT
    code = "root-gone"


def open_root(view: Mapping[str, Any]) -> RootedDir:
    """The root that the payload describes; the caller closes it.

    Args:
        view: `pid` of a running container; or `lowers`, `upper`, `work` (both None for a read-only
            view), and `mounts`: source, target, is_read_only of what lies on top.
    """
    pid = view.get("pid")
    if pid:
        return _root_of(int(pid))
    lowers = [str(item) for item in view["lowers"]]
    root = overlay_fd(lowers, view.get("upper"), view.get("work"))
    place = _attach(root)
    rooted = RootedDir(place)
    for item in view.get("mounts", ()):
        _mount_on(rooted, str(item["source"]), str(item["target"]), is_read_only=bool(item["is_read_only"]))
    return rooted


def _root_of(pid: int) -> RootedDir:
    try:
        return RootedDir(os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
    except OSError as error:
        raise RootGone(f"the container's process {pid} has ended", hint="try again") from error


def _attach(root: int) -> int:
    """Attach the detached mount over our own /mnt-like place and open its root.

    Further mounts can only be made on an attached tree. /proc is always there, is ours, and nothing
    that this worker needs lies below the place.
    """
    place = "/tmp" if os.path.isdir("/tmp") else "/"
    try:
        mount.attach(root, place)
    finally:
        os.close(root)
    return os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _mount_on(root: RootedDir, source: str, target: str, *, is_read_only: bool) -> None:
    tree = mount.detach(source, is_recursive=True)
    try:
        place = _target_of(root, target, is_directory=stat.S_ISDIR(os.fstat(tree).st_mode))
        try:
            if is_read_only:
                mount.mount_setattr(tree, set_attributes=mount.MOUNT_ATTR_RDONLY)
            mount.attach(tree, place)
        finally:
            os.close(place)
    finally:
        os.close(tree)


def _target_of(root: RootedDir, target: str, *, is_directory: bool) -> int:
    """An O_PATH fd of the mount's place, made when missing as at a start."""
    if is_directory:
        return root.mkdirs(target)
    try:
        return root.path_fd(target)
    except FileNotFoundError:
        parent = root.mkdirs(os.path.dirname(target))
        os.close(parent)
        os.close(root.open(target, os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW, 0o644))
        return root.path_fd(target)


def view_mounts(points: Sequence[tuple[str, str, bool]]) -> list[dict[str, object]]:
    """The `mounts` of a payload from (source, target, is_read_only), parents first."""
    ordered = sorted(points, key=lambda point: point[1].count("/"))
    return [{"source": source, "target": target, "is_read_only": flag} for source, target, flag in ordered]
