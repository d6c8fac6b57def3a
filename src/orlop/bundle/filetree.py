"""The container's tree from the mounts of a config.json, in their order, by descriptors only.

Runs in init, after the host's side was opened (`sources.py`) and before the pivot; the root and
all that is reached in it may be hostile, so targets are resolved inside it (I2).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Sequence

from orlop.bundle.config_linux import Device
from orlop.bundle.mountwords import MountPlan
from orlop.kernel import mount
from orlop.kernel.openat import RootedDir
from orlop.runtime import cgroupfs, devices
from orlop.runtime.rootfs import MountRefused, ensure_target
from orlop.runtime.spec import DeviceSpec

__all__ = ["add_mount", "attach_root", "make_devices", "make_links"]

_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
}
# What tools such as lxcfs may put over the container's own procfs (runc allows the same).
_PROC_TARGETS = frozenset(
    "cpuinfo diskstats meminfo stat swaps uptime loadavg slabinfo net/dev sys/kernel/ns_last_pid "
    "sys/crypto/fips_enabled".split()
)
_PLACES_FOR_ROOT = ("/sys", "/dev", "/usr")
_COPY_BYTES = 1 << 20


def attach_root(fd: int, path: str) -> None:
    """Attach the root where it lies or, when a user namespace hides that, at another directory."""
    for place in (path, *_PLACES_FOR_ROOT):
        try:
            mount.attach(fd, place)
        except (PermissionError, FileNotFoundError):
            continue
        return
    raise OSError(errno.EACCES, "no directory can be reached to mount the root at", path)


def add_mount(root: RootedDir, item: MountPlan, source_fd: int, cgroups: cgroupfs.Sources | None) -> int:
    """Attach one mount; returns its descriptor, -1 for cgroups."""
    try:
        if item.kind == "cgroup":
            _add_cgroups(root, item, cgroups)
            return -1
        return _add(root, item, source_fd)
    except MountRefused:
        raise
    except OSError as error:
        what = item.source or item.kind
        text = f'error mounting "{what}" to rootfs at "{item.destination}": {error.strerror}'
        raise OSError(error.errno, text) from error


def _add(root: RootedDir, item: MountPlan, source_fd: int) -> int:
    is_directory = not item.is_bind or stat.S_ISDIR(os.fstat(source_fd).st_mode)
    is_new = item.kind == "tmpfs" and not _exists(root, item.destination)
    below_proc = item.destination.removeprefix("/proc/")
    if item.kind in {"proc", "sysfs"}:
        target = _plain_directory(root, item.destination)
    else:
        target = ensure_target(root, item.destination, is_directory=is_directory)
    try:
        if _is_procfs(target) and below_proc not in _PROC_TARGETS and item.destination != "/proc":
            text = f'"{item.destination}" cannot be mounted because it is inside /proc'
            raise MountRefused(errno.EPERM, text)
        fd = source_fd if item.is_bind else _new(item, target, has_mode=not is_new)
        mount.attach(fd, target)
    finally:
        os.close(target)
    if item.options.propagation is not None:
        mount.mount_setattr(
            fd, propagation=item.options.propagation, is_recursive=item.is_recursive_propagation
        )
    if not item.is_bind and (item.recursive_set or item.recursive_clear):
        mount.mount_setattr(fd, set_attributes=item.recursive_set, clear_attributes=item.recursive_clear)
    return fd


def _plain_directory(root: RootedDir, path: str) -> int:
    """Never mount proc and sys through a link of the image (CVE-2019-19921)."""
    try:
        target = root.path_fd(path, follow=False)
    except FileNotFoundError:
        target = root.mkdirs(path)
    if not stat.S_ISDIR(os.fstat(target).st_mode):
        os.close(target)
        raise MountRefused(errno.ENOTDIR, f'filesystem at "{path}" must be mounted on ordinary directory')
    return target


def _is_procfs(fd: int) -> bool:
    status = os.fstat(fd)
    # procfs has an anonymous device and its root is inode 1; its files are never on a disk.
    return os.major(status.st_dev) == 0 and status.st_dev in _proc_devices


_proc_devices: set[int] = set()


def _exists(root: RootedDir, path: str) -> bool:
    try:
        root.stat(path)
    except OSError:
        return False
    return True


def _new(item: MountPlan, target: int, *, has_mode: bool) -> int:
    """A tmpfs takes over the mode of the directory that it covers, if there was one."""
    data: dict[str, str | bytes | None] = {"source": item.source or item.kind}
    data.update(item.options.data)
    if item.kind == "tmpfs" and "mode" not in data and has_mode:
        data["mode"] = f"{stat.S_IMODE(os.fstat(target).st_mode):o}"
    attributes = item.options.set_attributes
    if item.kind == "tmpfs":
        attributes &= ~mount.MOUNT_ATTR_RDONLY  # it is filled first
    fd = mount.new_filesystem(item.kind, data, attributes)
    if item.kind == "proc":
        _proc_devices.add(os.fstat(fd).st_dev)
    if item.copies_up:
        _copy_tree(target, fd)
    return fd


def _copy_tree(source_fd: int, target_fd: int) -> None:
    """What the image has at the place goes into the tmpfs (tmpcopyup): files, directories, links."""
    names = os.listdir(fd := os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=source_fd))
    try:
        for name in names:
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            mode = stat.S_IMODE(status.st_mode)
            if stat.S_ISDIR(status.st_mode):
                os.mkdir(name, 0o700, dir_fd=target_fd)
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                below, copy = (os.open(name, flags, dir_fd=place) for place in (fd, target_fd))
                _copy_tree(below, copy)
                os.close(below)
                os.close(copy)
            elif stat.S_ISLNK(status.st_mode):
                os.symlink(os.readlink(name, dir_fd=fd), name, dir_fd=target_fd)
            elif stat.S_ISREG(status.st_mode):
                _copy_file(name, fd, target_fd)
            else:
                continue
            os.chown(name, status.st_uid, status.st_gid, dir_fd=target_fd, follow_symlinks=False)
            if not stat.S_ISLNK(status.st_mode):
                os.chmod(name, mode, dir_fd=target_fd)
    finally:
        os.close(fd)


def _copy_file(name: str, source_fd: int, target_fd: int) -> None:
    flags = os.O_NOFOLLOW | os.O_CLOEXEC
    source = os.open(name, os.O_RDONLY | os.O_NONBLOCK | flags, dir_fd=source_fd)
    copy = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | flags, 0o600, dir_fd=target_fd)
    try:
        while chunk := os.read(source, _COPY_BYTES):
            view = memoryview(chunk)
            while view:
                view = view[os.write(copy, view) :]
    finally:
        os.close(source)
        os.close(copy)


def _add_cgroups(root: RootedDir, item: MountPlan, cgroups: cgroupfs.Sources | None) -> None:
    if cgroups is None:
        raise OSError(errno.ENODEV, "this host has no cgroups")
    os.close(root.mkdirs(item.destination))
    cgroupfs.attach(root, cgroups, is_writable=not item.options.is_read_only, path=item.destination)


def make_devices(root: RootedDir, nodes: Sequence[Device], held: dict[int, int]) -> None:
    """Make the nodes, or attach those of the host that `held` has for them."""
    for index, node in enumerate(nodes):
        if index in held:
            target = ensure_target(root, node.path, is_directory=False)
            try:
                mount.attach(held[index], target)
            finally:
                os.close(target)
        elif node.kind == "p":
            parent, name = root.parent(node.path)
            with contextlib.suppress(FileExistsError):
                os.mkfifo(name, 0o666 if node.mode is None else node.mode, dir_fd=parent)
                os.chown(name, node.uid, node.gid, dir_fd=parent, follow_symlinks=False)
            os.close(parent)
        else:
            mode = 0o666 if node.mode is None else stat.S_IMODE(node.mode)
            kind = "b" if node.kind == "b" else "c"
            spec = DeviceSpec(node.path, kind, node.major, node.minor, mode, node.uid, node.gid)
            devices.add_devices(root, [spec])


def make_links(root: RootedDir) -> None:
    """The links of /dev that programs expect; what is there already stays."""
    links = dict(_LINKS)
    with contextlib.suppress(OSError):
        root.stat("/proc/kcore", follow=False)
        links["core"] = "/proc/kcore"
    parent = root.mkdirs("/dev")
    try:
        for name, target in links.items():
            with contextlib.suppress(FileExistsError):
                os.symlink(target, name, dir_fd=parent)
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):
            os.unlink("ptmx", dir_fd=parent)
        with contextlib.suppress(FileExistsError):
            os.symlink("pts/ptmx", "ptmx", dir_fd=parent)
    finally:
        os.close(parent)
