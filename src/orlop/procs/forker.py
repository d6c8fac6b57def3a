"""The zygote's loop: receive what to become, fork, hand back a pidfd.

One thread and no event loop, so a fork copies a process in a known state. Children leave
the zygote's session: closing the channel, killing the zygote or killing the engine does
not reach them. Requests: `spawn {role, payload}` with the child's descriptors; the reply
carries the pid and, as its only descriptor, the pidfd.
"""

from __future__ import annotations

import codecs
import gc
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from orlop.kernel.clone import clone3
from orlop.kernel.process import close_range, reset_signal, set_name, set_parent_death_signal
from orlop.procs.channel import Channel, Message, channel_pair, close_all
from orlop.procs.errors import encode_error
from orlop.procs.title import set_title

__all__ = [
    "ALL_SIGNALS",
    "CHANGED_SIGNALS",
    "Role",
    "close_others",
    "die_with_zygote",
    "reset_signals",
    "seal_imports",
    "serve",
]

Role = Callable[[dict[str, Any], list[int]], int]
"""What a child becomes: payload and descriptors (which it owns) in, exit code out."""

_EX_SOFTWARE = 70
_SPARE_DELAY_MS = 20  # the container just started goes first

ALL_SIGNALS = tuple(
    number
    for number in signal.Signals
    if number not in {signal.SIGKILL, signal.SIGSTOP} and number < signal.SIGRTMIN
)
_LIBRARY_SIGNALS = (32, 33)
"""Those that glibc keeps to itself: posix_spawn leaves them ignored in a child, sigaction(3) refuses them."""
CHANGED_SIGNALS = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGPIPE,
    signal.SIGXFSZ,
    signal.SIGCHLD,
)
"""What Python itself, the zygote and supervisors ignore."""
_zygote_pid: list[int] = []  # at most one, set before the first fork
for _name in ("ascii", "latin-1", "unicode_escape", "utf-8"):
    codecs.lookup(_name)  # found by an import, which children cannot do any more
_import_tables = (sys.path, sys.meta_path, sys.path_hooks, sys.path_importer_cache)


def serve(
    channel: Channel, roles: Mapping[str, Role], rehearsals: Mapping[str, Callable[[], None]] | None = None
) -> None:
    """Fork children on request until the other end closes.

    Children are reaped by the kernel (SIGCHLD is ignored here): whoever started one learns
    of its end through the pidfd.

    Args:
        channel: the engine's requests.
        roles: what children can become.
        rehearsals: roles of which one child is kept forked ahead, and what that child does
            until it is needed, so that its pages are its own by then. It ends with the zygote.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    _zygote_pid[:] = [os.getpid()]
    zygote = _Zygote(channel, roles, rehearsals or {})
    poll = select.poll()
    poll.register(channel.fileno(), select.POLLIN)
    while True:
        if zygote.lacks_spares and not poll.poll(_SPARE_DELAY_MS):
            zygote.fork_spare()
            continue
        message = channel.receive()
        if message is None:
            return
        try:
            zygote.answer(message)
        except OSError:  # the engine is gone; so is our purpose
            return


def die_with_zygote() -> None:
    """End this process when the zygote ends, also if it has done so already."""
    set_parent_death_signal(signal.SIGKILL)
    if _zygote_pid and os.getppid() != _zygote_pid[0]:
        os._exit(_EX_SOFTWARE)


def reset_signals(numbers: Iterable[signal.Signals] = ALL_SIGNALS) -> None:
    """Default dispositions and an empty mask: ignored signals would survive an execve.

    The zygote resets all that it inherited; a child only those that we changed since.
    """
    for number in numbers:
        signal.signal(number, signal.SIG_DFL)
    if numbers is ALL_SIGNALS:
        for hidden in _LIBRARY_SIGNALS:
            reset_signal(hidden)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def seal_imports() -> None:
    """Whatever is not imported now never will be in this process.

    The old tables are kept, not freed: freeing them would touch hundreds of shared pages.
    """
    gc.disable()
    sys.path, sys.meta_path, sys.path_hooks, sys.path_importer_cache = [], [], [], {}


@dataclass(slots=True)
class _Spare:
    """A child that waits for its payload."""

    pid: int
    pidfd: int
    channel: Channel


class _Zygote:
    def __init__(
        self, channel: Channel, roles: Mapping[str, Role], rehearsals: Mapping[str, Callable[[], None]]
    ) -> None:
        self._channel = channel
        self._roles = roles
        self._rehearsals = rehearsals
        self._spares: dict[str, _Spare] = {}

    @property
    def lacks_spares(self) -> bool:
        return len(self._spares) < len(self._rehearsals)

    def fork_spare(self) -> None:
        """Fork one child ahead; when that fails, requests simply fork their own."""
        name = next(name for name in self._rehearsals if name not in self._spares)
        ours, theirs = channel_pair()
        try:
            pid, pidfd = clone3()
        except OSError:
            ours.close()
            theirs.close()
            time.sleep(_SPARE_DELAY_MS / 1000)
            return
        if pid == 0:
            _wait_then_become(name, self._roles[name], self._rehearsals[name], theirs)
        theirs.close()
        self._spares[name] = _Spare(pid, pidfd, ours)

    def answer(self, message: Message) -> None:
        """Reply to one request."""
        reply: dict[str, Any] = {"re": message.body.get("id")}
        pidfd = -1
        try:
            if message.body.get("op") == "spawn":
                pid, pidfd = self._start(message)
                reply["ok"] = {"pid": pid}
            else:
                reply["ok"] = {}
        except (OSError, KeyError) as error:
            reply["error"] = encode_error(error)
        finally:
            close_all(message.fds)
        try:
            self._channel.send(reply, [pidfd] if pidfd >= 0 else [])
        finally:
            if pidfd >= 0:
                os.close(pidfd)

    def _start(self, message: Message) -> tuple[int, int]:
        name = str(message.body["role"])
        role = self._roles[name]
        spare = self._spares.pop(name, None)
        if spare is not None:
            try:
                spare.channel.send(message.body, message.fds)
            except OSError:  # somebody has killed it
                os.close(spare.pidfd)
            else:
                return spare.pid, spare.pidfd
            finally:
                spare.channel.close()
        pid, pidfd = clone3()
        if pid == 0:
            _become(name, role, message)
        return pid, pidfd


def _wait_then_become(name: str, role: Role, rehearse: Callable[[], None], channel: Channel) -> NoReturn:
    try:
        _settle(name, [channel.fileno()])
        rehearse()
        message = channel.receive()
        if message is None:
            os._exit(0)
        channel.close()
    except BaseException:  # noqa: BLE001 - the process border
        traceback.print_exc()
        os._exit(_EX_SOFTWARE)
    _run(role, message)


def _become(name: str, role: Role, message: Message) -> NoReturn:
    try:
        _settle(name, message.fds)
    except BaseException:  # noqa: BLE001 - the process border
        traceback.print_exc()
        os._exit(_EX_SOFTWARE)
    _run(role, message)


def _settle(name: str, keep: list[int]) -> None:
    close_others(keep)
    os.setsid()
    reset_signal(signal.SIGCHLD)
    set_name(f"orlop-{name}")
    set_title(f"orlop-{name}")
    gc.enable()


def _run(role: Role, message: Message) -> NoReturn:
    code = _EX_SOFTWARE
    try:
        code = role(message.body.get("payload") or {}, message.fds)
    except BaseException:  # noqa: BLE001 - a process border: report, then end without the parent's clean-up
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def close_others(keep: list[int]) -> None:
    """Close everything but the standard streams and `keep`."""
    first = 3
    for fd in sorted(keep):
        if fd > first:
            close_range(first, fd - 1)
        first = fd + 1
    close_range(first, 0xFFFFFFFF)
