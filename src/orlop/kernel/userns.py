"""User namespaces: their maps, becoming their root, and mounts seen through them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable

from orlop.kernel import mount, process
from orlop.kernel.filesystems import mount_table

__all__ = ["IdmapUnsupported", "become_root", "idmap", "write_maps"]

Mapping = tuple[int, int, int]  # first id inside, first id outside, how many

# Files of these have the kernel's owners, not a user's: nothing to translate.
_KERNEL_OWNED = frozenset(
    "bpf cgroup cgroup2 configfs debugfs devpts devtmpfs efivarfs fusectl mqueue nsfs proc pstore ramfs "
    "securityfs selinuxfs sysfs tracefs".split()
)


class IdmapUnsupported(OSError):
    """The file system (or the kernel) has no idmapped mounts."""


def write_maps(pid: int, uids: Iterable[Mapping], gids: Iterable[Mapping]) -> None:
    """Give the user namespace of a child its maps, once and for all; needs SETUID and SETGID outside.

    Raises:
        OSError: EINVAL (overlapping or empty ranges), EPERM (written before, ids that are not ours).
    """
    for name, mappings in (("gid_map", gids), ("uid_map", uids)):
        text = "".join(f"{inside} {outside} {count}\n" for inside, outside, count in mappings)
        fd = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode("ascii"))  # the kernel takes one write only
        except OSError as error:
            raise OSError(error.errno, f"write {name}: {error.strerror}") from error
        finally:
            os.close(fd)


def become_root() -> None:
    """Take the ids 0 of the user namespace that this thread has just entered."""
    process.set_groups(())
    process.set_res_gid(0)
    process.set_res_uid(0)
    process.set_dumpable(is_dumpable=False)  # a change of ids may have switched it on


def idmap(tree: int, userns_fd: int, what: str, *, is_recursive: bool = False) -> None:
    """Show the owners in a detached mount through the map of a user namespace.

    What the kernel owns (proc, sysfs, ...) stays as it is. Of the mounts below, those that
    cannot be mapped keep foreign owners; that is the safe side.

    Raises:
        IdmapUnsupported: the file system at the top has no idmapped mounts.
    """
    try:
        mount.mount_setattr(tree, userns_fd=userns_fd, is_recursive=is_recursive)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EPERM, errno.EOPNOTSUPP):
            raise
        if is_recursive:
            idmap(tree, userns_fd, what)
            return
        kind = _kind_of(tree)
        if kind in _KERNEL_OWNED:
            return
        text = f"the ids of {what} cannot be mapped: {kind or 'its file system'} has no idmapped mounts here"
        raise IdmapUnsupported(error.errno, text) from error


def _kind_of(fd: int) -> str:
    """The kind of file system that a descriptor is on, as far as it is mounted in this namespace."""
    device = os.fstat(fd).st_dev
    wanted = (os.major(device), os.minor(device))
    return next((entry.kind for entry in mount_table() if entry.device == wanted), "")
