"""kill, delete, pause, resume."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal

from orlop.base import log
from orlop.base.errors import OrlopError
from orlop.bundle import limits
from orlop.bundle.command.calling import Call, Verb
from orlop.bundle.command.flags import Flag
from orlop.bundle.config import Hook
from orlop.bundle.hooks import HookFailed, run_hooks
from orlop.bundle.records import Record, Store, oci_state
from orlop.bundle.refusal import ContainerMissing, Refused, WrongState
from orlop.kernel.cgroup import Mode

__all__ = ["VERBS", "delete_container", "signal_container", "signal_number"]

_KILL_WAIT_MS = 10_000


def kill(call: Call) -> int:
    """kill: send a signal to the first process, or with --all to every one."""
    number = signal_number(call.parsed.words[1] if len(call.parsed.words) > 1 else "SIGTERM")
    record, status = call.container()
    if call.parsed.is_set("all"):
        _signal_all(record, number)
        return 0
    if status == "stopped" and number == signal.SIGKILL and not record.has_pid_namespace:
        _signal_all(record, number)  # others outlive the first process
        return 0
    if status == "stopped":
        raise WrongState("container not running")
    signal_container(record, number)
    return 0


def delete(call: Call) -> int:
    """delete: forget a container that has ended, or with --force end it."""
    is_forced = call.parsed.is_set("force")
    try:
        record, status = call.container()
    except ContainerMissing:
        if not is_forced:
            raise
        call.store.remove(call.parsed.words[0])  # what a create that was killed may have left
        return 0
    if status not in ("stopped", "created") and not is_forced:
        raise WrongState(f"cannot delete container {record.id} that is not stopped: {status}")
    delete_container(call.store, record, is_forced=is_forced)
    return 0


def pause(call: Call) -> int:
    """pause: freeze every process."""
    record, status = call.container()
    if status not in ("created", "running"):
        raise WrongState(f"unable to pause a container that is {status}")
    record.cgroup().freeze()
    return 0


def resume(call: Call) -> int:
    """resume: let them go on."""
    record, status = call.container()
    if status != "paused":
        raise WrongState("unable to resume a container that is not paused")
    record.cgroup().thaw()
    return 0


def signal_number(text: str) -> int:
    """`9`, `KILL`, `sigkill`, `RTMIN+1`.

    Raises:
        Refused: no signal.
    """
    if text.isdecimal() and int(text) <= signal.NSIG:
        return int(text)
    name = text.upper().removeprefix("SIG")
    base, plus, offset = name.replace("-", "+-").partition("+")
    with contextlib.suppress(KeyError, ValueError):
        number = signal.Signals["SIG" + base] + (int(offset) if plus else 0)
        if 0 < number < signal.NSIG:
            return number
    raise Refused(f"unknown signal {text!r}")


def signal_container(record: Record, number: int) -> None:
    """Signal the first process; without a pid namespace KILL is for all, for nobody else ends them.

    Raises:
        WrongState: it has ended.
    """
    pidfd = record.pidfd()
    if pidfd is None:
        raise WrongState("container not running")
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        raise WrongState("container not running") from None
    finally:
        os.close(pidfd)
    if number == signal.SIGKILL:
        _end_rest(record)


def _end_rest(record: Record) -> None:
    """A frozen process takes no signal on v1; processes of others' pid namespaces outlive the first."""
    group = record.cgroup()
    if group.host.mode is Mode.NONE:
        return
    with contextlib.suppress(OSError):
        if not record.has_pid_namespace:
            group.kill_nowait()
        if group.is_frozen():
            group.thaw()


def _signal_all(record: Record, number: int) -> None:
    group = record.cgroup()
    if number == signal.SIGKILL:
        with contextlib.suppress(FileNotFoundError):
            group.kill_nowait()
        return
    with contextlib.suppress(FileNotFoundError):
        for pid in group.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def delete_container(store: Store, record: Record, *, is_forced: bool) -> None:
    """End it if need be, remove its cgroup and record, run its last hooks.

    Raises:
        OrlopError: it does not end.
    """
    _end(record)
    try:
        limits.destroy_cgroup(record.cgroup())
    except OSError as error:
        if not is_forced:
            raise Refused(f"unable to remove the container's cgroup: {error}") from error
        log.warning("cgroup not removed", cgroup=record.cgroup_path, error=error)
    hooks: tuple[Hook, ...] = ()
    with contextlib.suppress(OSError, OrlopError):
        hooks = store.config(record.id).hooks.poststop
    store.remove(record.id)
    for hook in hooks:  # all of them, whatever happens (spec: runtime.md, "Lifecycle")
        try:
            run_hooks("poststop", [hook], json.dumps(oci_state(record, "stopped")).encode())
        except HookFailed as error:
            log.warning("hook failed", error=error.message)


def _end(record: Record) -> None:
    pidfd = record.pidfd()
    if pidfd is None:
        return
    try:
        with contextlib.suppress(WrongState):
            signal_container(record, signal.SIGKILL)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if not poll.poll(_KILL_WAIT_MS):
            raise Refused("container does not end", hint="a process is stuck in the kernel")
    finally:
        os.close(pidfd)


VERBS = {
    "kill": Verb(
        kill,
        "send a signal to a container",
        "<container-id> [signal]",
        {"all": Flag("flag", "a", "every process of the container")},
        (1, 2),
    ),
    "delete": Verb(
        delete,
        "remove a container",
        flags={"force": Flag("flag", "f", "end it first, and no error if there is none")},
    ),
    "pause": Verb(pause, "freeze every process of a container"),
    "resume": Verb(resume, "let a paused container go on"),
}
