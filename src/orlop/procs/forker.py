"""The zygote's loop: receive what to become, fork, hand back a pidfd.

One thread and no event loop, so a fork copies a process in a known state. Children leave
the zygote's session: closing the channel, killing the zygote or killing the engine does
not reach them. Requests: `spawn {role, payload}` with the child's descriptors; the reply
carries the pid and, as its only descriptor, the pidfd.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

from orlop.kernel.clone import clone3
from orlop.kernel.process import close_range, set_name
from orlop.procs.channel import Channel, Message, close_all
from orlop.procs.errors import encode_error

__all__ = ["ALL_SIGNALS", "CHANGED_SIGNALS", "Role", "close_others", "reset_signals", "seal_imports", "serve"]

Role = Callable[[dict[str, Any], list[int]], int]
"""What a child becomes: payload and descriptors (which it owns) in, exit code out."""

ALL_SIGNALS = tuple(
    number
    for number in signal.Signals
    if number not in {signal.SIGKILL, signal.SIGSTOP} and number < signal.SIGRTMIN
)
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
_import_tables = (sys.path, sys.meta_path, sys.path_hooks, sys.path_importer_cache)


def serve(channel: Channel, roles: Mapping[str, Role]) -> None:
    """Fork children on request until the other end closes.

    Children are reaped by the kernel (SIGCHLD is ignored here): whoever started one learns
    of its end through the pidfd.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while (message := channel.receive()) is not None:
        try:
            _answer(channel, message, roles)
        except OSError:  # the engine is gone; so is our purpose
            return


def reset_signals(numbers: Iterable[signal.Signals] = ALL_SIGNALS) -> None:
    """Default dispositions and an empty mask: ignored signals would survive an execve.

    The zygote resets all that it inherited; a child only those that we changed since.
    """
    for number in numbers:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def seal_imports() -> None:
    """Whatever is not imported now never will be in this process.

    The old tables are kept, not freed: freeing them would touch hundreds of shared pages.
    """
    gc.disable()
    sys.path, sys.meta_path, sys.path_hooks, sys.path_importer_cache = [], [], [], {}


def _answer(channel: Channel, message: Message, roles: Mapping[str, Role]) -> None:
    reply: dict[str, Any] = {"re": message.body.get("id")}
    pidfd = -1
    if message.body.get("op") == "hello":
        close_all(message.fds)
        channel.send({**reply, "ok": {}})
        return
    try:
        role = roles[str(message.body.get("role"))]
        pid, pidfd = clone3()
        if pid == 0:
            _become(channel, role, message)
        reply["ok"] = {"pid": pid}
    except (OSError, KeyError) as error:
        reply["error"] = encode_error(error)
    finally:
        close_all(message.fds)
    try:
        channel.send(reply, [pidfd] if pidfd >= 0 else [])
    finally:
        if pidfd >= 0:
            os.close(pidfd)


def _become(channel: Channel, role: Role, message: Message) -> NoReturn:
    code = 70  # EX_SOFTWARE
    try:
        channel.close()
        close_others(message.fds)
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        set_name(f"orlop-{message.body['role']}")
        gc.enable()
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
