"""What this host can do, found by trying, once per process.

Every test is free of effects: calls that must fail tell by their errno whether the kernel knows
them. Distributions backport and switch off, so versions are for messages only.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from ctypes import byref, sizeof
from dataclasses import dataclass
from functools import lru_cache

from orlop.kernel import cgroup, clone, filesystems, mount, namespaces, openat, process
from orlop.kernel.filesystems import LayerStyle
from orlop.kernel.syscall import Path, fd_path

__all__ = ["Abilities", "abilities", "has_file_backed_erofs", "kernel_version"]

_NO_FD = 0x7FFFFFFF  # beyond any limit on fds
_RELEASE = re.compile(r"(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True)
class Abilities:
    """The facts, for `info` and `doctor`, and for whoever chooses between two ways."""

    kernel: tuple[int, int]
    overlay_layers: LayerStyle | None  # None: no overlay
    cgroup_mode: cgroup.Mode
    cgroup_controllers: frozenset[str]
    clone_into_cgroup: bool
    openat2: bool
    pidfd: bool
    seccomp: bool
    apparmor: bool
    user_namespaces: bool

    def missing(self) -> list[str]:
        """What we cannot do without on this host, in words; empty when containers can run."""
        needs = {
            "openat2 (Linux 5.6)": self.openat2,
            "pidfds (Linux 5.3)": self.pidfd,
            "overlay file systems": self.overlay_layers is not None,
            "cgroups": self.cgroup_mode is not cgroup.Mode.NONE,
        }
        return [name for name, is_there in needs.items() if not is_there]


@lru_cache(maxsize=1)
def abilities() -> Abilities:
    """Find out (a few milliseconds) and remember. Needs root for the truth about file systems."""
    host = cgroup.detect()
    return Abilities(
        kernel=kernel_version(os.uname().release),
        overlay_layers=_overlay_layers(),
        cgroup_mode=host.mode,
        cgroup_controllers=host.v2_controllers if host.mode is cgroup.Mode.V2 else frozenset(host.v1),
        clone_into_cgroup=host.unified is not None and _errno_of(_clone_into_nothing) == errno.EBADF,
        openat2=_errno_of(_open_root) == 0,
        pidfd=_errno_of(lambda: os.close(process.pidfd_open(os.getpid()))) == 0,
        seccomp=os.path.exists("/proc/sys/kernel/seccomp/actions_avail"),
        apparmor=_first_line("/sys/module/apparmor/parameters/enabled") == "Y",
        user_namespaces=_first_line("/proc/sys/user/max_user_namespaces") not in ("", "0"),
    )


@lru_cache(maxsize=8)
def has_file_backed_erofs(directory: Path) -> bool:
    """Whether layers stored in a directory of ours can be mounted without a loop device.

    The file system has a say too: tmpfs and overlay lack what EROFS reads through. Tried with an
    unnamed file of zeros: EINVAL says that it was read and is no image, ENOTBLK that it must be a device.
    """
    try:
        fd = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:
        return False
    try:
        os.ftruncate(fd, 65536)
        return _errno_of(lambda: os.close(filesystems.erofs_fd(fd_path(fd)))) == errno.EINVAL
    finally:
        os.close(fd)


def kernel_version(release: str) -> tuple[int, int]:
    """`6.18.44-generic` -> (6, 18); (0, 0) for what is not of that form."""
    found = _RELEASE.match(release)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _errno_of(call: Callable[[], object]) -> int:
    try:
        call()
    except OSError as error:
        return error.errno or 0
    return 0


def _overlay_layers() -> LayerStyle | None:
    try:
        context = mount.fsopen("overlay")
    except OSError:
        return LayerStyle.MOUNT if "overlay" in _file_systems() else None
    root = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _errno_of(lambda: mount.fsconfig_fd(context, "lowerdir+", root)) == 0:
            return LayerStyle.FD
        if _errno_of(lambda: mount.fsconfig_string(context, "lowerdir+", "/")) == 0:
            return LayerStyle.STRING
        return LayerStyle.MOUNT
    finally:
        os.close(root)
        os.close(context)


def _file_systems() -> set[str]:
    with open("/proc/filesystems", "rb") as file:
        return {line.split()[-1].decode("ascii") for line in file if line.strip()}


def _clone_into_nothing() -> None:
    """A clone3 that cannot fork: EBADF where the kernel looks for the cgroup and finds none."""
    arguments = clone.CloneArgs(flags=namespaces.CLONE_INTO_CGROUP, cgroup=_NO_FD)
    clone.raw_clone3(byref(arguments), sizeof(arguments))


def _open_root() -> None:
    os.close(openat.openat2(-100, "/", os.O_PATH | os.O_DIRECTORY))


def _first_line(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return file.readline().decode("ascii", "replace").strip()
    except OSError:
        return ""
