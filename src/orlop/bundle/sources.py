"""What a container gets of the host, held as detached mounts before its namespaces exist.

Made by the command in the host's mount namespace with the host's privileges: what a container's
user could not open, or id-map, is ready when init attaches it. Spec: config.md, "Mounts".
"""

from __future__ import annotations

import errno
import os
import signal
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from orlop.bundle.lowering import ContainerPlan, MapTriple
from orlop.bundle.mountwords import MountPlan
from orlop.bundle.refusal import Unsupported
from orlop.kernel import mount, userns
from orlop.kernel.clone import clone3
from orlop.kernel.namespaces import CLONE_NEWUSER
from orlop.procs.channel import channel_pair, close_all
from orlop.runtime.rootfs import open_null

__all__ = ["Sources", "comes_from_root", "open_sources", "prepare_bind"]


@dataclass(slots=True)
class Sources:
    """Descriptors: the root, binds by their index, devices by theirs, the null device."""

    root: int
    binds: dict[int, int]
    devices: dict[int, int]
    null: int

    def descriptors(self) -> list[int]:
        """All of them."""
        return [self.root, self.null, *self.binds.values(), *self.devices.values()]

    def close(self) -> None:
        """Give everything back."""
        close_all(fd for fd in self.descriptors() if fd >= 0)


def open_sources(plan: ContainerPlan) -> Sources:
    """Open everything; relative sources start at the bundle.

    Raises:
        OSError: a source is not there; the text names it.
    """
    sources = Sources(-1, {}, {}, -1)
    try:
        sources.root = _open_root(plan)
        sources.null = open_null()
        for index, item in enumerate(plan.mounts):
            if item.is_bind and not comes_from_root(plan, item):
                sources.binds[index] = _told(item, lambda item=item: _open_bind(plan, item))  # type: ignore[misc]
        if plan.has_user_namespace:  # its root may not make nodes: it gets the host's
            for index, device in enumerate(plan.devices):
                sources.devices[index] = _open_device(device.path, device.major, device.minor)
    except BaseException:
        sources.close()
        raise
    return sources


def comes_from_root(plan: ContainerPlan, item: MountPlan) -> str:
    """Where in the container's root the source is, if it is there: earlier mounts may cover it."""
    source = os.path.normpath(os.path.join(plan.bundle, item.source))
    return "" if item.idmap or not source.startswith(f"{plan.rootfs}/") else source[len(plan.rootfs) :]


def _open_root(plan: ContainerPlan) -> int:
    if not os.path.isdir(plan.rootfs):
        raise OSError(errno.ENOENT, f'invalid rootfs: "{plan.rootfs}" is no directory')
    fd = mount.detach(plan.rootfs, is_recursive=True)
    mount.mount_setattr(fd, propagation=_received(plan), is_recursive=True)
    return fd


def _received(plan: ContainerPlan) -> mount.Propagation:
    """Whether later mounts on the host arrive: they do, unless told otherwise."""
    return "private" if plan.config.linux.rootfs_propagation.endswith("private") else "slave"


def _told(item: MountPlan, action: Callable[[], int]) -> int:
    try:
        return action()
    except OSError as error:
        text = f'error mounting "{item.source}" to rootfs at "{item.destination}": {error.strerror}'
        raise OSError(error.errno, text) from error


def _open_bind(plan: ContainerPlan, item: MountPlan) -> int:
    source = os.path.join(plan.bundle, item.source)
    options = item.options
    return prepare_bind(plan, item, mount.detach(source, is_recursive=options.is_recursive))


def prepare_bind(plan: ContainerPlan, item: MountPlan, fd: int) -> int:
    """Give a detached mount its attributes; returns it, and closes it when that fails."""
    options = item.options
    try:
        propagation = options.propagation or _received(plan)
        if propagation != "shared":  # a copy of a shared mount is shared
            received: mount.Propagation = "slave" if propagation == "slave" else "private"
            mount.mount_setattr(fd, propagation=received, is_recursive=True)
        if options.set_attributes or options.clear_attributes:
            mount.mount_setattr(
                fd, set_attributes=options.set_attributes, clear_attributes=options.clear_attributes
            )
        if item.recursive_set or item.recursive_clear:
            mount.mount_setattr(
                fd,
                set_attributes=item.recursive_set,
                clear_attributes=item.recursive_clear,
                is_recursive=True,
            )
        if item.idmap:
            _idmap(fd, plan, item)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _idmap(fd: int, plan: ContainerPlan, item: MountPlan) -> None:
    uids, gids = item.uid_mappings or plan.uid_map, item.gid_mappings or plan.gid_map
    user = plan.config.linux.namespace("user")
    if uids:
        namespace = _user_namespace(uids, gids)
    elif user is not None:
        namespace = os.open(user.path, os.O_RDONLY | os.O_CLOEXEC)
    else:
        raise Unsupported(f"mount at {item.destination}: idmap without mappings needs a user namespace")
    try:
        mount.mount_setattr(fd, userns_fd=namespace, is_recursive=item.idmap == "ridmap")
    finally:
        os.close(namespace)


def _user_namespace(uids: Iterable[MapTriple], gids: Iterable[MapTriple]) -> int:
    """A namespace that is only its maps; its one inhabitant ends at once."""
    ours, theirs = channel_pair()
    pid, pidfd = clone3(CLONE_NEWUSER)
    if pid == 0:
        ours.close()  # or we would wait for ourselves
        theirs.receive()
        os._exit(0)
    try:
        theirs.close()
        userns.write_maps(pid, uids, gids)
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        ours.close()
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(pidfd)


def _open_device(path: str, major: int, minor: int) -> int:
    fd = mount.detach(path)
    status = os.fstat(fd)
    is_device = stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)
    if not is_device or status.st_rdev != os.makedev(major, minor):
        os.close(fd)
        raise Unsupported(
            f"{path} of the host is not the device {major}:{minor}, as a user namespace needs it"
        )
    return fd
