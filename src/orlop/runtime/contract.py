"""The runtime's seam: what the engine may ask of a running container.

Vocabulary: a *task* is a running container as seen from the engine: a connection to the
supervisor that owns it. A task outlives the engine; `Runtime.adopt` finds it again. An
*attachment* is one end of a stream socket together with what it carries.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from orlop.base.errors import Kind, OrlopError
from orlop.runtime.spec import (
    AttachSpec,
    ContainerSpec,
    EndpointSpec,
    ExecSpec,
    ExitRecord,
    NameServerSpec,
    ResourceSpec,
)

__all__ = [
    "Attachment",
    "ExecTask",
    "Process",
    "Runtime",
    "StartFailed",
    "Stats",
    "SupervisorLost",
    "Task",
    "TaskGone",
    "TaskRefused",
    "TaskStuck",
    "open_attachment",
]

EXIT_NOT_EXECUTABLE = 126
EXIT_NOT_FOUND = 127
EXIT_START_FAILED = 128


class StartFailed(OrlopError):
    """The first program of a container or exec never ran.

    `message` is the text Docker shows (its CLI derives exit codes from it); `exit_code` is
    126, 127 or 128; `step` names what init was doing (`exec`, `mount /proc`, `user`...).
    """

    kind: ClassVar[Kind] = Kind.INVALID
    code: ClassVar[str] = "start-failed"

    def __init__(self, message: str, *, exit_code: int, step: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint, exit_code=exit_code, step=step)
        self.exit_code = exit_code
        self.step = step


class TaskGone(OrlopError):
    """The container (or exec) is not running any more; `wait` has its exit record."""

    kind: ClassVar[Kind] = Kind.CONFLICT
    code: ClassVar[str] = "task-gone"


class TaskRefused(OrlopError):
    """The supervisor or the kernel refused a request; the message says which and why."""

    kind: ClassVar[Kind] = Kind.INVALID
    code: ClassVar[str] = "task-refused"


class SupervisorLost(OrlopError):
    """The supervisor died without an exit record; its container was killed."""

    kind: ClassVar[Kind] = Kind.UNAVAILABLE
    code: ClassVar[str] = "supervisor-lost"
    remedy: ClassVar[str | None] = (
        "start the container again; the log of the engine and dmesg tell whether memory ran out"
    )


class TaskStuck(OrlopError):
    """The supervisor lives and does not answer; the container may run all the same."""

    kind: ClassVar[Kind] = Kind.UNAVAILABLE
    code: ClassVar[str] = "task-stuck"


@dataclass(frozen=True, slots=True)
class Attachment:
    """The supervisor's end of a stream; whoever is given it owns (and closes) the socket."""

    spec: AttachSpec
    socket: socket.socket


def open_attachment(spec: AttachSpec) -> tuple[socket.socket, Attachment]:
    """Our end (the caller closes it) and the end to hand to `Runtime.start`."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    ours.setblocking(False)
    return ours, Attachment(spec, theirs)


@dataclass(frozen=True, slots=True)
class Process:
    """One process of a container as the host sees it (`docker top`)."""

    pid: int
    ppid: int
    uid: int
    started_at_ns: int
    cpu_time_s: int
    cpu_percent: int
    tty: str
    args: str
    comm: str
    rss_bytes: int = 0
    vsz_bytes: int = 0
    state: str = ""


@dataclass(frozen=True, slots=True)
class Stats:
    """One reading of the container's counters. Times in nanoseconds, sizes in bytes.

    `memory_detail` holds the kernel's own `memory.stat`; `networks` maps an interface to
    `rx_bytes rx_packets rx_errors rx_dropped tx_bytes ...`; `blkio` rows are
    (major, minor, operation, bytes) and `blkio_ops` the same with counts.
    """

    read_at_ns: int
    cpu_total_ns: int = 0
    cpu_user_ns: int = 0
    cpu_kernel_ns: int = 0
    cpu_each_ns: Sequence[int] = ()  # by processor; empty on cgroup v2
    cpu_system_ns: int = 0  # the whole host's busy and idle time, as Docker's system_cpu_usage
    online_cpus: int = 0
    throttled_periods: int = 0
    periods: int = 0
    throttled_ns: int = 0
    memory_usage_bytes: int = 0
    memory_max_bytes: int = 0
    memory_limit_bytes: int = 0
    memory_fail_count: int = 0
    memory_detail: Mapping[str, int] = field(default_factory=dict)
    pids_current: int = 0
    pids_limit: int = 0
    networks: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    blkio: Sequence[tuple[int, int, str, int]] = ()
    blkio_ops: Sequence[tuple[int, int, str, int]] = ()


class ExecTask(Protocol):
    """A further process of a container."""

    id: str
    pid: int  # in the host's pid namespace
    stream: socket.socket | None  # non-blocking; the caller closes it

    async def wait(self) -> int:
        """The exit code once the process ended and its output was delivered."""

    async def signal(self, number: int) -> None:
        """Send a signal.

        Raises:
            TaskGone: the process has ended.
        """

    async def resize(self, rows: int, columns: int) -> None:
        """Set the size of its terminal."""


class Task(Protocol):
    """A running container. Whatever asks its supervisor raises TaskStuck when no answer comes in time."""

    id: str
    pid: int  # of the container's first process, in the host's pid namespace
    started_at_ns: int

    async def wait(self) -> ExitRecord:
        """The exit record, once output is drained and the cgroup is gone. Any number of callers."""

    async def signal(self, number: int, *, all_processes: bool = False) -> None:
        """Send a signal to the first process, or to every process of the container.

        Raises:
            TaskGone: the container has ended.
        """

    async def attach(self, spec: AttachSpec) -> socket.socket:
        """A non-blocking stream of live output (stdcopy frames, raw with a TTY); the caller closes it.

        When this returns, all later output is delivered to the stream. A reader that is slower than
        the container for long is cut off; the log stays complete.
        """

    async def attach_at(self, spec: AttachSpec) -> tuple[socket.socket, int]:
        """Like `attach`, and the time before which all output is in the log and none in the stream."""

    async def resize(self, rows: int, columns: int, exec_id: str | None = None) -> None:
        """Set the size of the terminal of the container or of one exec."""

    async def exec(self, spec: ExecSpec, attach: AttachSpec | None = None) -> ExecTask:
        """Run a further process; returns after its execve succeeded.

        Raises:
            StartFailed: it never ran; text and exit code are Docker's.
            TaskGone: the container has ended.
        """

    async def find_exec(self, exec_id: str) -> ExecTask | None:
        """A running exec, after a restart of the engine too (its stream is gone then)."""

    async def attach_endpoint(self, spec: EndpointSpec) -> None:
        """Give the container one more interface.

        Raises:
            TaskRefused: nothing of it is left.
        """

    async def detach_endpoint(self, endpoint_id: str) -> None:
        """Take an interface away; fine when it is gone."""

    async def serve_names(self, spec: NameServerSpec) -> None:
        """Serve the names of these networks from now on. Raises TaskRefused."""

    async def endpoints(self) -> list[EndpointSpec]:
        """The interfaces that it was given and has."""

    async def close_stdin(self) -> None:
        """Close the container's standard input."""

    async def pause(self) -> None:
        """Freeze every process."""

    async def unpause(self) -> None:
        """Let every process run again."""

    async def is_paused(self) -> bool:
        """True when frozen by `pause`."""

    async def wait_oom(self, seen: int | None) -> int:
        """How many processes were killed for lack of memory, once that is more than `seen`; at once for None.

        Raises:
            TaskGone: the container has ended first.
        """

    async def stats(self) -> Stats:
        """Read the counters now."""

    async def update(self, resources: ResourceSpec) -> None:
        """Apply new limits while running."""

    async def top(self) -> list[Process]:
        """The processes, oldest first."""

    async def clear_log(self) -> None:
        """Remove what was logged so far."""

    async def put_down(self) -> None:
        """End supervisor and container without the former's help; `wait` says when it is done."""


class Runtime(Protocol):
    """Starts containers and finds them again."""

    async def start(self, spec: ContainerSpec, attachments: Sequence[Attachment] = ()) -> Task:
        """Start a container; returns after its execve succeeded.

        Takes ownership of the attachments' sockets, also when it fails.

        Raises:
            StartFailed: nothing runs and nothing is left behind.
        """

    async def adopt(self, run_dir: str) -> Task | ExitRecord | None:
        """What became of the container whose run dir this is.

        A `Task` when it still runs; its `ExitRecord` when it ended (or its supervisor was lost:
        then everything that was left of it has been killed); None when it was never started here.
        """
