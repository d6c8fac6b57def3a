"""What the host offers beyond what containers need: looked at or tried without effect, for `doctor`."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from dataclasses import dataclass

from orlop.kernel import landlock
from orlop.kernel.filesystems import filesystem_of, mount_table
from orlop.kernel.probe import kernel_version
from orlop.kernel.syscall import Path

__all__ = [
    "FilesystemFacts",
    "filesystem_facts",
    "has_ipv6",
    "has_nftables",
    "landlock_abi",
    "selinux_mode",
]

landlock_abi = landlock.abi

# The first kernel whose mounts of a type can be idmapped. A mount of the wrong type tells only when it
# is tried with a user namespace, which takes a fork.
_IDMAPPED_SINCE = {
    "ext4": (5, 12), "xfs": (5, 12), "vfat": (5, 12), "btrfs": (5, 15), "f2fs": (5, 18), "erofs": (5, 19),
    "overlay": (5, 19), "squashfs": (6, 2), "tmpfs": (6, 3), "ceph": (6, 7), "fuse": (6, 12),
    "virtiofs": (6, 12),
}  # fmt: skip
_FS_IOC_MEASURE_VERITY = 0xC0046686
_NETLINK_NETFILTER = 12


@dataclass(frozen=True, slots=True)
class FilesystemFacts:
    """The file system that holds a directory of ours: by its mount's words, its age, and by trying."""

    kind: str
    has_idmapped_mounts: bool
    has_project_quota: bool
    has_verity: bool


def filesystem_facts(directory: str) -> FilesystemFacts:
    """What is known of the file system that holds `directory`."""
    real, table = os.path.realpath(directory), mount_table()
    kind = filesystem_of(real, table)
    device = os.stat(real).st_dev
    words = {
        word.partition("=")[0]
        for entry in table
        if os.makedev(*entry.device) == device
        for word in entry.super_options
    }
    since = _IDMAPPED_SINCE.get(kind)
    return FilesystemFacts(
        kind,
        has_idmapped_mounts=since is not None and kernel_version(os.uname().release) >= since,
        has_project_quota=bool(words & {"prjquota", "pquota"}),
        has_verity=_has_verity(directory),
    )


def _has_verity(directory: Path) -> bool:
    """ENODATA says: could be, is not enabled for this file."""
    try:
        fd = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:
        return False
    try:
        fcntl.ioctl(fd, _FS_IOC_MEASURE_VERITY, struct.pack("HH", 0, 0) + bytes(64))
    except OSError as error:
        return error.errno == errno.ENODATA
    finally:
        os.close(fd)
    return True


def selinux_mode() -> str:
    """`enforcing`, `permissive` or "" without SELinux."""
    try:
        with open("/sys/fs/selinux/enforce", encoding="ascii") as file:
            return "enforcing" if file.read(1) == "1" else "permissive"
    except OSError:
        return ""


def has_nftables() -> bool:
    """Whether netfilter can be talked to at all; its tables are loaded as modules on demand."""
    try:
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER).close()
    except OSError:
        return False
    return os.path.exists("/proc/net/netfilter")


def has_ipv6() -> bool:
    """Whether the kernel has IPv6, switched on."""
    return os.path.exists("/proc/net/if_inet6")
