"""A process takes on what it may be and do, last of all before it becomes the user's program.

Runs inside the container, after the pivot or setns: raw system calls only. The order is the
kernel's: limits while privileged; no-new-privs; bounding set while SETPCAP is there; groups,
gid, uid with capabilities kept; the working directory and the program, seen with the user's
eyes; the filter; the final sets; execve.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import stat
from dataclasses import dataclass
from typing import NoReturn

from orlop.base import failpoints
from orlop.kernel import capabilities, process, seccomp
from orlop.kernel.capabilities import CapabilitySets
from orlop.kernel.openat import RootedDir
from orlop.runtime import apparmor, identity
from orlop.runtime.lookpath import ExecFailed, describe_errno, exec_failure, find_program

__all__ = ["LIMITS", "ProcessPlan", "Ready", "become", "execute", "limit", "prepare", "read_of_image"]

LIMITS = {
    name.removeprefix("RLIMIT_").lower(): getattr(resource, name)
    for name in dir(resource)
    if name.startswith("RLIMIT_")
}
"""`nofile` and its like -> the kernel's number."""

_SYS_ADMIN = 1 << capabilities.bit("SYS_ADMIN")


@dataclass(frozen=True, slots=True)
class ProcessPlan:
    """A process spec made ready outside the container: encoded, compiled, nothing left to look up.

    `capabilities` is the mask of bounding, permitted and (for root) effective. `filters` are
    compiled seccomp programs, none for unconfined.
    """

    args: tuple[bytes, ...]
    env: dict[bytes, bytes]
    cwd: str
    user: str
    extra_groups: tuple[str, ...]
    capabilities: int
    filter: bytes | None
    apparmor_profile: str
    no_new_privileges: bool
    rlimits: tuple[tuple[str, int, int], ...]
    has_tty: bool
    sets: CapabilitySets | None = None  # exactly these at the end, whoever the user is
    umask: int = 0o022
    dies_with_parent: bool = True


@dataclass(slots=True)
class Ready:
    """A process that only has to confine itself and execute."""

    plan: ProcessPlan
    path: bytes
    uid: int


def limit(plan: ProcessPlan, pid: int = 0) -> None:
    """Set the resource limits of this process, or of a child that may not raise them itself.

    Open files are not limited below what there was: we need some more until `become` does it.
    """
    for name, soft, hard in plan.rlimits:
        infinite = resource.RLIM_INFINITY
        try:
            pair = (infinite if soft < 0 else soft, infinite if hard < 0 else hard)
            if name == "nofile":
                pair = _not_less(pair, resource.prlimit(pid, LIMITS[name]))
            resource.prlimit(pid, LIMITS[name], pair)
        except (OSError, ValueError) as error:
            number = error.errno if isinstance(error, OSError) and error.errno else errno.EPERM
            raise OSError(number, f"error setting rlimit {name}: {describe_errno(number)}") from error


def _not_less(wanted: tuple[int, int], present: tuple[int, int]) -> tuple[int, int]:
    infinite = resource.RLIM_INFINITY
    soft, hard = (infinite if infinite in pair else max(pair) for pair in zip(wanted, present, strict=True))
    return soft, hard


def _limit_files(plan: ProcessPlan) -> None:
    """The limit that was asked for; it lowers what `limit` has set, so anybody may do it."""
    for name, soft, hard in plan.rlimits:
        if name == "nofile":
            infinite = resource.RLIM_INFINITY
            pair = (infinite if soft < 0 else soft, infinite if hard < 0 else hard)
            resource.setrlimit(LIMITS[name], pair)


def prepare(plan: ProcessPlan) -> Ready:
    """Become the user, stand in the working directory, find the program.

    Raises:
        identity.UserUnknown, ExecFailed, OSError: with Docker's texts.
    """
    who = _look_up(plan)
    if b"HOME" not in plan.env or not plan.env[b"HOME"]:
        plan.env[b"HOME"] = os.fsencode(who.home)
    _give_streams(who)
    if plan.apparmor_profile:
        apparmor.apply_on_exec(plan.apparmor_profile)
    if plan.no_new_privileges and not failpoints.skips("confine.no-new-privileges"):
        process.set_no_new_privs()
    if not failpoints.skips("confine.bounding"):
        capabilities.drop_bounding(plan.capabilities)
    is_inside = _change_directory(plan.cwd, is_last_try=False)
    process.set_keep_caps(keeps=True)
    process.set_groups(who.groups)
    process.set_res_gid(who.gid)
    process.set_res_uid(who.uid)
    if plan.sets is not None:  # what the program may look at with its capabilities, we may
        kept = capabilities.current().permitted
        capabilities.apply(CapabilitySets(plan.sets.effective & kept, kept))
    if not is_inside:
        _change_directory(plan.cwd, is_last_try=True)
    _prove_inside()
    os.umask(plan.umask)
    if plan.dies_with_parent:
        process.set_parent_death_signal(signal.SIGKILL)  # a change of ids has cleared it
    return Ready(plan, find_program(plan.args[0], plan.env), who.uid)


def become(ready: Ready) -> None:
    """Load the filter and drop to the final sets; after this the process is fully confined."""
    final = ready.plan.capabilities
    _limit_files(ready.plan)
    program = ready.plan.filter
    if program is not None and not failpoints.skips("confine.filter"):
        # Without no-new-privs a filter takes SYS_ADMIN, given up with the very next call.
        kept = final | (0 if ready.plan.no_new_privileges else _SYS_ADMIN)
        capabilities.apply(capabilities.CapabilitySets(kept, kept))
        seccomp.load(program)
    effective = final if ready.uid == 0 else 0
    capabilities.apply(ready.plan.sets or capabilities.CapabilitySets(effective, final))


def execute(ready: Ready) -> NoReturn:
    """Become the program.

    Raises:
        ExecFailed: execve refused.
    """
    try:
        os.execve(ready.path, ready.plan.args, ready.plan.env)  # noqa: S606 - what init is for
    except OSError as error:
        raise exec_failure(ready.path, error.errno or errno.EINVAL) from error


def _look_up(plan: ProcessPlan) -> identity.Identity:
    with RootedDir(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as root:
        return identity.resolve(
            plan.user, plan.extra_groups, read_of_image(root, "etc/passwd"), read_of_image(root, "etc/group")
        )


def read_of_image(root: RootedDir, path: str) -> bytes:
    """A file of the image, or nothing when it has none; never more than the cap."""
    try:
        fd = root.open_regular(path)
    except OSError:
        return b""
    try:
        size = os.fstat(fd).st_size
        if size > identity.MAX_FILE_BYTES:
            raise OSError(errno.EFBIG, f"/{path} is larger than {identity.MAX_FILE_BYTES >> 20} MiB")
        # Files of procfs have no size, and reading some has effects: /proc/kmsg takes the host's messages.
        return os.pread(fd, identity.MAX_FILE_BYTES, 0) if size else b""
    finally:
        os.close(fd)


def _give_streams(who: identity.Identity) -> None:
    """Let the user open /dev/stdout and its like: pipes and terminals change hands, /dev/null does not."""
    null = os.makedev(1, 3)
    for fd in (0, 1, 2):
        status = os.fstat(fd)
        if status.st_uid == who.uid or (stat.S_ISCHR(status.st_mode) and status.st_rdev == null):
            continue
        with contextlib.suppress(OSError):  # not ours to give, on a read-only mount, beyond the mapping
            os.fchown(fd, who.uid, -1)


def _change_directory(cwd: str, *, is_last_try: bool) -> bool:
    try:
        os.chdir(cwd)
    except OSError as error:
        if isinstance(error, PermissionError) and not is_last_try:
            return False
        number = error.errno or errno.EINVAL
        text = f'chdir to cwd ("{cwd}") set in config.json failed: {describe_errno(number)}'
        raise OSError(number, text) from error
    return True


def _prove_inside() -> None:
    """A directory that has no path from our root is outside of it (CVE-2024-21626)."""
    try:
        here = os.getcwdb()
    except FileNotFoundError:
        here = b""
    if not here.startswith(b"/"):
        raise ExecFailed(
            "current working directory is outside of container mount namespace root"
            " -- possible container breakout detected",
            128,
        )
