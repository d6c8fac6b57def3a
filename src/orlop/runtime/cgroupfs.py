"""What a container sees under /sys/fs/cgroup: its own subtree, read-only unless privileged."""

from __future__ import annotations

import os
from dataclasses import dataclass

from orlop.kernel import mount
from orlop.kernel.cgroup import Cgroup, Mode
from orlop.kernel.openat import RootedDir

__all__ = ["Sources", "attach", "open_sources"]

_SAFE = mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV | mount.MOUNT_ATTR_NOEXEC
_TARGET = "/sys/fs/cgroup"


@dataclass(frozen=True, slots=True)
class Sources:
    """Detached mounts of the cgroup's directories, by the name each has below the target.

    A v2 host has one, with the empty name. `links` are second names of co-mounted controllers.
    """

    mounts: tuple[tuple[str, int], ...]
    links: tuple[tuple[str, str], ...] = ()


def open_sources(cgroup: Cgroup) -> Sources | None:
    """Hold the cgroup's directories while the host's mounts are visible; None on a host without cgroups."""
    host = cgroup.host
    if host.mode is Mode.NONE:
        return None
    if host.mode is Mode.V2:
        return Sources((("", mount.detach(cgroup.directory("unified"))),))
    names = {point: os.path.basename(point) for point in host.hierarchies()}
    mounts = tuple((name, mount.detach(f"{point}/{cgroup.path}")) for point, name in names.items())
    links = tuple(
        (controller, names[point]) for controller, point in host.v1.items() if controller != names[point]
    )
    return Sources(mounts, links)


def attach(root: RootedDir, sources: Sources, *, is_writable: bool, path: str = _TARGET) -> None:
    """Attach them in the container; /sys is already ours."""
    attributes = _SAFE | (0 if is_writable else mount.MOUNT_ATTR_RDONLY)
    target = root.path_fd(path)
    if sources.mounts[0][0]:
        # v1: one directory per hierarchy, on a small tmpfs that is closed to writing at the end.
        top = mount.new_filesystem("tmpfs", {"source": "tmpfs", "mode": "0755", "size": "64k"}, _SAFE)
        for name, _ in sources.mounts:
            os.mkdir(name, 0o755, dir_fd=top)
        for name, existing in sources.links:
            os.symlink(existing, name, dir_fd=top)
        mount.attach(top, target)
        for name, fd in sources.mounts:
            _attach_one(fd, os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top), attributes)
        if not is_writable:
            mount.mount_setattr(top, set_attributes=mount.MOUNT_ATTR_RDONLY)
        os.close(top)
    else:
        _attach_one(sources.mounts[0][1], os.dup(target), attributes)
    os.close(target)


def _attach_one(fd: int, target: int, attributes: int) -> None:
    try:
        mount.mount_setattr(fd, set_attributes=attributes)
        mount.attach(fd, target)
    finally:
        os.close(target)
        os.close(fd)
