"""The driver of another OCI runtime: what a supervisor does in the place of cloning init.

Each command runs in a child that has a mount namespace of its own (`external_steps`) and ends
when the runtime has answered. The processes that the runtime leaves behind become children of
the supervisor: it is a subreaper for as long as such a child runs, and only then, so that it
does not collect what a container in the host's pid namespace abandons.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable
from dataclasses import replace
from typing import NoReturn

from orlop.base import log
from orlop.bundle.external_steps import Job, create, delete, execute
from orlop.kernel import process
from orlop.kernel.cgroup import Cgroup, Mode
from orlop.procs.channel import Channel
from orlop.runtime.launch import Launched, Pipes, launch_process
from orlop.runtime.plan import check_sysctls
from orlop.runtime.spec import ContainerSpec, ExecSpec

__all__ = ["ExternalDriver"]

_DELETE_LIMIT_S = 10.0


class ExternalDriver:
    """See `runtime.driving.Driver`."""

    def __init__(self, spec: ContainerSpec, cgroup: Cgroup) -> None:
        self._spec = spec
        self._cgroup = cgroup
        self._under_way = 0

    def launch(self, cgroup_fd: int | None, pipes: Pipes) -> Launched:
        """See `runtime.driving.Driver.launch`."""
        check_sysctls(self._spec)
        job = Job(self._spec, self._cgroup, pipes.child)
        return self._launch(lambda channel: create(job, channel), cgroup_fd)

    def launch_exec(self, spec: ExecSpec, init_pid: int, cgroup_fd: int | None, pipes: Pipes) -> Launched:
        """See `runtime.driving.Driver.launch_exec`."""
        job = Job(self._spec, self._cgroup, pipes.child, spec, init_pid)
        return self._launch(lambda channel: execute(job, channel), cgroup_fd)

    def _launch(self, child: Callable[[Channel], NoReturn], cgroup_fd: int | None) -> Launched:
        process.set_child_subreaper()
        # On a hybrid host the runtime is not shown the unified hierarchy: processes are born there.
        is_born_there = self._cgroup.host.mode is Mode.HYBRID
        try:
            launched = launch_process(child, cgroup_fd=cgroup_fd if is_born_there else None)
        except BaseException:
            self._settle_subreaper()
            raise
        self._under_way += 1
        return replace(launched, is_driver=True)

    @property
    def is_native(self) -> bool:
        """See `runtime.driving.Driver.is_native`."""
        return Job(self._spec, self._cgroup, (-1, -1, -1)).is_native

    @property
    def is_busy(self) -> bool:
        """See `runtime.driving.Driver.is_busy`."""
        return self._under_way > 0

    def settle(self) -> None:
        """See `runtime.driving.Driver.settle`."""
        self._under_way = max(0, self._under_way - 1)
        self._settle_subreaper()

    def _settle_subreaper(self) -> None:
        if not self._under_way:
            process.set_child_subreaper(is_subreaper=False)

    def finish(self) -> None:
        """See `runtime.driving.Driver.finish`."""
        job = Job(self._spec, self._cgroup, (-1, -1, -1))
        try:
            launched = launch_process(lambda _: delete(job))
        except OSError as error:
            log.warning("runtime not told of the end", container=self._spec.id, error=error)
            return
        launched.channel.close()
        self._under_way = 0
        if not select.select([launched.pidfd], [], [], _DELETE_LIMIT_S)[0]:
            log.warning("runtime does not forget its container", container=self._spec.id)
            signal.pidfd_send_signal(launched.pidfd, signal.SIGKILL)
        os.waitid(os.P_PIDFD, launched.pidfd, os.WEXITED)
        os.close(launched.pidfd)
