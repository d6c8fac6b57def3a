"""The host side of a container with a user namespace: see `outside.py`.

A child of the supervisor with the host's privileges and a mount namespace to itself. It makes what
needs them as detached mounts, hands them to init, and ends. Nothing of the container runs yet, and
no path here is one that an image or a volume could influence.

A file keeps the container's ids on disk: layers, the writable directory and `idmap` binds are
mounted through the map, overlay asks its layers, and overlay itself belongs to the host. So commit,
diff, copy and a later start with another range find the ids that the container saw.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NoReturn

from orlop.kernel import capabilities, filesystems, mount, process, userns
from orlop.kernel.cgroup import Cgroup
from orlop.kernel.openat import RootedDir
from orlop.procs.channel import Channel
from orlop.procs.forker import CHANGED_SIGNALS, close_others, reset_signals, seal_imports
from orlop.runtime import cgroupfs, devices, outside, rootfs
from orlop.runtime.init import fail, requested_mounts
from orlop.runtime.mountopts import parse_options
from orlop.runtime.sharedmemory import open_shared_memory
from orlop.runtime.spec import ContainerSpec, DeviceSpec, MountSpec, RootSpec, UserNamespaceSpec

__all__ = ["run_host_side"]


def run_host_side(spec: ContainerSpec, cgroup: Cgroup, userns_fd: int, channel: Channel) -> NoReturn:
    """Make everything, send it and end."""
    try:
        seal_imports()
        reset_signals(CHANGED_SIGNALS)
        process.set_dumpable(is_dumpable=False)
        process.set_name("orlop-hostside")
        os.umask(0)
        close_others([channel.fileno(), userns_fd])
        outside.send(channel, _make(spec, cgroup, userns_fd))
    except BaseException as error:  # noqa: BLE001 - the process border
        fail(channel, "mount sources", error)
    os._exit(0)


def _make(spec: ContainerSpec, cgroup: Cgroup, userns_fd: int) -> outside.Made:
    assert spec.user_namespace is not None
    mounts = requested_mounts(spec)
    made = outside.Made(
        shm=open_shared_memory(spec.ipc),
        sources=_open_sources(mounts, userns_fd),
        null=rootfs.open_null(),
        cgroup=cgroupfs.open_sources(cgroup),
    )
    # Trees that are mapped are private copies; nothing that follows may reach the host's mounts.
    mount.mount_setattr("/", propagation="private", is_recursive=True)
    if "/dev" not in {item.target.rstrip("/") for item in mounts}:
        made.dev = _make_dev(spec)
    made.sources += _device_sources(spec)
    made.root = _make_root(spec.root, spec.run_dir, userns_fd, spec.user_namespace)
    return made


def _open_sources(mounts: list[MountSpec], userns_fd: int) -> list[rootfs.Source]:
    sources = rootfs.open_sources(mounts)
    for source in sources:
        if source.options.propagation == "shared":
            raise rootfs.MountRefused(
                1, f'"{source.spec.target}" shares its mounts with the host, which a user namespace forbids'
            )
        if source.options.is_mapped:
            _idmap(source.fd, userns_fd, source.spec.source, is_recursive=source.options.is_recursive)
    return sources


def _idmap(tree: int, userns_fd: int, what: str, *, is_recursive: bool = False) -> None:
    try:
        userns.idmap(tree, userns_fd, what, is_recursive=is_recursive)
    except userns.IdmapUnsupported as error:
        hint = "; use --userns=host, or noidmap for a bind"
        raise userns.IdmapUnsupported(error.errno, f"{error.strerror}{hint}") from error


def _make_root(root: RootSpec, place: str, userns_fd: int, own: UserNamespaceSpec) -> int:
    """The overlay, detached. Its layers are attached while it is made: older kernels want them so."""
    if not root.is_mapped:
        return filesystems.overlay_fd(root.lowers, root.upper, root.work)
    desk = mount.new_filesystem("tmpfs", {"source": "tmpfs", "mode": "0700", "size": "1m"})
    mount.attach(desk, place)
    map_one = _mapper(desk, place, userns_fd)
    lowers = [map_one(path) for path in root.lowers]
    upper = work = None
    if root.upper is not None and root.work is not None:
        home = os.path.dirname(root.upper)
        assert os.path.dirname(root.work) == home, "one mount must hold both"
        copy = map_one(home)
        upper, work = (f"{copy}/{os.path.basename(path)}" for path in (root.upper, root.work))
    with _writing_as(own):
        return filesystems.overlay_fd(lowers, upper, work)


@contextlib.contextmanager
def _writing_as(own: UserNamespaceSpec) -> Iterator[None]:
    """Overlay works in the writable directory as whoever mounted it, who needs an id that the map has."""
    sets = capabilities.current()
    process.set_fs_ids(outside.host_id(own.uids, 0), outside.host_id(own.gids, 0))
    capabilities.apply(sets)
    try:
        yield
    finally:
        process.set_fs_ids(0, 0)


def _mapper(desk: int, place: str, userns_fd: int) -> Callable[[str], str]:
    """A function that attaches a mapped copy of a directory and tells where."""
    names: dict[str, str] = {}

    def map_one(path: str) -> str:
        if path not in names:
            tree = mount.detach(path)
            try:
                _idmap(tree, userns_fd, path)
                name = str(len(names))
                os.mkdir(name, 0o700, dir_fd=desk)
                mount.attach(tree, f"{place}/{name}")
            finally:
                os.close(tree)
            names[path] = f"{place}/{name}"
        return names[path]

    return map_one


def _make_dev(spec: ContainerSpec) -> int:
    """/dev with its nodes: a file system of the host, or its nodes could not be opened."""
    fd = devices.new_dev(devices.DEFAULT_DEVICES)
    own = [item for item in spec.devices if item.path.startswith("/dev/")]
    with RootedDir(os.dup(fd)) as dev:
        devices.add_devices(dev, [replace(item, path=item.path.removeprefix("/dev")) for item in own])
    _give(fd, spec.user_namespace)
    return fd


def _give(tree: int, owner: UserNamespaceSpec | None) -> None:
    """Hand a tree of ours to the container: every id as the container's own."""
    assert owner is not None
    readable = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=tree)
    try:
        for name in (".", *os.listdir(readable)):
            status = os.stat(name, dir_fd=readable, follow_symlinks=False)
            uid, gid = outside.host_id(owner.uids, status.st_uid), outside.host_id(owner.gids, status.st_gid)
            os.chown(name, uid, gid, dir_fd=readable, follow_symlinks=False)
            if name != "." and stat.S_ISDIR(status.st_mode):
                below = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=readable)
                try:
                    _give(below, owner)
                finally:
                    os.close(below)
    finally:
        os.close(readable)


def _device_sources(spec: ContainerSpec) -> list[rootfs.Source]:
    """Nodes elsewhere than in /dev: bound, because init can make none."""
    elsewhere = [item for item in spec.devices if not item.path.startswith("/dev/")]
    if not elsewhere:
        return []
    desk = mount.new_filesystem("tmpfs", {"source": "tmpfs", "mode": "0755", "size": "1m"})
    named: list[tuple[DeviceSpec, str]] = [(item, f"/{number}") for number, item in enumerate(elsewhere)]
    with RootedDir(os.dup(desk)) as root:
        devices.add_devices(root, [replace(item, path=name) for item, name in named])
        _give(desk, spec.user_namespace)
        options = ("bind", "rprivate")
        return [
            rootfs.Source(
                MountSpec("bind", item.path, name, options),
                parse_options(options),
                mount.detach(root.path_fd(name)),
            )
            for item, name in named
        ]
