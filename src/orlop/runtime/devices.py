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
from orlop.runtime.spec import DeviceSpec

__all__ = [
    "DEFAULT_DEVICES",
    "add_devices",
    "attach_console",
    "host_devices",
    "mount_dev_children",
    "new_dev",
    "new_queues",
    "new_shared_memory",
    "new_terminals",
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


def new_dev(nodes: Sequence[DeviceSpec] = ()) -> int:
    """A fresh detached /dev with its links and `nodes` (directly in it). The umask must be 0."""
    fd = mount.new_filesystem(
        "tmpfs", {"source": "tmpfs", "mode": "0755", "size": "65536k"}, mount.MOUNT_ATTR_NOSUID
    )
    for name, target in _LINKS.items():
        if name != "core" or os.path.lexists(target):  # not every kernel has it
            os.symlink(target, name, dir_fd=fd)
    for node in nodes:
        _make_node(node, os.path.basename(node.path), fd)
    return fd


def new_terminals() -> int:
    """A detached devpts of its own."""
    safe = mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NOEXEC
    options: dict[str, str | bytes | None] = {
        "source": "devpts",
        "newinstance": None,
        "ptmxmode": "0666",
        "mode": "0620",
        "gid": _TTY_GROUP,
    }
    return mount.new_filesystem("devpts", options, safe)


def new_queues() -> int:
    """A detached mqueue of the present IPC namespace."""
    safe = mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NOEXEC | mount.MOUNT_ATTR_NODEV
    return mount.new_filesystem("mqueue", {"source": "mqueue"}, safe)


def mount_dev_children(
    dev_fd: int, *, devpts: int, queues: int, shm_fd: int, covered: frozenset[str]
) -> None:
    """devpts, shm and mqueue below /dev.

    Args:
        dev_fd: the container's /dev, attached.
        devpts: from `new_terminals`; stays the caller's.
        queues: from `new_queues`, or -1 to make one; closed here.
        shm_fd: what becomes /dev/shm, -1 for nothing; closed here.
        covered: targets that requested mounts will cover; not mounted here.
    """
    _attach_below(dev_fd, "pts", devpts)
    if "/dev/mqueue" not in covered:
        queues = new_queues() if queues < 0 else queues
        _attach_below(dev_fd, "mqueue", queues)
    if queues >= 0:
        os.close(queues)
    if shm_fd >= 0:
        if "/dev/shm" not in covered:
            _attach_below(dev_fd, "shm", shm_fd)
        os.close(shm_fd)


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
        head, _, name = device.path.rpartition("/")
        parent = root.mkdirs(head or "/")
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=parent)
            _make_node(device, name, parent)
        finally:
            os.close(parent)


def _make_node(device: DeviceSpec, name: str, parent: int) -> None:
    """The umask is 0 here, so the node is born with its mode."""
    kind = stat.S_IFBLK if device.kind == "b" else stat.S_IFCHR
    os.mknod(name, kind | device.mode, os.makedev(device.major, device.minor), dir_fd=parent)
    if device.uid or device.gid:
        os.chown(name, device.uid, device.gid, dir_fd=parent, follow_symlinks=False)


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
