"""Pid 1 of a container with `--init`: forwards signals, reaps orphans, ends as the program ends.

The confined first process forks; the child becomes the program, the parent stays as a small
loop of this already running interpreter. A separate static binary would be smaller but would
have to be built, shipped and trusted for each architecture; the loop costs the pages that
differ from the zygote's, about one MiB, and only for containers that ask for it.
"""

from __future__ import annotations

import contextlib
import os
import signal

from orlop.kernel.clone import clone3
from orlop.procs.channel import Channel
from orlop.procs.forker import close_others
from orlop.runtime import confine

__all__ = ["exit_code_of", "split"]

# Job control signals would stop pid 1 for good when it writes to a terminal it is not the foreground of.
_IGNORED = (signal.SIGTTIN, signal.SIGTTOU)


def exit_code_of(status: int) -> int:
    """A wait status as a shell shows it: the code, or 128 and the signal."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def split(channel: Channel, ready: confine.Ready) -> None:
    """Fork; returns in the child, which becomes the program. The parent never returns."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    child, _ = clone3()
    if child == 0:
        os.setpgid(0, 0)
        if ready.plan.has_tty:
            with contextlib.suppress(OSError):
                os.tcsetpgrp(0, os.getpid())
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        return
    close_others([channel.fileno()])
    confine.become(ready)
    channel.close()  # not before: at its end the supervisor reads back what this process may do
    _serve(child)


def _serve(child: int) -> None:
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signals = signal.valid_signals() - {signal.SIGTTIN, signal.SIGTTOU}
    while True:
        received = signal.sigwaitinfo(signals).si_signo
        if received == signal.SIGCHLD:
            _reap(child)
        else:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, received)


def _reap(child: int) -> None:
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            if pid == child:
                os._exit(exit_code_of(status))
