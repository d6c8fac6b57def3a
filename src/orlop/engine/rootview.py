"""A container's root as a worker sees it: one fd, through which all paths are resolved.

A running container is looked at through its first process, with every mount it has. A stopped one's
overlay is mounted in the worker's own mount namespace (gone with the worker), with its volumes and
binds on top. Runs in workers: no asyncio.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from orlop.base.errors import Kind, OrlopError
from orlop.kernel import mount
from orlop.kernel.filesystems import mount_table, overlay_fd
from orlop.kernel.namespaces import CLONE_NEWUSER, setns
from orlop.kernel.openat import RootedDir
from orlop.kernel.userns import become_root

__all__ = ["RootGone", "kernel_devices", "open_root", "view_mounts"]

_KERNEL_KINDS = frozenset(
    "proc sysfs cgroup cgroup2 devpts mqueue securityfs debugfs tracefs bpf pstore configfs".split()
)

_PLACE = "/tmp"  # there on every host, and nothing that we execute or import lies below it


class RootGone(OrlopError):
    """The container's root cannot be looked at."""

    kind = Kind.CONFLICT
    code = "root-gone"


def open_root(view: Mapping[str, Any]) -> RootedDir:
    """The root that the payload describes; the caller closes it.

    Args:
        view: `directory` of ours that is the whole root; or `pid` of a running container (`is_mapped`: with
            a user namespace); or `lowers`, `upper`, `work` (both None for a read-only view), and `mounts`:
            source, target, is_read_only of what lies on top.
    """
    if directory := view.get("directory"):
        return RootedDir(os.open(str(directory), os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC))
    pid = view.get("pid")
    if pid:
        root = _root_of(int(pid))
        if view.get("is_mapped"):
            _enter_user_namespace(int(pid))
        return root
    lowers = [str(item) for item in view["lowers"]]
    with ExitStack() as stack:
        # Sources are taken before our place is covered: they may lie below it.
        trees = []
        for item in view.get("mounts", ()):
            tree = mount.detach(str(item["source"]), is_recursive=True)
            stack.callback(os.close, tree)
            trees.append((tree, str(item["target"]), bool(item["is_read_only"])))
        rooted = RootedDir(_attach(overlay_fd(lowers, view.get("upper"), view.get("work"))))
        for tree, target, is_read_only in trees:
            _mount_on(rooted, tree, target, is_read_only=is_read_only)
    return rooted


def _root_of(pid: int) -> RootedDir:
    try:
        return RootedDir(os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
    except OSError as error:
        raise RootGone(f"the container's process {pid} has ended", hint="try again") from error


def kernel_devices(view: Mapping[str, Any]) -> frozenset[int]:
    """Devices of the view's file systems that hold no files but the kernel's words: /proc, /sys and such.

    A copy of a running container's root must not read them: some block, some never end, some have effects.
    """
    pid = view.get("pid")
    if not pid:
        return frozenset()
    return frozenset(os.makedev(*item.device) for item in mount_table(int(pid)) if item.kind in _KERNEL_KINDS)


def _enter_user_namespace(pid: int) -> None:
    """Be the root of the container's user namespace: ids are then those that the container sees."""
    fd = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(fd, CLONE_NEWUSER)
    finally:
        os.close(fd)
    become_root()


def _attach(root: int) -> int:
    """Attach the detached mount in this worker's own namespace and open its root.

    Further mounts can only be made on an attached tree; what the place covers is not needed here.
    """
    try:
        mount.attach(root, _PLACE)
    finally:
        os.close(root)
    return os.open(_PLACE, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _mount_on(root: RootedDir, tree: int, target: str, *, is_read_only: bool) -> None:
    place = _target_of(root, target, is_directory=stat.S_ISDIR(os.fstat(tree).st_mode))
    try:
        if is_read_only:
            mount.mount_setattr(tree, set_attributes=mount.MOUNT_ATTR_RDONLY, is_recursive=True)
        mount.attach(tree, place)
    finally:
        os.close(place)


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
