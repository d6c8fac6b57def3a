"""The seam to whoever runs a step: a root to be, a process, a layer afterwards."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from orlop.base.errors import Kind, OrlopError
from orlop.base.ids import LeaseId
from orlop.oci.digest import Digest

__all__ = ["CommandFailed", "ExecRequest", "Executor", "Limits", "Output", "Overlay"]

STDOUT, STDERR = 1, 2

Output = Callable[[int, bytes], Awaitable[None]]
"""Takes pieces of output: 1 or 2 (stdout, stderr) and bytes; waits while the client is slow."""


class CommandFailed(OrlopError):
    """The process of a step ended with another code than 0."""

    kind: ClassVar[Kind] = Kind.INVALID
    code: ClassVar[str] = "command-failed"

    def __init__(self, command: str, exit_code: int) -> None:
        # docker-py's own tests look for this text
        super().__init__(
            f"The command '{command}' returned a non-zero code: {exit_code}", exit_code=exit_code
        )
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of the request for every step; 0 and empty mean none. Sizes in bytes."""

    memory_bytes: int = 0
    memory_swap_bytes: int = 0
    cpu_shares: int = 0
    cpu_period_us: int = 0
    cpu_quota_us: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""


@dataclass(frozen=True, slots=True)
class Overlay:
    """Files of another result, shown read-only at `target`."""

    target: str
    layers: tuple[Digest, ...]


@dataclass(frozen=True, slots=True)
class ExecRequest:
    """Everything about one step's process.

    `key` names its snapshot and must be fresh; `network` is `default`, `host` or `none`.
    """

    key: str
    layers: tuple[Digest, ...]
    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    cwd: str = "/"
    user: str = ""
    hostname: str = ""
    network: str = "none"
    extra_hosts: tuple[tuple[str, str], ...] = ()
    overlays: tuple[Overlay, ...] = ()
    shm_size_bytes: int = 0
    ulimits: tuple[tuple[str, int, int], ...] = ()
    cgroup_parent: str = ""
    limits: Limits = field(default_factory=Limits)


class Executor(Protocol):
    """Runs steps."""

    async def run(self, request: ExecRequest, lease: LeaseId, output: Output) -> Digest:
        """Run the process to its end and keep what it changed as a layer, held by `lease`.

        Whatever happens, cancellation included, no process, mount or snapshot is left.

        Raises:
            CommandFailed: it ended with another code than 0; nothing is kept.
            OrlopError: it could not be run, or its changes not be kept.
        """
