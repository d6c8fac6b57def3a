"""The command's side of create: one process that makes everything, clones init and leaves.

init is a child of the command, and when that ends a child of its subreaper (conmon, a shim), so
nothing of ours stays. When create fails or is killed half-way, init dies with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from orlop.base.clock import SystemClock, format_rfc3339_nano
from orlop.bundle import limits
from orlop.bundle.config import Process, parse_config
from orlop.bundle.hooks import run_hooks
from orlop.bundle.init import InitOrders, run_bundle_init
from orlop.bundle.lowering import ContainerPlan, lower
from orlop.bundle.processes import plan_extras, plan_process
from orlop.bundle.records import Record, Store, oci_state, read_limited
from orlop.bundle.refusal import Refused
from orlop.bundle.sources import open_sources
from orlop.kernel import process, userns
from orlop.kernel.cgroup import Cgroup, Mode
from orlop.kernel.clone import clone3
from orlop.kernel.namespaces import CLONE_NEWPID, CLONE_NEWUSER, CLONE_PARENT, namespace_id, setns
from orlop.procs.channel import Channel, channel_pair, close_all
from orlop.runtime.confine import ProcessPlan, limit

__all__ = [
    "Create",
    "InitFailed",
    "clone_child",
    "create_container",
    "set_limits",
    "set_oom_score",
    "write_pid_file",
]


class InitFailed(Refused):
    """What init said before it ended."""

    code = "runtime-init-failed"


@dataclass(frozen=True, slots=True)
class Create:
    """What a caller of create gives."""

    id: str
    bundle: str
    console_socket: int = -1  # connected
    preserved_fds: int = 0
    pid_file: str = ""


def create_container(store: Store, order: Create) -> Record:
    """Make the container up to where `start` goes on; nothing is left when it fails.

    Raises:
        OrlopError, OSError: why not.
    """
    bundle = os.path.realpath(order.bundle)
    try:
        data = read_limited(os.path.join(bundle, "config.json"))
    except FileNotFoundError:
        raise Refused(f"JSON specification file {bundle}/config.json not found") from None
    plan = lower(parse_config(data), order.id, bundle)
    config = plan.config
    _check_joined(plan)
    if config.process is None:
        raise Refused("process: is missing")
    if config.process.has_terminal and order.console_socket < 0:
        raise Refused("cannot allocate tty if runtime will detach without setting console socket")
    if not config.process.has_terminal and order.console_socket >= 0:
        raise Refused("cannot use console socket if runtime will not detach or allocate tty")
    prepared = plan_process(config.process, config.linux), plan_extras(config.process, config.linux)
    directory = store.create(order.id)
    launch = _Launch(store, order, plan)
    try:
        with open(os.path.join(directory, "config.json"), "xb") as file:
            file.write(data)
        return launch.run(config.process, *prepared)
    except BaseException:
        launch.undo()
        raise


def _check_joined(plan: ContainerPlan) -> None:
    """A path may name a namespace of the host: its settings are not the container's to change."""
    linux = plan.config.linux
    dotted = [name.replace("/", ".") for name in linux.sysctl]
    has_name = bool(plan.config.hostname or plan.config.domainname)
    changes = {
        "network": ("net", any(name.startswith("net.") for name in dotted)),
        "uts": ("uts", has_name or "kernel.domainname" in dotted),
        "ipc": ("ipc", any(not name.startswith("net.") and name != "kernel.domainname" for name in dotted)),
    }
    for item in linux.namespaces:
        kind, is_changed = changes.get(item.kind, ("", False))
        if item.path and is_changed and namespace_id(item.path) == namespace_id("self", kind):
            raise Refused(f"linux.namespaces: {item.path} is the host's, and its settings would be changed")


class _Launch:
    def __init__(self, store: Store, order: Create, plan: ContainerPlan) -> None:
        self.store = store
        self.order = order
        self.plan = plan
        self.cgroup: Cgroup | None = None
        self.pid = 0
        self.pidfd = -1
        self.record = Record(
            id=order.id,
            bundle=plan.bundle,
            rootfs=plan.rootfs,
            created=format_rfc3339_nano(SystemClock().now_ns()),
            owner="root" if os.geteuid() == 0 else str(os.geteuid()),
            cgroup_path=plan.cgroup_path,
            has_pid_namespace=_has_own_pids(plan),
            version=plan.config.version,
            annotations=dict(plan.config.annotations),
        )

    def run(self, config: Process, planned: ProcessPlan, extras: Any) -> Record:
        self.store.save(self.record)
        sources = open_sources(self.plan)
        cgroup_fd: int | None = None
        listener = _listen(self.store.start_socket(self.order.id))
        ours, theirs = channel_pair()
        try:
            self.cgroup = group = limits.create_cgroup(self.plan.cgroup_path)
            linux = self.plan.config.linux
            limits.apply_resources(group, linux.resources)
            limits.restrict_devices(group, linux.resources)
            cgroup_fd = group.open_unified() if group.host.mode is not Mode.NONE else None
            orders = InitOrders(
                plan=self.plan,
                process=planned,
                extras=extras,
                cgroup=group,
                joins_cgroup_itself=not self.plan.has_user_namespace,
                is_in_unified=cgroup_fd is not None,
                sources=sources,
                start_socket=listener.fileno(),
                console_socket=self.order.console_socket,
                kept_fds=self.order.preserved_fds,
            )
            self.pid, self.pidfd = clone_child(
                lambda: run_bundle_init(orders, theirs),
                self.plan.new_namespaces,
                self.plan.joins,
                cgroup_fd=cgroup_fd,
            )
            theirs.close()
            self._converse(ours, config, planned)
        finally:
            ours.close()
            theirs.close()
            listener.close()
            sources.close()
            if cgroup_fd is not None:
                os.close(cgroup_fd)
        return self.record

    def _converse(self, channel: Channel, config: Process, planned: ProcessPlan) -> None:
        """Answer init's questions until it is ready."""
        while True:
            message = channel.receive()
            if message is None:
                raise InitFailed("container init ended unexpectedly")
            close_all(message.fds)
            body = message.body
            if body.get("ask") == "privileges":
                self._give_privileges()
                channel.send({})
            elif body.get("ask") == "runtime":
                self._run_hooks(config, planned)
                channel.send({"state": self._state("creating")})
            elif "ready" in body:
                self._finish()
                channel.send({})
                channel.receive()  # it has let go of us
                return
            else:
                raise InitFailed(f"error during container init: {body.get('message', 'unknown')}")

    def _give_privileges(self) -> None:
        assert self.cgroup is not None
        self.record = replace(self.record, pid=self.pid, pid_start=process.start_ticks(self.pid))
        if self.plan.has_user_namespace and self.cgroup.host.mode is not Mode.NONE:
            self.cgroup.add(self.pid)
        if self.plan.new_namespaces & CLONE_NEWUSER:
            userns.write_maps(self.pid, self.plan.uid_map, self.plan.gid_map)

    def _run_hooks(self, config: Process, planned: ProcessPlan) -> None:
        self.store.save(self.record)
        set_oom_score(self.pid, config.oom_score_adj)
        hooks, state = self.plan.config.hooks, self._state("creating").encode()
        run_hooks("prestart", hooks.prestart, state)
        run_hooks("createRuntime", hooks.create_runtime, state)
        set_limits(self.pid, planned)

    def _finish(self) -> None:
        self.record = replace(self.record, is_set_up=True)
        self.store.save(self.record)
        if self.order.pid_file:
            write_pid_file(self.order.pid_file, self.pid)

    def _state(self, status: str) -> str:
        return json.dumps(oci_state(self.record, status))

    def undo(self) -> None:
        """Remove all traces; hooks of the end are not run, for nothing has begun."""
        if self.pidfd >= 0:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, 0)
        if self.cgroup is not None:
            with contextlib.suppress(OSError):
                limits.destroy_cgroup(self.cgroup)
        self.store.remove(self.order.id)


def _has_own_pids(plan: ContainerPlan) -> bool:
    return bool(plan.new_namespaces & CLONE_NEWPID)


def _listen(path: str) -> socket.socket:
    """Bound by its short name: addresses of sockets end at 108 bytes."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    back = os.open(".", os.O_PATH | os.O_CLOEXEC)
    try:
        os.chdir(os.path.dirname(path))
        listener.bind(os.path.basename(path))
        listener.listen(1)
    finally:
        os.fchdir(back)
        os.close(back)
    return listener


def clone_child(
    child: Callable[[], NoReturn],
    flags: int,
    joins: tuple[tuple[str, int], ...] = (),
    *,
    cgroup_fd: int | None = None,
) -> tuple[int, int]:
    """Clone a child of this process into new namespaces and existing ones; returns (pid, pidfd).

    With namespaces to join, a process in between enters them and clones on our behalf: our own
    namespaces stay, and pid and user namespaces count for the child from its first moment. From then
    on others in its pid namespace may see it, so it is born as we are: out of reach of ptrace and of
    /proc/<pid> (CVE-2016-9962).
    """
    process.set_dumpable(is_dumpable=False)
    if not joins:
        pid, pidfd = clone3(flags, cgroup_fd=cgroup_fd)
        if pid == 0:
            _run(child)
        return pid, pidfd
    ours, theirs = channel_pair()
    middle, middle_fd = clone3()
    if middle == 0:
        _join_and_clone(child, flags, joins, cgroup_fd, theirs)
    theirs.close()
    os.close(middle_fd)
    try:
        message = ours.receive()
    finally:
        ours.close()
        os.waitpid(middle, 0)
    if message is None or "pid" not in message.body:
        text = message.body.get("message", "unknown") if message else "it ended"
        raise InitFailed(f"cannot enter namespaces: {text}")
    pid = int(message.body["pid"])
    return pid, process.pidfd_open(pid)


def _join_and_clone(
    child: Callable[[], NoReturn],
    flags: int,
    joins: tuple[tuple[str, int], ...],
    cgroup_fd: int | None,
    channel: Channel,
) -> NoReturn:
    try:
        held = [(path, os.open(path, os.O_RDONLY | os.O_CLOEXEC), flag) for path, flag in joins]
        for path, fd, flag in held:
            try:
                setns(fd, flag)
            except OSError as error:
                raise OSError(
                    error.errno, f"setns {path}: {os.strerror(error.errno or 0).lower()}"
                ) from error
        pid, _ = clone3(flags | CLONE_PARENT, cgroup_fd=cgroup_fd, exit_signal=0)
        if pid == 0:
            _run(child)
        channel.send({"pid": pid})
        os._exit(0)
    except BaseException as error:  # noqa: BLE001 - the process border
        with contextlib.suppress(OSError):
            channel.send({"message": str(error)})
        os._exit(1)


def _run(child: Callable[[], NoReturn]) -> NoReturn:
    """Dies with the command until it says otherwise, so that no half-made container is left."""
    try:
        process.set_parent_death_signal(signal.SIGKILL)
        child()
    finally:
        os._exit(70)


def set_limits(pid: int, planned: ProcessPlan) -> None:
    """Resource limits, with our privileges: in a user namespace a process cannot raise its own."""
    try:
        limit(planned, pid)
    except OSError as error:
        raise Refused(error.strerror or str(error)) from error


def set_oom_score(pid: int, score: int | None) -> None:
    """Left as it is inherited when nothing is asked."""
    if score is not None:
        with open(f"/proc/{pid}/oom_score_adj", "w", encoding="ascii") as file:
            file.write(str(score))


def write_pid_file(path: str, pid: int) -> None:
    """Whole or not at all: the reader may be waiting for it."""
    directory, name = os.path.split(path)
    temporary = os.path.join(directory, f".{name}")
    with open(temporary, "w", encoding="ascii") as file:
        file.write(str(pid))
    os.rename(temporary, path)
