"""A container's init for the command: from clone to the program, with a stop in between.

The steps are those of the runtime's own init where the document leaves no choice, in the order of
the spec (runtime.md, "Lifecycle"). Between init and the command there is a channel; the command
answers each question:

    init: {"ask": "privileges"}  -> cgroup and maps are there, go on as root of the namespace
    init: {"ask": "runtime"}     -> prestart and createRuntime hooks are done; {"state": ...}
    init: {"ready": true}        -> the record is written: stop here; the channel closes

From then on init is nobody's child but the reaper's and waits at a listening socket. `start`
connects: init runs the startContainer hooks, confines itself and executes. The connection closes
with execve; before, it can carry one failure.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from orlop.base.errors import OrlopError
from orlop.bundle import filetree
from orlop.bundle.hooks import run_hooks
from orlop.bundle.lowering import ContainerPlan
from orlop.bundle.processes import Extras
from orlop.bundle.sources import Sources, comes_from_root, prepare_bind
from orlop.kernel import mount, process, scheduling, userns
from orlop.kernel.cgroup import Cgroup, Mode
from orlop.kernel.namespaces import CLONE_NEWCGROUP, CLONE_NEWNET, unshare
from orlop.kernel.openat import RootedDir
from orlop.procs.channel import Channel
from orlop.procs.forker import close_others, reset_signals, seal_imports
from orlop.runtime import cgroupfs, confine, devices, rootfs, terminal
from orlop.runtime.ahead import loopback_up
from orlop.runtime.init import READY, fail, place_standard_fds
from orlop.runtime.lookpath import describe_errno

__all__ = ["InitOrders", "report_failure", "run_bundle_init", "send_terminal", "take_on_extras"]


@dataclass(frozen=True, slots=True)
class InitOrders:
    """What init needs beside the plan; all descriptors are open in it by inheritance."""

    plan: ContainerPlan
    process: confine.ProcessPlan
    extras: Extras
    cgroup: Cgroup
    joins_cgroup_itself: bool
    is_in_unified: bool
    sources: Sources
    start_socket: int  # listening
    console_socket: int  # connected, -1 for none
    kept_fds: int  # how many from 3 on are the program's


class _Init:
    def __init__(self, orders: InitOrders, channel: Channel) -> None:
        self.orders = orders
        self.plan = orders.plan
        self.linux = orders.plan.config.linux
        self.channel = channel
        self.state = b"{}"
        self.cgroups: cgroupfs.Sources | None = None
        self.proc_fd = -1
        self.terminal: int = -1
        self.to_be_closed: list[int] = []  # to writing

    @property
    def root(self) -> RootedDir:
        return RootedDir(self.orders.sources.root)

    def ask(self, question: str) -> dict[str, Any]:
        self.channel.send({"ask": question})
        answer = self.channel.receive()
        if answer is None:  # the command is gone or has failed
            os._exit(1)
        return answer.body

    def kept(self) -> list[int]:
        return list(range(3, 3 + self.orders.kept_fds))


def run_bundle_init(orders: InitOrders, channel: Channel) -> NoReturn:
    """Set up, stop, and become the program."""
    state = _Init(orders, channel)
    step = "start"
    try:
        for name, action in STEPS:
            step = name
            action(state)
        step = "process"
        take_on_extras(orders.extras, state.proc_fd)
        ready = confine.prepare(orders.process)
        channel.send_packed(READY)
        channel.receive()
        process.set_parent_death_signal(0)
        channel.close()
    except BaseException as error:  # noqa: BLE001 - the process border
        report_failure(channel, step, error)
    _wait_for_start(state, ready)


def _wait_for_start(state: _Init, ready: confine.Ready) -> NoReturn:
    listener = socket.socket(fileno=state.orders.start_socket)
    listener.setblocking(True)
    connection, _ = listener.accept()
    listener.close()
    report = Channel(connection)
    step = "confine"
    try:
        confine.become(ready)
        step = "hooks"  # these are programs of the container's tree: confined as the program is
        hooks = state.plan.config.hooks.start_container
        run_hooks("startContainer", hooks, state.state, inherited=ready.plan.env)
        step = "exec"
        confine.execute(ready)
    except BaseException as error:  # noqa: BLE001 - the process border
        report_failure(report, step, error)


def report_failure(channel: Channel, step: str, error: BaseException) -> NoReturn:
    """Tell whoever waits, and end."""
    if isinstance(error, OrlopError):
        with contextlib.suppress(OSError):
            channel.send({"step": step, "errno": 0, "message": error.message, "exit_code": 1})
        os._exit(1)
    fail(channel, step, error)


# --- steps ----------------------------------------------------------------------------------


def _session(state: _Init) -> None:
    seal_imports()
    reset_signals()
    process.set_dumpable(is_dumpable=False)
    process.set_name("orlop-init")
    os.setsid()
    os.umask(0)
    orders = state.orders
    keep = {state.channel.fileno(), orders.start_socket, orders.console_socket}
    keep |= {*orders.sources.descriptors(), *state.kept()}
    close_others(sorted(keep - {-1}))


def _privileges(state: _Init) -> None:
    """Wait for cgroup, limits and maps; in a user namespace become its root."""
    if state.orders.cgroup.host.mode is not Mode.NONE:
        if state.orders.joins_cgroup_itself:
            state.orders.cgroup.join(is_in_unified=state.orders.is_in_unified)
        state.ask("privileges")
        if any(item.kind == "cgroup" for item in state.plan.mounts):
            state.cgroups = cgroupfs.open_sources(state.orders.cgroup)
    else:
        state.ask("privileges")
    if state.plan.has_user_namespace:
        userns.become_root()
    if state.plan.has_own_cgroup_namespace:
        unshare(CLONE_NEWCGROUP)


def _cut_off(state: _Init) -> None:
    wanted = "private" if state.linux.rootfs_propagation.endswith("private") else "slave"
    mount.mount_setattr("/", propagation=wanted, is_recursive=True)  # type: ignore[arg-type]


def _mount_root(state: _Init) -> None:
    filetree.attach_root(state.orders.sources.root, state.plan.rootfs)


def _own_proc(state: _Init) -> None:
    """A procfs that nothing of the image can stand in for, for sysctls and labels (I3)."""
    if state.linux.sysctl or state.orders.extras.exec_label:
        state.proc_fd = mount.new_filesystem("proc", {"source": "proc"})


def _mounts(state: _Init) -> None:
    for index, item in enumerate(state.plan.mounts):
        fd = state.orders.sources.binds.get(index, -1)
        if item.is_bind and fd < 0:
            place = state.root.path_fd(comes_from_root(state.plan, item))
            fd = prepare_bind(state.plan, item, mount.detach(place, is_recursive=item.options.is_recursive))
            os.close(place)
        made = filetree.add_mount(state.root, item, fd, state.cgroups)
        if item.kind == "tmpfs" and item.options.is_read_only:
            state.to_be_closed.append(made)  # others are mounted in it, and /dev is filled
        elif made >= 0:
            os.close(made)


def _dev(state: _Init) -> None:
    if state.plan.makes_dev:
        filetree.make_devices(state.root, state.plan.devices, state.orders.sources.devices)
        filetree.make_links(state.root)


def _make_cwd(state: _Init) -> None:
    try:
        os.close(state.root.mkdirs(state.orders.process.cwd))
    except OSError as error:
        if error.errno not in {errno.EROFS, errno.ENOTDIR, errno.EACCES, errno.EPERM}:
            raise  # the chdir that follows tells what is wrong with those


def _open_terminal(state: _Init) -> None:
    if not state.orders.process.has_tty:
        return
    devpts = state.root.open_dir("/dev/pts")
    process_config = state.plan.config.process
    size = process_config.console_size if process_config else (0, 0)
    master, slave, number = terminal.open_terminal(devpts, size)
    if state.plan.makes_dev:
        named = os.open(str(number), os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=devpts)
        dev = state.root.open_dir("/dev")
        with contextlib.suppress(FileNotFoundError):
            os.unlink("console", dir_fd=dev)
        devices.attach_console(dev, named)
        os.close(dev)
        os.close(named)
    send_terminal(state.orders.console_socket, master)
    os.close(master)
    os.close(devpts)
    state.terminal = slave


def send_terminal(console_socket: int, master: int) -> None:
    """Hand the master to whoever listens at --console-socket, as runc does it."""
    with socket.socket(fileno=os.dup(console_socket)) as sock:
        socket.send_fds(sock, [b"/dev/ptmx"], [master])


def _names(state: _Init) -> None:
    if state.plan.config.hostname:
        process.set_host_name(state.plan.config.hostname)
    if state.plan.config.domainname:
        process.set_domain_name(state.plan.config.domainname)


def _loopback(state: _Init) -> None:
    if state.plan.new_namespaces & CLONE_NEWNET:
        loopback_up()


def _sysctls(state: _Init) -> None:
    for name, value in state.linux.sysctl.items():
        with RootedDir(os.dup(state.proc_fd)) as proc:
            try:
                fd = proc.open("sys/" + name.replace(".", "/"), os.O_WRONLY)
                try:
                    os.write(fd, value.encode())
                finally:
                    os.close(fd)
            except OSError as error:
                text = f"write sysctl key {name}: {describe_errno(error.errno or 0)}"
                raise OSError(error.errno, text) from error


def _hide(state: _Init) -> None:
    for fd in state.to_be_closed:
        mount.mount_setattr(fd, set_attributes=mount.MOUNT_ATTR_RDONLY)
        os.close(fd)
    rootfs.make_read_only(state.root, tuple(dict.fromkeys(state.linux.readonly_paths)))
    rootfs.mask(state.root, tuple(dict.fromkeys(state.linux.masked_paths)), state.orders.sources.null)


def _hooks(state: _Init) -> None:
    state.state = str(state.ask("runtime").get("state", "{}")).encode()
    run_hooks("createContainer", state.plan.config.hooks.create_container, state.state)


def _pivot(state: _Init) -> None:
    root = state.orders.sources.root
    if state.plan.config.root.is_readonly:
        mount.mount_setattr(root, set_attributes=mount.MOUNT_ATTR_RDONLY)
    rootfs.pivot_into(root)
    wanted = state.linux.rootfs_propagation
    if wanted:
        bare = wanted.removeprefix("r")
        mount.mount_setattr("/", propagation=bare, is_recursive=wanted != bare)  # type: ignore[arg-type]


def _streams(state: _Init) -> None:
    if state.terminal >= 0:
        terminal.take_control(state.terminal)
        place_standard_fds([state.terminal] * 3)
    keep = {state.channel.fileno(), state.orders.start_socket, state.proc_fd, *state.kept()}
    close_others(sorted(keep - {-1}))
    for fd in state.kept():
        os.set_inheritable(fd, True)


def take_on_extras(extras: Extras, proc_fd: int) -> None:
    """Scheduling and labels, while privileged. `proc_fd` is a procfs of our own, needed for a label."""
    if extras.scheduling is not None:
        scheduling.set_scheduling(extras.scheduling)
    if extras.io_priority is not None:
        scheduling.set_io_priority(*extras.io_priority)
    if extras.cpus:
        os.sched_setaffinity(0, extras.cpus)
    if extras.personality is not None:
        scheduling.set_personality(extras.personality)
    if extras.exec_label:
        fd = os.open("self/attr/exec", os.O_WRONLY | os.O_CLOEXEC, dir_fd=proc_fd)
        try:
            os.write(fd, extras.exec_label)
        finally:
            os.close(fd)


STEPS: tuple[tuple[str, Callable[[_Init], None]], ...] = (
    ("session", _session),
    ("privileges", _privileges),
    ("private mounts", _cut_off),
    ("mount root", _mount_root),
    ("mount own proc", _own_proc),
    ("mounts", _mounts),
    ("devices", _dev),
    ("working directory", _make_cwd),
    ("terminal", _open_terminal),
    ("names", _names),
    ("loopback", _loopback),
    ("sysctl", _sysctls),
    ("hide", _hide),
    ("hooks", _hooks),
    ("pivot", _pivot),
    ("streams", _streams),
)
