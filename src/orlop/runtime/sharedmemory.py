"""/dev/shm of the container whose IPC namespace is joined: System V and POSIX memory go together."""

from __future__ import annotations

import errno
import os
import re

from orlop.kernel import mount
from orlop.kernel.namespaces import CLONE_NEWNS, setns
from orlop.kernel.openat import RootedDir

__all__ = ["open_shared_memory"]

_IPC_OF_PROCESS = re.compile(r"/proc/([1-9][0-9]*)/ns/ipc\Z")


def open_shared_memory(ipc: str) -> int:
    """A detached copy of the other container's /dev/shm, or -1 when it has none that can be shared.

    Goes into the other mount namespace and back, so only raw system calls are made in between.

    Args:
        ipc: the namespace as the spec names it; only `/proc/<pid>/ns/ipc` leads to a container.
    """
    match = _IPC_OF_PROCESS.match(ipc)
    if match is None:
        return -1
    flags = os.O_RDONLY | os.O_CLOEXEC
    own = os.open("/proc/self/ns/mnt", flags)
    other = os.open(f"/proc/{match[1]}/ns/mnt", flags)
    try:
        setns(other, CLONE_NEWNS)
        return _detach_mount_point("/dev/shm")
    except FileNotFoundError:
        return -1
    finally:
        setns(own, CLONE_NEWNS)
        os.close(own)
        os.close(other)


def _detach_mount_point(path: str) -> int:
    """A copy of what is mounted at `path` in the present namespace.

    Raises:
        OSError: EXDEV when nothing is mounted there: a plain directory is the image's, not memory.
    """
    with RootedDir(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as root:
        fd = root.path_fd(path, follow=False)
        parent = root.path_fd(os.path.dirname(path), follow=False)
        try:
            if os.fstat(fd).st_dev == os.fstat(parent).st_dev:
                raise OSError(errno.EXDEV, "the joined container has no shared memory mount", path)
            return mount.detach(fd)
        finally:
            os.close(fd)
            os.close(parent)
