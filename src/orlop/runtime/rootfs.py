"""The container's file tree: mounted by descriptors only, before anything of it can run.

Order: sources on the host are opened, then the namespace is cut off from the host's, then
the root is mounted, then everything is attached to descriptors that were resolved inside
the new root. No mount call here takes a path that an image or volume could influence (I2).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from orlop.kernel import filesystems, mount
from orlop.kernel.openat import RootedDir
from orlop.runtime.mountopts import MountOptions, parse_options
from orlop.runtime.spec import ContainerSpec, MountSpec, RootSpec

__all__ = [
    "MountRefused",
    "Source",
    "add_mounts",
    "attach_filesystem",
    "ensure_target",
    "enter_root",
    "make_read_only",
    "mask",
    "mount_root",
    "new_empty_directory",
    "new_sys",
    "open_null",
    "open_sources",
    "options_of",
    "pivot_into",
]

_TMPFS_BASE = mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV | mount.MOUNT_ATTR_NOEXEC
_MAX_LINKS = 40
# What tools such as lxcfs may put over the container's own procfs (runc allows the same).
_PROC_TARGETS = frozenset(
    "/proc/cpuinfo /proc/diskstats /proc/meminfo /proc/stat /proc/swaps /proc/uptime /proc/loadavg "
    "/proc/slabinfo /proc/net/dev /proc/sys/kernel/ns_last_pid /proc/sys/crypto/fips_enabled".split()
)


class MountRefused(OSError):
    """A mount that would weaken the container; the text says why."""


@dataclass(frozen=True, slots=True)
class Source:
    """A requested mount with its host side already held: a detached mount for a bind, else -1."""

    spec: MountSpec
    options: MountOptions
    fd: int = -1


def open_sources(mounts: Sequence[MountSpec]) -> list[Source]:
    """Hold the host side of every mount; to be called while the host's mounts are still visible."""
    opened = []
    # Parents before what is mounted inside them, as Docker sorts.
    for spec in sorted(mounts, key=lambda item: item.target.rstrip("/").count("/")):
        options = options_of(spec)
        is_bind = spec.kind == "bind"
        fd = mount.detach(spec.source, is_recursive=options.is_recursive) if is_bind else -1
        opened.append(Source(spec, options, fd))
    return opened


def options_of(spec: MountSpec) -> MountOptions:
    """The words of a mount; a new file system is closed unless they open it, and has words of its own."""
    if spec.kind == "bind":
        return parse_options(spec.options)
    return parse_options(spec.options, base=_TMPFS_BASE, takes_data=True)


def open_null() -> int:
    """A detached mount of the host's null device, verified: what hidden files are covered with."""
    fd = mount.detach("/dev/null")
    status = os.fstat(fd)
    if not stat.S_ISCHR(status.st_mode) or status.st_rdev != os.makedev(1, 3):
        raise MountRefused(errno.EINVAL, "the host's /dev/null is not the null device")
    # The inode is the host's: its mode must not be the container's to change.
    safe = mount.MOUNT_ATTR_RDONLY | mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NOEXEC
    mount.mount_setattr(fd, set_attributes=safe)
    return fd


def mount_root(root: RootSpec, place: str) -> int:
    """Mount the overlay at `place`, a directory of ours; returns the mount's fd."""
    attributes = 0
    fd = filesystems.overlay_fd(root.lowers, root.upper, root.work, attributes=attributes)
    mount.attach(fd, place)
    return fd


def ensure_target(root: RootedDir, path: str, *, is_directory: bool) -> int:
    """An O_PATH fd of the place for a mount, made if missing, links followed inside the root."""
    if is_directory:
        return root.mkdirs(path)
    for _ in range(_MAX_LINKS):
        try:
            return root.path_fd(path)
        except FileNotFoundError:
            pass
        try:
            link = os.fsdecode(root.readlink(path))
        except FileNotFoundError:
            return _make_file(root, path)
        path = link if link.startswith("/") else f"{os.path.dirname(path)}/{link}"
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)


def _make_file(root: RootedDir, path: str) -> int:
    head, _, name = path.rstrip("/").rpartition("/")
    parent = root.mkdirs(head or "/")
    try:
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        with contextlib.suppress(FileExistsError):  # a sharer of the volume was faster: use theirs
            os.close(os.open(name, flags, 0o755, dir_fd=parent))
        return os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    finally:
        os.close(parent)


def new_sys(*, is_writable: bool) -> int:
    """A detached sysfs; it shows the network devices of the present namespace."""
    flags = _TMPFS_BASE | (0 if is_writable else mount.MOUNT_ATTR_RDONLY)
    return mount.new_filesystem("sysfs", {"source": "sysfs"}, flags)


def attach_filesystem(root: RootedDir, path: str, fd: int) -> None:
    """Attach one of our own file systems (proc, dev, sys) at a plain directory of the root.

    Raises:
        MountRefused: the image has something else there, a link for example.
    """
    try:
        target = root.path_fd(path, follow=False)
    except FileNotFoundError:
        target = root.mkdirs(path)
    try:
        if not stat.S_ISDIR(os.fstat(target).st_mode):
            raise MountRefused(errno.ENOTDIR, "must be mounted on ordinary directory", path)
        mount.attach(fd, target)
    finally:
        os.close(target)


def add_mounts(root: RootedDir, sources: Sequence[Source], proc_device: int) -> None:
    """Attach the requested mounts; `proc_device` is the st_dev of the container's procfs."""
    for source in sources:
        try:
            _add_mount(root, source, proc_device)
        except OSError as error:
            if isinstance(error, MountRefused):
                raise
            what = source.spec.source or source.spec.kind
            text = f'error mounting "{what}" to rootfs at "{source.spec.target}": {error.strerror}'
            raise OSError(error.errno, text) from error


def _add_mount(root: RootedDir, source: Source, proc_device: int) -> None:
    is_bind = source.spec.kind == "bind"
    is_directory = not is_bind or stat.S_ISDIR(os.fstat(source.fd).st_mode)
    existing_mode = None if is_bind else _mode_of(root, source.spec.target)
    target = ensure_target(root, source.spec.target, is_directory=is_directory)
    try:
        if (
            os.fstat(target).st_dev == proc_device
            and os.path.normpath(source.spec.target) not in _PROC_TARGETS
        ):
            raise MountRefused(
                errno.EPERM, f'"{source.spec.target}" cannot be mounted because it is inside /proc'
            )
        fd = source.fd if is_bind else _new_filesystem(source, existing_mode)
        if is_bind:
            set_bind_attributes(fd, source.options)
        mount.attach(fd, target)
        if source.options.propagation not in (None, "private"):
            mount.mount_setattr(fd, propagation=source.options.propagation, is_recursive=True)
        os.close(fd)
    finally:
        os.close(target)


def _mode_of(root: RootedDir, path: str) -> int | None:
    try:
        return stat.S_IMODE(root.stat(path).st_mode)
    except OSError:
        return None


def _new_filesystem(source: Source, existing_mode: int | None) -> int:
    """Make a tmpfs or mqueue. A tmpfs takes over the mode of the directory that it covers, as in Docker."""
    kind = source.spec.kind
    if kind not in {"tmpfs", "mqueue"}:
        raise OSError(errno.EINVAL, f"unknown kind of mount {kind!r}")
    data: dict[str, str | bytes | None] = {"source": kind, **source.options.data}
    if kind == "tmpfs" and existing_mode is not None:
        data.setdefault("mode", f"{existing_mode:o}")
    return mount.new_filesystem(kind, data, source.options.set_attributes)


def set_bind_attributes(fd: int, options: MountOptions) -> None:
    """Read-only reaches every mount below; the other words apply to the top, as mount(8) has it."""
    if options.propagation in (None, "private"):
        mount.mount_setattr(fd, propagation="private", is_recursive=True)
    if options.set_attributes or options.clear_attributes:
        mount.mount_setattr(
            fd, set_attributes=options.set_attributes, clear_attributes=options.clear_attributes
        )
    if options.is_read_only and options.is_recursive and not options.is_top_only:
        mount.mount_setattr(fd, set_attributes=mount.MOUNT_ATTR_RDONLY, is_recursive=True)


def mask(root: RootedDir, paths: Sequence[str], null_fd: int, empty_fd: int = -1) -> None:
    """Hide paths: files behind the null device, directories behind one empty read-only tmpfs.

    `empty_fd` is that tmpfs if it is there already.
    """
    null = _Cover(lambda: null_fd)
    empty = _Cover(new_empty_directory if empty_fd < 0 else lambda: empty_fd)
    for path in paths:
        try:
            target = root.path_fd(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        try:
            cover = empty if stat.S_ISDIR(os.fstat(target).st_mode) else null
            cover.put_over(target)
        finally:
            os.close(target)


class _Cover:
    """A mount put over many places: attached once, and from then on copied.

    Kernels before 6.15 copy only what is attached in our own namespace.
    """

    def __init__(self, make: Callable[[], int]) -> None:
        self._make = make
        self._fd = -1

    def put_over(self, target: int) -> None:
        if self._fd < 0:
            self._fd = self._make()
            mount.attach(self._fd, target)
            return
        copy = mount.detach(self._fd)
        try:
            mount.attach(copy, target)
        finally:
            os.close(copy)


def new_empty_directory() -> int:
    """A detached tmpfs that stays empty."""
    options: dict[str, str | bytes | None] = {"source": "tmpfs", "size": "4k", "mode": "0555"}
    return mount.new_filesystem("tmpfs", options, mount.MOUNT_ATTR_RDONLY | _TMPFS_BASE)


def make_read_only(root: RootedDir, paths: Sequence[str]) -> None:
    """Put a read-only view of each path over itself."""
    for path in paths:
        try:
            target = root.path_fd(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        try:
            copy = mount.detach(target, is_recursive=True)
            try:
                mount.mount_setattr(copy, set_attributes=mount.MOUNT_ATTR_RDONLY, is_recursive=True)
                mount.attach(copy, target)
            finally:
                os.close(copy)
        finally:
            os.close(target)


def enter_root(root_fd: int, spec: ContainerSpec) -> None:
    """Make the mount the root of this namespace; nothing of the host stays reachable."""
    if spec.root.is_read_only:
        mount.mount_setattr(root_fd, set_attributes=mount.MOUNT_ATTR_RDONLY)
    pivot_into(root_fd)


def pivot_into(root_fd: int) -> None:
    """Change the root of this mount namespace to an attached mount, and let go of the old one."""
    os.fchdir(root_fd)
    mount.pivot_root(".", ".")
    # The old root lies on top of the new one now; taken away with all that is below it.
    mount.umount2(".", mount.MNT_DETACH)
    os.chdir("/")
