"""Children that became ours because a driven runtime left them behind: collected as they end.

One that stays a zombie in a pid namespace keeps that namespace, and so the container, from ending.
Children of our own making are in our namespace and looked after by whoever made them.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Collection

from orlop.procs.channel import close_all
from orlop.runtime.loop import READ, Loop

__all__ = ["Strangers"]


class Strangers:
    """Watches for ends by SIGCHLD; processes that the supervisor knows have their own watches."""

    def __init__(self, loop: Loop, known: Callable[[], Collection[int] | None]) -> None:
        """`known` gives the pids that are not strangers, None while that cannot be told."""
        self._loop = loop
        self._known = known
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.signal(signal.SIGCHLD, _notice)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        loop.watch(self._reader, READ, self._woken)

    def reap(self) -> None:
        """Collect those that have ended."""
        known = self._known()
        if known is None:
            return
        for pid in _children():
            if pid not in known and _is_inside(pid):
                with contextlib.suppress(ChildProcessError):
                    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)

    def close(self) -> None:
        """Stop watching."""
        signal.set_wakeup_fd(-1)
        self._loop.unwatch(self._reader)
        close_all([self._reader, self._writer])

    def _woken(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._reader, 4096)
        self.reap()


def _children() -> list[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return []


def _is_inside(pid: int) -> bool:
    """Whether it is in a pid namespace below ours."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            line = next((line for line in file if line.startswith("NSpid:")), "")
    except OSError:
        return False
    return len(line.split()) > 2


def _notice(_number: int, _frame: object) -> None:
    """Only the wake-up counts."""
