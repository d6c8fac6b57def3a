"""The launch of a container with a user namespace: three children where others have one.

init is cloned into the new namespaces, all owned by the new user namespace; the supervisor writes
its maps; the host side (`hostside.py`) makes what init may not. To join the user namespace of
another container there is a go-between, which enters it and clones init there as the supervisor's child.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Iterator
from typing import NoReturn

from orlop.kernel import userns
from orlop.kernel.cgroup import Cgroup, Mode
from orlop.kernel.clone import clone3
from orlop.kernel.namespaces import CLONE_NEWNS, CLONE_NEWUSER, CLONE_PARENT, setns
from orlop.procs.channel import Channel, channel_pair, close_all
from orlop.runtime import confine
from orlop.runtime.ahead import Ahead
from orlop.runtime.hostside import run_host_side
from orlop.runtime.init import run_init
from orlop.runtime.launch import Launched, Pipes, children_in, launch_process, namespaces_of
from orlop.runtime.outside import Outside, check, host_id
from orlop.runtime.plan import InitPlan, plan_init
from orlop.runtime.spec import ContainerSpec, IdMapping, UserNamespaceSpec

__all__ = ["give_streams", "launch_mapped"]


def launch_mapped(
    spec: ContainerSpec, cgroup: Cgroup, cgroup_fd: int | None, pipes: Pipes
) -> tuple[Launched, int]:
    """Clone init and the host side; returns the first and a pidfd of the second, which the caller reaps.

    Raises:
        OSError, ValueError: nothing is left of either.
    """
    own = spec.user_namespace
    assert own is not None
    check(own)
    if spec.is_privileged:
        raise ValueError("privileged mode is incompatible with user namespaces")
    give_streams(pipes, own)
    joins: list[tuple[int, int]] = []
    cgroup_fds: list[int] = []
    ours, theirs = channel_pair()
    try:
        flags = CLONE_NEWNS | namespaces_of(spec, Ahead(), joins)
        cgroup_fds += _cgroup_files(cgroup, is_in_unified=cgroup_fd is not None)
        outside = Outside(theirs, tuple(cgroup_fds))
        plan = plan_init(
            spec, cgroup, () if own.path else joins, pipes.child, is_in_unified=True, outside=outside
        )
        with children_in(spec.pid), _told_when_there_are_none():
            launched = _clone(plan, own, flags, joins, cgroup_fd)
        try:
            return launched, _finish(plan, own, launched, ours)
        except BaseException:
            _kill(launched)
            raise
    finally:
        ours.close()
        theirs.close()
        close_all([*(fd for fd, _ in joins), *cgroup_fds])


@contextlib.contextmanager
def _told_when_there_are_none() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EUSERS):
            raise
        text = "user namespaces are used up or switched off on this host (sysctl user.max_user_namespaces)"
        raise OSError(error.errno, text) from error


def give_streams(pipes: Pipes, own: UserNamespaceSpec) -> None:
    """Pipes belong to the container's root, who can then hand them on to the container's user."""
    for fd in pipes.child[1:] if not pipes.input >= 0 else pipes.child:
        if fd >= 0:
            os.fchown(fd, host_id(own.uids, 0), host_id(own.gids, 0))


def _cgroup_files(cgroup: Cgroup, *, is_in_unified: bool) -> list[int]:
    if cgroup.host.mode is Mode.NONE:
        return []
    return [
        os.open(path, os.O_WRONLY | os.O_CLOEXEC) for path in cgroup.join_files(is_in_unified=is_in_unified)
    ]


def _finish(plan: InitPlan, own: UserNamespaceSpec, launched: Launched, channel: Channel) -> int:
    """What init needs from us, and then the host side, for which it waits."""
    if not own.path:
        userns.write_maps(launched.pid, _triples(own.uids), _triples(own.gids))
    confine.limit(plan.process, launched.pid)
    userns_fd = os.open(f"/proc/{launched.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    try:
        pid, pidfd = clone3(CLONE_NEWNS)
        if pid == 0:
            run_host_side(plan.spec, plan.cgroup, userns_fd, channel)
    finally:
        os.close(userns_fd)
    return pidfd


def _triples(mappings: tuple[IdMapping, ...]) -> list[tuple[int, int, int]]:
    return [(item.container_id, item.host_id, item.size) for item in mappings]


def _kill(launched: Launched) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(launched.pidfd, signal.SIGKILL)
    os.waitid(os.P_PIDFD, launched.pidfd, os.WEXITED)
    os.close(launched.pidfd)
    launched.channel.close()


def _clone(
    plan: InitPlan, own: UserNamespaceSpec, flags: int, joins: list[tuple[int, int]], cgroup_fd: int | None
) -> Launched:
    if not own.path:
        return launch_process(
            lambda channel: run_init(plan, channel), flags | CLONE_NEWUSER, cgroup_fd=cgroup_fd
        )
    ours, theirs = channel_pair()
    entered = os.open(own.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        between = launch_process(
            lambda channel: _go_between(
                plan, [(entered, CLONE_NEWUSER), *joins], flags, cgroup_fd, channel, theirs
            )
        )
        try:
            between.channel.socket.setblocking(True)
            message = between.channel.receive()
        finally:
            between.channel.close()
            os.waitid(os.P_PIDFD, between.pidfd, os.WEXITED)
            os.close(between.pidfd)
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
        os.close(entered)
    if message is None or not message.fds:
        ours.close()
        number = int(message.body.get("errno", 0)) if message is not None else 0
        raise OSError(number, f"cannot join the namespaces of the other container: {os.strerror(number)}")
    ours.socket.setblocking(False)
    return Launched(_pid_of(message.fds[0]), message.fds[0], ours)


def _go_between(
    plan: InitPlan,
    joins: list[tuple[int, int]],
    flags: int,
    cgroup_fd: int | None,
    report: Channel,
    channel: Channel,
) -> NoReturn:
    """Enter the other container's namespaces and clone init into them, as the supervisor's child."""
    try:
        for fd, flag in joins:
            setns(fd, flag)
        pid, pidfd = clone3(flags | CLONE_PARENT, cgroup_fd=cgroup_fd, exit_signal=0)
        if pid == 0:
            run_init(plan, channel)
        report.send({}, [pidfd])
    except OSError as error:
        report.send({"errno": error.errno or 0})
    os._exit(0)


def _pid_of(pidfd: int) -> int:
    """The process's number in our own pid namespace."""
    with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pid:"))
