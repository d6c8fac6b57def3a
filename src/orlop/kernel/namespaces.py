"""Namespaces: unshare, setns, the CLONE_* flags and the identity of a namespace."""

from __future__ import annotations

import os
from typing import NamedTuple

from orlop.kernel.syscall import INT, SystemCall

__all__ = [
    "CLONE_INTO_CGROUP",
    "CLONE_NEWCGROUP",
    "CLONE_NEWIPC",
    "CLONE_NEWNET",
    "CLONE_NEWNS",
    "CLONE_NEWPID",
    "CLONE_NEWTIME",
    "CLONE_NEWUSER",
    "CLONE_NEWUTS",
    "CLONE_PARENT",
    "CLONE_PIDFD",
    "FLAG_OF_KIND",
    "TIME_FLAG",
    "NamespaceId",
    "namespace_id",
    "open_namespace",
    "setns",
    "unshare",
]

# include/uapi/linux/sched.h
CLONE_NEWTIME = 0x00000080
CLONE_FS = 0x00000200
CLONE_FILES = 0x00000400
CLONE_PIDFD = 0x00001000
CLONE_PARENT = 0x00008000
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_INTO_CGROUP = 0x200000000

TIME_FLAG = CLONE_NEWTIME if os.path.exists("/proc/self/ns/time") else 0
"""Of a time namespace, where the kernel has them (Linux 5.6); clone3 takes it, clone does not."""

FLAG_OF_KIND = {
    "mnt": CLONE_NEWNS,
    "pid": CLONE_NEWPID,
    "net": CLONE_NEWNET,
    "ipc": CLONE_NEWIPC,
    "uts": CLONE_NEWUTS,
    "cgroup": CLONE_NEWCGROUP,
    "user": CLONE_NEWUSER,
    "time": CLONE_NEWTIME,
}
"""Names in /proc/<pid>/ns and their flags."""

_unshare = SystemCall("unshare", INT)
_setns = SystemCall("setns", INT, INT)


class NamespaceId(NamedTuple):
    """What identifies a namespace while it lives: two equal ids are one namespace."""

    device: int
    inode: int


def unshare(flags: int) -> None:
    """Move the calling thread into new namespaces; CLONE_NEWPID takes effect for children only."""
    _unshare(flags)


def setns(fd: int, flags: int = 0) -> None:
    """Enter the namespace of `fd`, or with a pidfd all those named by `flags` at once (Linux 5.8).

    A mount namespace also moves root and cwd to that namespace's root. The thread must not
    share its file system state with others.
    """
    _setns(fd, flags)


def open_namespace(pid: int | str, kind: str) -> int:
    """An fd that keeps the namespace alive; the caller closes it. `kind` is a key of FLAG_OF_KIND."""
    return os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)


def namespace_id(namespace: int | str, kind: str | None = None) -> NamespaceId:
    """The id of a namespace given as an fd or path, or of a process (`pid`, `kind`)."""
    target = namespace if kind is None else f"/proc/{namespace}/ns/{kind}"
    status = os.stat(target)
    return NamespaceId(status.st_dev, status.st_ino)
