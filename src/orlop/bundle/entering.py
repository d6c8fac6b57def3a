"""A further process in a container of the command.

The child joins the cgroup, then all namespaces of the first process by its pidfd, and from there
goes the way of init. It is not dumpable until execve, so what runs in the container cannot look
into it (CVE-2016-9962).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from orlop.bundle.config import Config, Process
from orlop.bundle.init import report_failure, send_terminal, take_on_extras
from orlop.bundle.launch import InitFailed, clone_child, set_limits, set_oom_score
from orlop.bundle.processes import Extras, plan_extras, plan_process
from orlop.bundle.records import Record
from orlop.bundle.refusal import Refused, WrongState
from orlop.kernel import mount, namespaces, process, userns
from orlop.kernel.cgroup import Cgroup, Mode
from orlop.kernel.namespaces import FLAG_OF_KIND, namespace_id, setns
from orlop.procs.channel import Channel, channel_pair, close_all
from orlop.procs.forker import close_others, reset_signals, seal_imports
from orlop.runtime import confine, terminal
from orlop.runtime.init import READY, place_standard_fds

__all__ = ["Entry", "enter_container"]


@dataclass(frozen=True, slots=True)
class Entry:
    """What a caller of exec gives."""

    process: Process
    console_socket: int = -1
    preserved_fds: int = 0
    cgroup_below: str = ""


@dataclass(frozen=True, slots=True)
class _Orders:
    plan: confine.ProcessPlan
    extras: Extras
    cgroup: Cgroup
    is_in_unified: bool
    pidfd: int
    flags: int
    has_user_namespace: bool
    entry: Entry


def enter_container(
    record: Record, config: Config, entry: Entry, started: Callable[[int], None]
) -> tuple[int, int]:
    """Start the process; returns (pid, pidfd) of our child, which has executed.

    Args:
        record: of the container.
        config: of the container.
        entry: what to run.
        started: told the pid before the program runs.

    Raises:
        WrongState: the container has ended.
        InitFailed: what the child said.
    """
    init = record.pidfd()
    if init is None:
        raise WrongState("cannot exec in a stopped container")
    linux = config.linux
    group = record.cgroup()
    if entry.cgroup_below:
        group = _below(group, entry.cgroup_below)
    flags = _different(record.pid)
    cgroup_fd = group.open_unified() if group.host.mode is not Mode.NONE else None
    ours, theirs = channel_pair()
    try:
        orders = _Orders(
            plan=plan_process(entry.process, linux),
            extras=plan_extras(entry.process, linux),
            cgroup=group,
            is_in_unified=cgroup_fd is not None,
            pidfd=init,
            flags=flags,
            has_user_namespace=bool(flags & namespaces.CLONE_NEWUSER),
            entry=entry,
        )
        if flags & namespaces.CLONE_NEWPID:
            setns(init, namespaces.CLONE_NEWPID)  # for our children only
        pid, pidfd = clone_child(lambda: _enter(orders, theirs), 0, cgroup_fd=cgroup_fd)
        theirs.close()
        _converse(ours, pid, orders, started)
        return pid, pidfd
    finally:
        ours.close()
        theirs.close()
        close_all([init, *([cgroup_fd] if cgroup_fd is not None else [])])


def _below(group: Cgroup, path: str) -> Cgroup:
    """A cgroup below the container's, which must be there."""
    try:
        below = Cgroup(f"{group.path}/{path.strip('/')}" if path.strip("/") else group.path, group.host)
    except ValueError as error:
        raise Refused(f"bad sub cgroup path: {error}") from error
    if not below.exists():
        raise Refused(f"--cgroup {path}: no such cgroup in the container")
    return below


def _different(pid: int) -> int:
    """The namespaces of the container that are not ours, as flags."""
    flags = 0
    for kind, flag in FLAG_OF_KIND.items():
        try:
            if namespace_id(pid, kind) != namespace_id("self", kind):
                flags |= flag
        except OSError:
            continue
    return flags


def _converse(channel: Channel, pid: int, orders: _Orders, started: Callable[[int], None]) -> None:
    try:
        while True:
            message = channel.receive()
            if message is None:
                return
            close_all(message.fds)
            if "ask" in message.body:
                if orders.has_user_namespace and orders.cgroup.host.mode is not Mode.NONE:
                    orders.cgroup.add(pid)
                set_oom_score(pid, orders.entry.process.oom_score_adj)
                set_limits(pid, orders.plan)
                channel.send({})
            elif "ready" in message.body:
                started(pid)
                channel.send({})
            else:
                raise InitFailed(str(message.body.get("message", "unknown")))  # noqa: TRY301 - one way out
    except BaseException:
        channel.close()
        os.waitpid(pid, 0)
        raise


def _enter(orders: _Orders, channel: Channel) -> NoReturn:
    step = "session"
    try:
        seal_imports()
        reset_signals()
        process.set_dumpable(is_dumpable=False)
        os.setsid()
        kept = list(range(3, 3 + orders.entry.preserved_fds))
        close_others(sorted({channel.fileno(), orders.pidfd, orders.entry.console_socket, *kept} - {-1}))
        step = "cgroup"
        if orders.cgroup.host.mode is not Mode.NONE and not orders.has_user_namespace:
            orders.cgroup.join(is_in_unified=orders.is_in_unified)
        channel.send({"ask": "privileges"})
        if channel.receive() is None:
            os._exit(1)
        step = "namespaces"
        setns(orders.pidfd, orders.flags & ~namespaces.CLONE_NEWTIME)
        if orders.has_user_namespace:
            userns.become_root()
        step = "terminal"
        if orders.plan.has_tty:
            _open_terminal(orders)
        proc_fd = mount.new_filesystem("proc", {"source": "proc"}) if orders.extras.exec_label else -1
        close_others(sorted({channel.fileno(), proc_fd, *kept} - {-1}))
        for fd in kept:
            os.set_inheritable(fd, True)
        step = "process"
        take_on_extras(orders.extras, proc_fd)
        ready = confine.prepare(orders.plan)
        channel.send_packed(READY)
        if channel.receive() is None:
            os._exit(1)
        process.set_parent_death_signal(0)
        confine.become(ready)
        step = "exec"
        confine.execute(ready)
    except BaseException as error:  # noqa: BLE001 - the process border
        report_failure(channel, step, error)


def _open_terminal(orders: _Orders) -> None:
    """In the container's devpts, which must be one: its /dev is the container's own by now."""
    devpts = os.open("/dev/pts", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    master, slave, _ = terminal.open_terminal(devpts, orders.entry.process.console_size)
    send_terminal(orders.entry.console_socket, master)
    os.close(master)
    terminal.take_control(slave)
    place_standard_fds([slave] * 3)
