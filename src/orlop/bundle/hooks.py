"""Hooks: the caller's programs at moments of a container's life, with its state on standard input.

posix_spawn and nothing that imports: two kinds of hooks run in the container's init. A hook sees
exactly the environment that its entry gives.

Spec: OCI runtime-spec 1.2, config.md, "POSIX-platform Hooks".
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Mapping, Sequence

from orlop.bundle.config import Hook
from orlop.bundle.refusal import Refused
from orlop.kernel.process import pidfd_open

__all__ = ["HookFailed", "run_hooks"]

_MAX_MESSAGE_BYTES = 1024


class HookFailed(Refused):
    """A hook ended with something else than 0, or not in its time."""

    code = "runtime-hook-failed"


def run_hooks(
    kind: str, hooks: Sequence[Hook], state: bytes, *, inherited: Mapping[bytes, bytes] | None = None
) -> None:
    """Run them one after the other; `state` is the container's state as JSON.

    A hook without an environment of its own gets the `inherited` one.

    Raises:
        HookFailed: the first that fails; those behind it are not run.
    """
    for index, hook in enumerate(hooks):
        try:
            _run(hook, state, inherited or {})
        except HookFailed as error:
            raise HookFailed(f"error running {kind} hook #{index}: {error.message}") from error


def _run(hook: Hook, state: bytes, inherited: Mapping[bytes, bytes]) -> None:
    stdin, output = _file("state", state), _file("hook-output", b"")
    own = (os.fsencode(entry).partition(b"=") for entry in hook.env)
    environment = {name: value for name, equals, value in own if equals} if hook.env else inherited
    try:
        null = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
        actions = [
            (os.POSIX_SPAWN_DUP2, stdin, 0),
            (os.POSIX_SPAWN_DUP2, null, 1),
            (os.POSIX_SPAWN_DUP2, output, 2),
        ]
        try:
            pid = os.posix_spawn(
                hook.path, hook.args or (hook.path,), environment, file_actions=actions, setsigmask=()
            )
        except OSError as error:
            text = os.strerror(error.errno or 0).lower()
            raise HookFailed(f"fork/exec {hook.path}: {text}") from error
        finally:
            os.close(null)
        code = _wait(pid, hook.timeout_s)
        if code is None:
            raise HookFailed(f"{hook.path}: hook ran past specified timeout of {hook.timeout_s}.0s")
        if code:
            name = (signal.strsignal(-code) or str(-code)).lower() if code < 0 else ""
            how = f"signal: {name}" if name else f"exit status {code}"
            words = os.pread(output, _MAX_MESSAGE_BYTES, 0).decode("utf-8", "replace").strip()
            raise HookFailed(f"{hook.path}: {how}, stderr: {words}" if words else f"{hook.path}: {how}")
    finally:
        os.close(stdin)
        os.close(output)


def _file(name: str, content: bytes) -> int:
    """A file in memory, 3 or higher even where the caller has closed the standard streams."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    os.pwrite(fd, content, 0)
    return fd


def _wait(pid: int, timeout_s: int) -> int | None:
    """The exit code, minus the signal, or None after the time; then it is killed."""
    is_late = False
    if timeout_s:
        fd = pidfd_open(pid)
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        is_late = not poll.poll(timeout_s * 1000)
        os.close(fd)
        if is_late:
            os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    return None if is_late else os.waitstatus_to_exitcode(status)
