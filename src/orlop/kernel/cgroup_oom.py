"""Being told when a cgroup runs out of memory: an eventfd on v1, inotify on v2."""

from __future__ import annotations

import contextlib
import os
from types import TracebackType
from typing import Self

from orlop.kernel import inotify
from orlop.kernel.cgroup import Cgroup, Mode

__all__ = ["OomWatch"]


class OomWatch:
    """An fd that is readable when something happened, and the number of kills since last asked.

    Owns its fd. A host whose kernel cannot tell raises OSError when the watch is made; the count
    of `Cgroup.oom_kill_count` is there all the same.
    """

    def __init__(self, cgroup: Cgroup) -> None:
        self._cgroup = cgroup
        self._seen = cgroup.oom_kill_count()
        self._is_v2 = cgroup.host.mode is Mode.V2
        directory = cgroup.directory("memory")
        self._fd = _watch_events(directory) if self._is_v2 else _watch_oom_control(directory)

    def fileno(self) -> int:
        """For selectors."""
        return self._fd

    def new_kills(self) -> int:
        """How many processes were killed since the last call; makes the fd unreadable again.

        It can be 0: on v1 the fd also wakes when tasks wait for memory and when the cgroup goes.
        """
        if self._is_v2:
            inotify.read_events(self._fd)
        else:
            with contextlib.suppress(BlockingIOError):
                os.read(self._fd, 8)
        count = self._cgroup.oom_kill_count()
        new, self._seen = max(count - self._seen, 0), max(count, self._seen)
        return new

    def close(self) -> None:
        """May be repeated."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _watch_events(directory: str) -> int:
    fd = inotify.open_inotify()
    try:
        inotify.add_watch(fd, f"{directory}/memory.events", inotify.IN_MODIFY)
    except OSError:
        os.close(fd)
        raise
    return fd


def _watch_oom_control(directory: str) -> int:
    # Documentation/admin-guide/cgroup-v1/memory.rst, "OOM Control"
    event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    try:
        control = os.open(f"{directory}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
        try:
            register = os.open(f"{directory}/cgroup.event_control", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(register, f"{event} {control}".encode("ascii"))
            finally:
                os.close(register)
        finally:
            os.close(control)
    except OSError:
        os.close(event)
        raise
    return event
