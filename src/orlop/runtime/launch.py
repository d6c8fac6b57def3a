"""The supervisor's side of a start: make the streams, clone init, hear what it says.

Also the same for execs: both are a child that reports over a close-on-exec socket and ends
as the user's program.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

from orlop.kernel.cgroup import Cgroup
from orlop.kernel.clone import clone3
from orlop.kernel.namespaces import (
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUTS,
    TIME_FLAG,
    setns,
)
from orlop.procs.channel import Channel, ChannelBroken, channel_pair, close_all
from orlop.runtime.ahead import Ahead
from orlop.runtime.init import run_init
from orlop.runtime.plan import plan_init
from orlop.runtime.spec import ContainerSpec, ProcessSpec
from orlop.runtime.streams import widen_pipe
from orlop.wire.stdstream import STDERR, STDOUT

__all__ = [
    "Launched",
    "Pipes",
    "Report",
    "children_in",
    "launch_container",
    "launch_process",
    "namespaces_of",
    "open_pipes",
    "read_report",
]


@dataclass(slots=True)
class Pipes:
    """The streams of a process without (or before) a terminal.

    `child` are its descriptors 0-2, -1 where a terminal will be; `outputs` and `input` are the
    supervisor's ends.
    """

    child: tuple[int, int, int]
    outputs: list[tuple[int, int]] = field(default_factory=list)
    input: int = -1

    def close_child(self) -> None:
        """Close the child's ends in this process."""
        close_all(fd for fd in self.child if fd >= 0)

    def close(self) -> None:
        """Close everything."""
        self.close_child()
        close_all([fd for fd, _ in self.outputs])
        if self.input >= 0:
            os.close(self.input)


@dataclass(slots=True)
class Launched:
    """A cloned child that has not yet executed: listen to `channel`."""

    pid: int
    pidfd: int
    channel: Channel
    is_driver: bool = False  # it starts the program by way of another runtime, then ends: see `driving`


@dataclass(frozen=True, slots=True)
class Report:
    """What the child said: descriptors of terminals, that it is ready, a failure, or nothing more."""

    fds: tuple[int, ...] = ()
    program: tuple[int, int] | None = None  # pid and pidfd, from a driver
    master: int = -1  # from a driver
    failure: dict[str, Any] | None = None
    is_ready: bool = False
    is_end: bool = False


def open_pipes(spec: ProcessSpec) -> Pipes:
    """Pipes for each stream that the process has; with a terminal there are none."""
    if spec.has_tty:
        return Pipes((-1, -1, -1))
    pipes = Pipes((-1, -1, -1))
    stdin = -1
    if spec.has_stdin:
        stdin, pipes.input = os.pipe2(os.O_CLOEXEC)
    else:
        stdin = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    out_read, out_write = os.pipe2(os.O_CLOEXEC)
    err_read, err_write = os.pipe2(os.O_CLOEXEC)
    widen_pipe(out_read)
    pipes.outputs = [(out_read, STDOUT), (err_read, STDERR)]
    pipes.child = (stdin, out_write, err_write)
    return pipes


def launch_container(
    spec: ContainerSpec, cgroup: Cgroup, cgroup_fd: int | None, pipes: Pipes, ahead: Ahead
) -> Launched:
    """Clone init into its namespaces; it waits for `go` before it joins the cgroup and runs anything.

    Args:
        spec: what to run.
        cgroup: exists already; its limits may still be on their way.
        cgroup_fd: its directory in the unified hierarchy, where init is born.
        pipes: the standard streams.
        ahead: what was made before the spec was known; used up.

    Raises:
        OSError: the clone failed, or a namespace to join is gone.
        ValueError: the spec names something unknown.
    """
    flags, joins = CLONE_NEWNS, list[tuple[int, int]]()
    try:
        flags |= namespaces_of(spec, ahead, joins)
        is_in_unified = cgroup_fd is not None
        plan = plan_init(spec, cgroup, joins, pipes.child, is_in_unified=is_in_unified, ahead=ahead)
        with children_in(spec.pid):
            return launch_process(lambda channel: run_init(plan, channel), flags, cgroup_fd=cgroup_fd)
    finally:
        close_all(fd for fd, _ in joins)
        ahead.close()


def launch_process(
    child: Callable[[Channel], NoReturn], flags: int = 0, *, cgroup_fd: int | None = None
) -> Launched:
    """Clone a child that runs `child` with its end of the report channel."""
    ours, theirs = channel_pair()
    try:
        pid, pidfd = clone3(flags, cgroup_fd=cgroup_fd)
        if pid == 0:
            try:
                child(theirs)
            finally:
                os._exit(70)  # not reached: `child` never returns or raises
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    ours.socket.setblocking(False)
    return Launched(pid, pidfd, ours)


def read_report(channel: Channel) -> Report | None:
    """The next thing the child said, None if nothing yet."""
    try:
        message = channel.receive()
    except BlockingIOError:
        return None
    except ChannelBroken as error:
        return Report(failure={"step": "start", "errno": 0, "message": str(error), "exit_code": 128})
    if message is None:
        return Report(is_end=True)
    if "terminal" in message.body:
        return Report(fds=tuple(message.fds))
    if "program" in message.body and len(message.fds) == 1:
        return Report(program=(int(message.body["program"]), message.fds[0]))
    if "master" in message.body and len(message.fds) == 1:
        return Report(master=message.fds[0])
    close_all(message.fds)
    if "ready" in message.body:
        return Report(is_ready=True)
    return Report(failure=message.body)


def namespaces_of(spec: ContainerSpec, ahead: Ahead, joins: list[tuple[int, int]]) -> int:
    """Flags of namespaces yet to be made; those to be joined are opened and added to `joins`.

    One made ahead is joined. What belongs to one that this container has no use for is given back.
    """
    flags = (CLONE_NEWPID if spec.pid == "private" else 0) | TIME_FLAG
    for kind, flag, value, own, mounted in (
        ("network", CLONE_NEWNET, spec.network, {"none"}, "sys"),
        ("ipc", CLONE_NEWIPC, spec.ipc, {"private", "none", "shareable"}, "queues"),
        ("uts", CLONE_NEWUTS, spec.uts, {"private"}, ""),
    ):
        made = ahead.take(kind)
        if value in own and made >= 0:
            joins.append((made, flag))
            continue
        close_all(fd for fd in (made, ahead.take(mounted) if mounted else -1) if fd >= 0)
        if value in own:
            flags |= flag
        elif value != "host":
            joins.append((os.open(value, os.O_RDONLY | os.O_CLOEXEC), flag))
    return flags


@contextlib.contextmanager
def children_in(pid_namespace: str) -> Any:
    """Children of this process are born in another pid namespace for the time being."""
    if pid_namespace in {"private", "host"}:
        yield
        return
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    other = os.open(pid_namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(other, CLONE_NEWPID)
        yield
    finally:
        setns(own, CLONE_NEWPID)
        os.close(own)
        os.close(other)
