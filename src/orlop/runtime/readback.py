"""The confinement of a process that runs, read back from the kernel and compared with its spec (I21).

The supervisor looks from outside, after execve: what init believes it did does not count. By then the
program may have given things up or, with capabilities for it, moved itself; so the comparison is
always "not more than asked for", and what a program may have changed is not held against it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

from orlop.kernel import capabilities
from orlop.kernel.cgroup import Cgroup, Mode
from orlop.kernel.namespaces import TIME_FLAG
from orlop.kernel.openat import RootedDir
from orlop.runtime.confine import ProcessPlan
from orlop.runtime.plan import hidden_paths
from orlop.runtime.spec import ContainerSpec

__all__ = ["container_difference", "process_difference"]

_SYS_ADMIN = 1 << capabilities.bit("SYS_ADMIN")
_FLAGS, _PF_EXITING = 6, 0x4  # a field of proc(5) stat, counted behind the name
_CAPABILITY_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def container_difference(pid: int, spec: ContainerSpec, plan: ProcessPlan, cgroup: Cgroup) -> str:
    """What is wrong with the first process of a container: "" when nothing is, or when it has ended.

    Another runtime hides paths in its own way and makes no time namespace: these are not looked at.
    """
    try:
        found = (
            process_difference(pid, plan)
            or _namespace_difference(pid, spec)
            or _cgroup_difference(pid, spec, cgroup)
            or (_root_difference(pid, spec, plan) if spec.runtime is None else "")
        )
    except (FileNotFoundError, ProcessLookupError):
        return ""
    except OSError as error:  # EXDEV for instance: its mounts are being taken apart
        found = f"it cannot be read back: {error}"
    return found if found and _is_running(pid) else ""  # one that ends loses its cgroups and namespaces


def process_difference(pid: int, plan: ProcessPlan) -> str:
    """Capabilities, seccomp, no-new-privileges and AppArmor of any process of a container."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            text = file.read().decode("ascii", "replace")
        profile = _apparmor_of(pid) if plan.apparmor_profile else ""
    except (FileNotFoundError, ProcessLookupError):
        return ""
    status = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    for name in _CAPABILITY_SETS:
        if name in status and int(status[name], 16) & ~plan.capabilities:
            return f"{name} is {status[name]}, beyond {plan.capabilities:016x}"
    if plan.filter is not None and status.get("Seccomp", "2") != "2":
        return "no seccomp filter is in force"
    if plan.no_new_privileges and status.get("NoNewPrivs", "1") != "1":
        return "no-new-privileges is off"
    if plan.apparmor_profile and profile != plan.apparmor_profile:
        return f"the AppArmor profile is {profile or 'missing'!r}"
    return ""


def _is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read(4096).rpartition(b") ")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return not int(fields[_FLAGS]) & _PF_EXITING


def _apparmor_of(pid: int) -> str:
    for name in ("apparmor/current", "current"):
        try:
            with open(f"/proc/{pid}/attr/{name}", encoding="utf-8", errors="replace") as file:
                return file.read(4096).strip("\0\n").partition(" (")[0]
        except OSError:
            continue
    return ""


def _namespace_difference(pid: int, spec: ContainerSpec) -> str:
    """A namespace that should be the container's own must not be ours."""
    own = {
        "mnt": True,
        "net": spec.network != "host",
        "ipc": spec.ipc != "host",
        "pid": spec.pid != "host",
        "uts": spec.uts != "host",
        "cgroup": spec.cgroupns == "private",
        "time": bool(TIME_FLAG) and spec.runtime is None,
        "user": spec.user_namespace is not None,
    }
    for name, is_own in own.items():
        if is_own and _same(f"/proc/{pid}/ns/{name}", f"/proc/self/ns/{name}"):
            return f"the {name} namespace is the host's"
    return "its root is the host's" if _same(f"/proc/{pid}/root", "/") else ""


def _same(one: str, other: str) -> bool:
    first, second = os.stat(one), os.stat(other)
    return (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino)


def _cgroup_difference(pid: int, spec: ContainerSpec, cgroup: Cgroup) -> str:
    """In each hierarchy that limits or filters, it is in its own group or below."""
    if cgroup.host.mode is Mode.NONE or spec.is_privileged or spec.has_writable_cgroup:
        return ""
    with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="replace") as file:
        lines = [line.rstrip("\n").split(":", 2) for line in file]
    is_v2, limiting = cgroup.host.mode is Mode.V2, set(cgroup.host.v1)
    for number, controllers, path in lines:
        counts = number == "0" if is_v2 else not limiting.isdisjoint(controllers.split(","))
        if counts and f"/{cgroup.path}/" not in f"{path}/":
            return f"it is in cgroup {path} of {controllers or 'the unified hierarchy'}"
    return ""


def _root_difference(pid: int, spec: ContainerSpec, plan: ProcessPlan) -> str:
    """Masked and read-only paths; left out where the program may have mounts of its own by now."""
    if plan.capabilities & _SYS_ADMIN or plan.filter is None or spec.process.seccomp_profile is not None:
        return ""
    masked, read_only = hidden_paths(spec)
    with RootedDir.at(f"/proc/{pid}/root") as root:
        for path in masked:
            if not _holds(root, path, _is_masked):
                return f"{path} is not hidden"
        for path in read_only:
            if not _holds(root, path, _is_read_only):
                return f"{path} is writable"
    return ""


def _holds(root: RootedDir, path: str, check: Callable[[int], bool]) -> bool:
    try:
        fd = root.path_fd(path)
    except (FileNotFoundError, NotADirectoryError):
        return True  # nothing there to hide
    try:
        return check(fd)
    finally:
        os.close(fd)


def _is_masked(fd: int) -> bool:
    status = os.fstat(fd)
    if stat.S_ISCHR(status.st_mode):
        return status.st_rdev == os.makedev(1, 3)
    return stat.S_ISDIR(status.st_mode) and _is_read_only(fd) and os.fstatvfs(fd).f_blocks == 1


def _is_read_only(fd: int) -> bool:
    return bool(os.fstatvfs(fd).f_flag & os.ST_RDONLY)
