"""The first process of a container, from clone to execve, as a list of named steps.

It runs in the new namespaces with the host's privileges, so: everything it uses was imported
by the zygote, the import system is switched off, and after `pivot` only raw system calls
follow (I4). Each step either succeeds or ends the process after telling the supervisor
`{step, errno, message, exit_code}` over a close-on-exec socket. The last word before the
filter is `{"ready": true}`; when the socket closes after it, execve has succeeded.

The interpreter itself is out of the container's reach: the zygote was executed from a
read-only detached mount (see procs/zygote.py), the process is not dumpable until execve, and
no descriptor but the standard three survives.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from typing import NoReturn

from orlop.base import failpoints
from orlop.kernel import mount, process
from orlop.kernel.cgroup import Mode
from orlop.kernel.namespaces import CLONE_NEWCGROUP, CLONE_NEWNET, setns, unshare
from orlop.kernel.openat import RootedDir
from orlop.procs.channel import Channel
from orlop.procs.forker import CHANGED_SIGNALS, close_others, reset_signals, seal_imports
from orlop.procs.title import set_title
from orlop.runtime import cgroupfs, confine, devices, outside, reaper, rootfs, terminal
from orlop.runtime.ahead import loopback_up
from orlop.runtime.identity import UserUnknown
from orlop.runtime.lookpath import ExecFailed, describe_errno
from orlop.runtime.plan import InitPlan
from orlop.runtime.sharedmemory import open_shared_memory
from orlop.runtime.spec import ContainerSpec, MountSpec

__all__ = ["READY", "fail", "place_standard_fds", "requested_mounts", "run_init"]

EXIT_START_FAILED = 128
READY = b'{"ready":true}'


class _Init:
    """What one step leaves for the next; descriptors are closed in one sweep before execve."""

    def __init__(self, plan: InitPlan, channel: Channel) -> None:
        self.plan = plan
        self.spec = plan.spec
        self.ahead = plan.ahead
        self.channel = channel
        self.sources: list[rootfs.Source] = []
        self.cgroup_sources: cgroupfs.Sources | None = None
        self.null_fd = -1
        self.shm_fd = -1
        self.root_fd = -1
        self.proc_fd = -1
        self.dev_fd = -1
        self.devpts_fd = -1
        self.standard_fds = list(plan.standard_fds)

    @property
    def root(self) -> RootedDir:
        """The resolver of the new root; borrowed, never closed."""
        return RootedDir(self.root_fd)

    @property
    def covered(self) -> frozenset[str]:
        """Targets of the requested mounts."""
        return frozenset(os.path.normpath(item.target) for item in self.spec.mounts)


def run_init(plan: InitPlan, channel: Channel) -> NoReturn:
    """Become the container's first program, or report why not and end."""
    state = _Init(plan, channel)
    step = "start"
    try:
        for name, action in STEPS:
            step = name
            if not failpoints.skips(f"init.{name}"):
                action(state)
        step = "process"
        ready = confine.prepare(plan.process)
        channel.send_packed(READY)
        if plan.spec.has_init:
            reaper.split(channel, ready)
        confine.become(ready)
        step = "exec"
        confine.execute(ready)
    except BaseException as error:  # noqa: BLE001 - the process border
        fail(channel, step, error)


def fail(channel: Channel, step: str, error: BaseException) -> NoReturn:
    """Tell the supervisor and end. No traceback: printing one would read files of the container."""
    number = error.errno if isinstance(error, OSError) else 0
    code = EXIT_START_FAILED
    if isinstance(error, ExecFailed):
        message, code = error.message, error.exit_code
    elif isinstance(error, UserUnknown):
        step, message = "user", str(error)
    elif isinstance(error, outside.HostSideFailed):
        step, message = str(error.report["step"]), str(error)
    elif isinstance(error, OSError):
        message = _os_error_text(error)
    else:
        message = f"{type(error).__name__}: {error}"
    with contextlib.suppress(OSError):
        channel.send({"step": step, "errno": number or 0, "message": message, "exit_code": code})
    os._exit(1)


def _os_error_text(error: OSError) -> str:
    text = error.strerror or str(error)
    reason = describe_errno(error.errno) if error.errno else ""
    if text.lower() == reason:
        text = reason
    elif reason and reason not in text.lower():
        text = f"{text}: {reason}"
    return f"{os.fsdecode(error.filename)}: {text}" if isinstance(error.filename, str | bytes) else text


# --- steps on the host's side ---------------------------------------------------------------


def _session(state: _Init) -> None:
    seal_imports()
    reset_signals(CHANGED_SIGNALS)
    process.set_dumpable(is_dumpable=False)
    process.set_name("orlop-init")
    if state.spec.has_init:
        set_title("orlop-init")
    os.setsid()
    os.umask(0)
    keep = [state.channel.fileno(), *(fd for fd in state.standard_fds if fd >= 0)]
    keep += state.plan.outside.descriptors() if state.plan.outside else []
    close_others([*keep, *(fd for fd, _ in state.plan.joins), *state.ahead.descriptors()])


def _oom_score(state: _Init) -> None:
    # The supervisor is protected from the OOM killer; its children are not.
    value = state.spec.process.oom_score_adj or 0
    fd = os.open("/proc/self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)
    try:
        if int(os.read(fd, 16)) != value:
            os.pwrite(fd, str(value).encode("ascii"), 0)
    finally:
        os.close(fd)


def _join_cgroup(state: _Init) -> None:
    if state.channel.receive() is None:  # the limits could not be set
        os._exit(1)
    if state.plan.outside is not None:
        outside.join_cgroup(state.plan.outside)
    elif state.plan.cgroup.host.mode is not Mode.NONE:
        state.plan.cgroup.join(is_in_unified=state.plan.is_in_unified)
    if state.spec.cgroupns == "private":
        unshare(CLONE_NEWCGROUP)  # its root is where we are now


def _join_namespaces(state: _Init) -> None:
    for fd, flag in state.plan.joins:
        setns(fd, flag)
        os.close(fd)


def _limits(state: _Init) -> None:
    if state.plan.outside is None:  # else the supervisor has set them: here we could not raise one
        confine.limit(state.plan.process)


def requested_mounts(spec: ContainerSpec) -> list[MountSpec]:
    """Those of the spec, and the host's shared memory for who shares its IPC namespace."""
    mounts = list(spec.mounts)
    if spec.ipc == "host":
        present = {os.path.normpath(item.target) for item in mounts}
        for path in ("/dev/shm", "/dev/mqueue"):
            if path not in present and os.path.isdir(path):
                mounts.insert(0, MountSpec("bind", path, path, ("rbind", "nosuid", "nodev", "noexec")))
    return mounts


def _open_sources(state: _Init) -> None:
    if state.plan.outside is not None:
        made = outside.receive(state.plan.outside)
        state.root_fd, state.null_fd, state.dev_fd, state.shm_fd = made.root, made.null, made.dev, made.shm
        state.sources, state.cgroup_sources = made.sources, made.cgroup
        return
    mounts = requested_mounts(state.spec)
    state.shm_fd = open_shared_memory(state.spec.ipc)
    state.sources = rootfs.open_sources(mounts)
    state.null_fd = state.ahead.take("null")
    if state.null_fd < 0:
        state.null_fd = rootfs.open_null()
    state.cgroup_sources = cgroupfs.open_sources(state.plan.cgroup)


def _cut_off(_: _Init) -> None:
    mount.mount_setattr("/", propagation="private", is_recursive=True)


# --- steps that build the root --------------------------------------------------------------


def _mount_root(state: _Init) -> None:
    if state.plan.outside is not None:
        outside.enter_root_mount(state.spec, state.root_fd)
    else:
        state.root_fd = rootfs.mount_root(state.spec.root, state.spec.run_dir)


def _mount_proc(state: _Init) -> None:
    safe = mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV | mount.MOUNT_ATTR_NOEXEC
    state.proc_fd = mount.new_filesystem("proc", {"source": "proc"}, safe)
    rootfs.attach_filesystem(state.root, "/proc", state.proc_fd)


def _mount_dev(state: _Init) -> None:
    if "/dev" in state.covered:  # the user brings a whole /dev: it stays as it is
        return
    ready = () if state.spec.is_privileged else devices.DEFAULT_DEVICES
    if state.dev_fd < 0 and not state.spec.is_privileged:
        state.dev_fd = state.ahead.take("dev")
    if state.dev_fd < 0:
        state.dev_fd = devices.new_dev(ready)
    rootfs.attach_filesystem(state.root, "/dev", state.dev_fd)
    if state.shm_fd < 0 and state.spec.ipc not in {"host", "none"}:
        state.shm_fd = devices.new_shared_memory(state.spec.shm_size_bytes)
    covered = state.covered | ({"/dev/shm", "/dev/mqueue"} if state.spec.ipc == "host" else frozenset())
    state.devpts_fd = state.ahead.take("terminals")
    if state.devpts_fd < 0:
        state.devpts_fd = devices.new_terminals()
    queues = state.ahead.take("queues")
    devices.mount_dev_children(
        state.dev_fd, devpts=state.devpts_fd, queues=queues, shm_fd=state.shm_fd, covered=covered
    )
    if state.plan.outside is None:  # else they are there
        devices.add_devices(state.root, [item for item in state.plan.devices if item not in ready])


def _mount_sys(state: _Init) -> None:
    fd = -1 if state.spec.is_privileged else state.ahead.take("sys")
    if fd < 0:
        fd = rootfs.new_sys(is_writable=state.spec.is_privileged)
    rootfs.attach_filesystem(state.root, "/sys", fd)
    os.close(fd)


def _mount_cgroup(state: _Init) -> None:
    if state.cgroup_sources is not None:
        is_writable = state.spec.is_privileged or state.spec.has_writable_cgroup
        cgroupfs.attach(state.root, state.cgroup_sources, is_writable=is_writable)


def _add_mounts(state: _Init) -> None:
    rootfs.add_mounts(state.root, state.sources, os.fstat(state.proc_fd).st_dev)


def _make_cwd(state: _Init) -> None:
    # Docker creates a missing WORKDIR; as root, whoever the user is.
    try:
        os.close(state.root.mkdirs(state.plan.process.cwd))
    except OSError as error:
        if error.errno not in {errno.EROFS, errno.ENOTDIR}:
            raise  # the chdir that follows tells what is wrong with those


def _open_terminal(state: _Init) -> None:
    if state.devpts_fd < 0:
        state.devpts_fd = state.root.open_dir("/dev/pts")
    fds = [state.devpts_fd]
    if state.spec.process.has_tty:
        master, slave, number = terminal.open_terminal(state.devpts_fd, state.spec.process.tty_size)
        if state.dev_fd >= 0:
            named = os.open(str(number), os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=state.devpts_fd)
            devices.attach_console(state.dev_fd, named)
            os.close(named)
        state.standard_fds = [slave, slave, slave]
        fds.append(master)
    state.channel.send({"terminal": True}, fds)
    if len(fds) > 1:
        os.close(fds[1])


def _name_host(state: _Init) -> None:
    if state.spec.uts == "host":
        return
    if state.spec.hostname:
        process.set_host_name(state.spec.hostname)
    if state.spec.domainname:
        process.set_domain_name(state.spec.domainname)


def _loopback(state: _Init) -> None:
    if state.spec.network == "none" and CLONE_NEWNET not in {flag for _, flag in state.plan.joins}:
        loopback_up()


def _sysctls(state: _Init) -> None:
    """Written through our own procfs instance, never through what the image calls /proc (I3)."""
    with contextlib.closing(RootedDir(os.dup(state.proc_fd))) as proc:
        for name, value in state.spec.sysctls.items():
            words = name.replace("/", ".").split(".")
            if not all(words):
                raise OSError(errno.EINVAL, f"invalid sysctl name {name!r}")
            fd = proc.open("sys/" + "/".join(words), os.O_WRONLY)
            try:
                os.write(fd, value.encode())
            except OSError as error:
                raise OSError(
                    error.errno, f"write sysctl key {name}: {describe_errno(error.errno or 0)}"
                ) from error
            finally:
                os.close(fd)


def _hide(state: _Init) -> None:
    rootfs.make_read_only(state.root, state.plan.read_only_paths)
    rootfs.mask(state.root, state.plan.masked_paths, state.null_fd, state.ahead.take("empty"))


def _pivot(state: _Init) -> None:
    rootfs.enter_root(state.root_fd, state.spec)


def _standard_streams(state: _Init) -> None:
    if state.spec.process.has_tty:
        terminal.take_control(state.standard_fds[0])
    place_standard_fds(state.standard_fds)
    close_others([state.channel.fileno()])


def place_standard_fds(fds: list[int]) -> None:
    """Make `fds` descriptors 0, 1 and 2; all are 3 or higher."""
    for target, fd in enumerate(fds):
        os.dup2(fd, target, inheritable=True)


STEPS: tuple[tuple[str, Callable[[_Init], None]], ...] = (
    ("session", _session),
    ("oom score", _oom_score),
    ("join namespaces", _join_namespaces),
    ("limits", _limits),
    ("mount sources", _open_sources),
    ("private mounts", _cut_off),
    ("mount root", _mount_root),
    ("mount proc", _mount_proc),
    ("mount dev", _mount_dev),
    ("mount sys", _mount_sys),
    ("mount cgroup", _mount_cgroup),
    ("mounts", _add_mounts),
    ("working directory", _make_cwd),
    ("terminal", _open_terminal),
    ("hostname", _name_host),
    ("loopback", _loopback),
    ("sysctl", _sysctls),
    ("hide", _hide),
    # Late, so that what init itself needed is not charged to a container with little memory.
    ("cgroup", _join_cgroup),
    ("pivot", _pivot),
    ("streams", _standard_streams),
)
