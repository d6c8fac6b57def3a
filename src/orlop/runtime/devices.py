"""/dev of a container: our own tmpfs with the default nodes, terminals and queues.

Built on a directory of ours, never on what the image has there: the image's /dev is covered.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence

from orlop.kernel import mount
from orlop.kernel.openat import RootedDir
from orlop.runtime.rootfs import attach_filesystem
from orlop.runtime.spec import DeviceSpec

__all__ = [
    "DEFAULT_DEVICES",
    "add_devices",
    "attach_console",
    "host_devices",
    "mount_dev",
    "mount_dev_children",
    "new_shared_memory",
]

DEFAULT_DEVICES = (
    DeviceSpec("/dev/null", "c", 1, 3),
    DeviceSpec("/dev/zero", "c", 1, 5),
    DeviceSpec("/dev/full", "c", 1, 7),
    DeviceSpec("/dev/random", "c", 1, 8),
    DeviceSpec("/dev/urandom", "c", 1, 9),
    DeviceSpec("/dev/tty", "c", 5, 0),
)
_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "core": "/proc/kcore",
    "ptmx": "pts/ptmx",
}
_TTY_GROUP = "5"
_NOT_FOR_CONTAINERS = frozenset(
    {"pts", "shm", "fd", "mqueue", "console", ".lxc", ".lxd-mounts", ".udev", "hugepages"}
)


def mount_dev(root: RootedDir) -> int:
    """A fresh /dev with its links; returns its fd."""
    fd = mount.new_filesystem(
        "tmpfs", {"source": "tmpfs", "mode": "0755", "size": "65536k"}, mount.MOUNT_ATTR_NOSUID
    )
    for name, target in _LINKS.items():
        os.symlink(target, name, dir_fd=fd)
    attach_filesystem(root, "/dev", fd)
    return fd


def mount_dev_children(dev_fd: int, *, shm_fd: int, covered: frozenset[str]) -> int:
    """devpts, shm and mqueue below /dev; returns the fd of devpts, whose terminals are the container's.

    Args:
        dev_fd: the container's /dev, as `mount_dev` returned it.
        shm_fd: what becomes /dev/shm, -1 for nothing; closed here.
        covered: targets that requested mounts will cover; not mounted here.
    """
    safe = mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NOEXEC
    options: dict[str, str | bytes | None] = {
        "source": "devpts",
        "newinstance": None,
        "ptmxmode": "0666",
        "mode": "0620",
        "gid": _TTY_GROUP,
    }
    devpts = mount.new_filesystem("devpts", options, safe)
    _attach_below(dev_fd, "pts", devpts)
    if "/dev/mqueue" not in covered:
        queues = mount.new_filesystem("mqueue", {"source": "mqueue"}, safe | mount.MOUNT_ATTR_NODEV)
        _attach_below(dev_fd, "mqueue", queues)
        os.close(queues)
    if shm_fd >= 0:
        if "/dev/shm" not in covered:
            _attach_below(dev_fd, "shm", shm_fd)
        os.close(shm_fd)
    return devpts


def new_shared_memory(size_bytes: int) -> int:
    """A detached tmpfs for /dev/shm."""
    options: dict[str, str | bytes | None] = {"source": "shm", "mode": "1777", "size": str(size_bytes)}
    safe = mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NOEXEC | mount.MOUNT_ATTR_NODEV
    return mount.new_filesystem("tmpfs", options, safe)


def _attach_below(dev_fd: int, name: str, fd: int) -> None:
    os.mkdir(name, 0o755, dir_fd=dev_fd)
    target = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dev_fd)
    try:
        mount.attach(fd, target)
    finally:
        os.close(target)


def add_devices(root: RootedDir, devices: Sequence[DeviceSpec]) -> None:
    """Create device nodes with exactly their mode and owner; what is there already is replaced."""
    for device in devices:
        kind = stat.S_IFBLK if device.kind == "b" else stat.S_IFCHR
        head, _, name = device.path.rpartition("/")
        parent = root.mkdirs(head or "/")
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=parent)
            # umask is 0 here, so the node is born with its mode.
            os.mknod(name, kind | device.mode, os.makedev(device.major, device.minor), dir_fd=parent)
            if device.uid or device.gid:
                os.chown(name, device.uid, device.gid, dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(parent)


def attach_console(dev_fd: int, terminal_fd: int) -> None:
    """Make /dev/console the container's terminal."""
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    os.close(os.open("console", flags, 0o620, dir_fd=dev_fd))
    target = os.open("console", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dev_fd)
    copy = mount.detach(terminal_fd)
    try:
        mount.attach(copy, target)
    finally:
        os.close(copy)
        os.close(target)


def host_devices() -> list[DeviceSpec]:
    """Every device node of the host's /dev: what a privileged container gets."""
    return list(_walk_devices("/dev"))


def _walk_devices(directory: str) -> Iterator[DeviceSpec]:
    try:
        entries = list(os.scandir(directory))
    except OSError:
        return
    for entry in entries:
        if entry.name in _NOT_FOR_CONTAINERS:
            continue
        with contextlib.suppress(OSError):  # devices come and go
            if entry.is_dir(follow_symlinks=False):
                yield from _walk_devices(entry.path)
                continue
            status = entry.stat(follow_symlinks=False)
            mode, device = status.st_mode, status.st_rdev
            if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
                kind = "b" if stat.S_ISBLK(mode) else "c"
                major, minor = os.major(device), os.minor(device)
                yield DeviceSpec(
                    entry.path, kind, major, minor, stat.S_IMODE(mode), status.st_uid, status.st_gid
                )
