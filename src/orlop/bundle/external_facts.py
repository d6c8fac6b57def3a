"""What is found out for one start under another runtime: root, mounts, user, kernel.

Works on descriptors of the container's own root, as init does; the paths that come out of it are
of our own making.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
import stat
from collections.abc import Callable, Sequence

from orlop.bundle.writing import INIT_TARGET, Facts
from orlop.bundle.writing_mounts import Mounted, propagation_of
from orlop.kernel import mount
from orlop.kernel.cgroup import Cgroup, Mode
from orlop.kernel.cgroup_limits import Limits, v1_writes, v2_writes
from orlop.kernel.openat import RootedDir
from orlop.runtime import identity, rootfs
from orlop.runtime.confine import read_of_image
from orlop.runtime.devices import host_devices
from orlop.runtime.lookpath import ExecFailed
from orlop.runtime.mountopts import parse_options
from orlop.runtime.plan import available_capabilities
from orlop.runtime.sharedmemory import open_shared_memory
from orlop.runtime.spec import ContainerSpec, MountSpec, ProcessSpec, ResourceSpec

__all__ = ["container_facts", "exec_facts", "missing_limits"]

_SHARED = ("rbind", "nosuid", "nodev", "noexec")
_INIT_PROGRAMS = ("docker-init", "tini-static", "catatonit")
_PATH = "/usr/local/libexec/docker:/usr/libexec/docker:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"


def container_facts(
    spec: ContainerSpec, cgroup: Cgroup, directory: str, cut_off: Callable[[], None]
) -> Facts:
    """Hold the sources, cut the namespace off, mount the root; the bundle's directory then has both.

    Raises:
        OSError: a source is gone, the root cannot be mounted.
        identity.UserUnknown: with Docker's text.
        ExecFailed: there is no init for `--init`.
    """
    if spec.user_namespace is not None:
        raise OSError(errno.EOPNOTSUPP, f"runtime {_name(spec)} is not driven with a user namespace")
    wanted = _mounts(spec)
    shared = open_shared_memory(spec.ipc)
    sources = rootfs.open_sources(wanted)
    if shared >= 0:
        target = MountSpec("bind", "/dev/shm", "", _SHARED)
        options = parse_options(_SHARED)
        sources.append(rootfs.Source(target, options, shared))
    cut_off()
    root_fd = rootfs.mount_root(spec.root, f"{directory}/rootfs")
    with RootedDir(root_fd) as root:
        who = identity.resolve(
            spec.process.user,
            spec.process.extra_groups,
            _read(root, sources, "/etc/passwd"),
            _read(root, sources, "/etc/group"),
        )
        mounts = [_place(source, root, f"{directory}/sources/{n}") for n, source in enumerate(sources)]
    system = os.uname()
    return Facts(
        who=who,
        cgroup_path=cgroup.path,
        mounts=mounts,
        available=available_capabilities(),
        machine=system.machine,
        release=system.release,
        cpu_count=os.cpu_count() or 1,
        host_devices=host_devices() if spec.is_privileged else (),
        propagation=propagation_of(wanted),
    )


def exec_facts(process: ProcessSpec, init_pid: int) -> Facts:
    """The user as the running container's own files have it.

    Raises:
        OSError: the container has ended.
        identity.UserUnknown: with Docker's text.
    """
    with RootedDir(os.open(f"/proc/{init_pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as root:
        who = identity.resolve(
            process.user,
            process.extra_groups,
            read_of_image(root, "etc/passwd"),
            read_of_image(root, "etc/group"),
        )
    return Facts(who=who, cgroup_path="", available=available_capabilities())


def missing_limits(cgroup: Cgroup, resources: ResourceSpec) -> frozenset[str]:
    """Limits that this kernel has no file for; a runtime would fail on them."""
    if cgroup.host.mode is Mode.NONE:
        return frozenset(row.limit for row in v1_writes(_limits(resources)))
    rows = (v2_writes if cgroup.host.mode is Mode.V2 else v1_writes)(_limits(resources))
    return frozenset(row.limit for row in rows if not _has_file(cgroup, row.controller, row.file))


def _limits(resources: ResourceSpec) -> Limits:
    return Limits(**dataclasses.asdict(resources))


def _has_file(cgroup: Cgroup, controller: str, file: str) -> bool:
    try:
        return os.path.exists(f"{cgroup.directory(controller)}/{file}")
    except FileNotFoundError:
        return False


def _name(spec: ContainerSpec) -> str:
    return spec.runtime.name if spec.runtime is not None else "orlop"


def _mounts(spec: ContainerSpec) -> list[MountSpec]:
    """Those of the spec, and what the embedded runtime adds on its own."""
    wanted = list(spec.mounts)
    present = {os.path.normpath(item.target) for item in wanted}
    if spec.ipc == "host":
        for path in ("/dev/shm", "/dev/mqueue"):
            if path not in present and os.path.isdir(path):
                wanted.insert(0, MountSpec("bind", path, path, _SHARED))
    if spec.has_init:
        wanted.append(MountSpec("bind", INIT_TARGET, _find_init(), ("bind", "ro")))
    return wanted


def _find_init() -> str:
    """The static init that Docker installs, or one that does the same."""
    for name in _INIT_PROGRAMS:
        if (found := shutil.which(name, path=_PATH)) is not None:
            return os.path.realpath(found)
    raise ExecFailed('exec: "docker-init": executable file not found in $PATH', 127)


def _place(source: rootfs.Source, root: RootedDir, place: str) -> Mounted:
    """Give a held source a name; a tmpfs takes over the mode of the directory that it covers."""
    if source.spec.kind != "bind":
        return Mounted(source.spec, mode=_mode_of(root, source.spec.target))
    if stat.S_ISDIR(os.fstat(source.fd).st_mode):
        os.mkdir(place, 0o700)
    else:
        os.close(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    rootfs.set_bind_attributes(source.fd, source.options)
    mount.attach(source.fd, place)
    if source.options.propagation in ("slave", "shared"):
        mount.mount_setattr(source.fd, propagation=source.options.propagation, is_recursive=True)
    os.close(source.fd)
    return Mounted(source.spec, place)


def _mode_of(root: RootedDir, path: str) -> int | None:
    try:
        return stat.S_IMODE(root.stat(path).st_mode)
    except OSError:
        return None


def _read(root: RootedDir, sources: Sequence[rootfs.Source], path: str) -> bytes:
    """A file as the container will see it: of the mount that covers it, or of the image."""
    best: rootfs.Source | None = None
    for source in sources:
        target = os.path.normpath(source.spec.target)
        if target == path or path.startswith(f"{target}/"):
            best = source
    if best is None:
        return read_of_image(root, path)
    if best.spec.kind != "bind":
        return b""
    rest = path.removeprefix(os.path.normpath(best.spec.target)).lstrip("/")
    if rest:
        with RootedDir(os.dup(best.fd)) as tree:
            return read_of_image(tree, rest)
    if not stat.S_ISREG(os.fstat(best.fd).st_mode):
        return b""
    fd = os.open(f"/proc/self/fd/{best.fd}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(fd, identity.MAX_FILE_BYTES, 0)
    finally:
        os.close(fd)
