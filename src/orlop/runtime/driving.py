"""The seam for other OCI runtimes: somebody else makes the container's processes, the rest stays ours.

A driver's launches are children of ours that call the runtime, tell the process that came of it
(`{"program": pid}` with its pidfd), the master of its terminal (`{"master": true}`), that it runs
(`{"ready": true}`) or why not, and end. The processes themselves become children of the supervisor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from orlop.kernel.cgroup import Cgroup
from orlop.runtime.launch import Launched, Pipes
from orlop.runtime.spec import ContainerSpec, ExecSpec

__all__ = ["Driver", "DriverFactory"]


class Driver(Protocol):
    """One container's runtime."""

    def launch(self, cgroup_fd: int | None, pipes: Pipes) -> Launched:
        """Begin to start the container; it waits for `go` before the runtime is called.

        Args:
            cgroup_fd: the cgroup's directory in the unified hierarchy.
            pipes: the standard streams.

        Raises:
            OSError: no process could be made.
        """

    def launch_exec(self, spec: ExecSpec, init_pid: int, cgroup_fd: int | None, pipes: Pipes) -> Launched:
        """Begin to start a further process.

        Raises:
            OSError: no process could be made.
        """

    @property
    def is_native(self) -> bool:
        """True when its containers are processes of this kernel: their confinement can be read back."""

    @property
    def is_busy(self) -> bool:
        """True while a launch is under way: a child that nobody knows may be what comes of it."""

    def settle(self) -> None:
        """A child that was launched has ended and is reaped."""

    def finish(self) -> None:
        """The container is over: let the runtime forget it. Blocks, but not for ever."""


DriverFactory = Callable[[ContainerSpec, Cgroup], Driver]
