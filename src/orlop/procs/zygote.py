"""The engine's end of the zygote: start it by exec, ask it for children (asyncio).

The engine has threads and an event loop, so it never forks. It executes one zygote, which
forks on request. When the zygote dies, its children go on and the next request starts
another one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orlop.base import log
from orlop.kernel import mount
from orlop.procs.channel import Channel, channel_pair, close_all
from orlop.procs.connection import Connection, ConnectionLost

__all__ = ["Child", "Zygote"]

# Isolated and without `site`: the zygote sees exactly the engine's import path, no user's.
_BOOT = (
    "import sys; sys.path[:] = sys.argv[1].split(':'); from orlop.zygote import main; main(int(sys.argv[2]))"
)


@dataclass(slots=True)
class Child:
    """A forked process. The holder closes it; closing does not end the process."""

    pid: int
    pidfd: int

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal; nothing happens when the process has ended."""
        if self.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, number)

    async def wait_ended(self) -> None:
        """Wait until the process has ended. Its exit code is known to the zygote's kernel only."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        watch = os.dup(self.pidfd)  # several waiters, and `close` in between, are fine
        try:
            loop.add_reader(watch, _settle, ended)
            await ended
        finally:
            loop.remove_reader(watch)
            os.close(watch)

    def close(self) -> None:
        """Forget the process; may be repeated."""
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Zygote:
    """A running zygote, replaced when it dies."""

    def __init__(self) -> None:
        self._connection: Connection | None = None
        self._pid = 0
        self._start_lock = asyncio.Lock()
        self._exec_root = ""
        self._environment: dict[str, str] = {}
        self._is_closed = False

    @classmethod
    async def start(cls, exec_root: str, *, environment: Mapping[str, str] | None = None) -> Zygote:
        """Execute a zygote and wait until it has imported everything.

        Args:
            exec_root: our run dir; its name shows in the process list.
            environment: variables for zygote and children (`ORLOP_FAILPOINTS`); they get no others of ours.
        """
        zygote = cls()
        zygote._environment = dict(environment or {})
        zygote._exec_root = exec_root
        await zygote._ensure()
        return zygote

    @property
    def pid(self) -> int:
        """The process id of the present zygote."""
        return self._pid

    async def spawn(self, role: str, payload: dict[str, Any], fds: Sequence[int] = ()) -> Child:
        """Fork a child that becomes `role`; the descriptors stay the caller's (the child has copies).

        Raises:
            ConnectionLost: the zygote died twice while being asked.
            OrlopError: it could not fork.
        """
        for attempt in (1, 2):
            connection = await self._ensure()
            try:
                reply = await connection.request("spawn", {"role": role, "payload": payload}, fds)
            except ConnectionLost:
                # Asked twice at most: a payload that kills the zygote must not do it for ever.
                if attempt == 2:
                    raise
                continue
            if len(reply.fds) != 1:
                close_all(reply.fds)
                raise ConnectionLost("the zygote answered without a pidfd")
            return Child(int(reply.body["pid"]), reply.fds[0])
        raise AssertionError("unreachable")

    async def aclose(self) -> None:
        """Let the zygote end; its children go on."""
        self._is_closed = True
        if self._connection is not None:
            self._connection.close()
        self._reap()

    async def _ensure(self) -> Connection:
        async with self._start_lock:
            if self._is_closed:
                raise ConnectionLost("the zygote was closed")
            if self._connection is None or not self._connection.is_open:
                self._reap()
                self._connection = await self._exec()
            return self._connection

    async def _exec(self) -> Connection:
        ours, theirs = channel_pair()
        try:
            self._pid = _spawn_interpreter(theirs, self._exec_root, self._environment)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        connection = Connection(ours, name="the zygote", on_lost=self._lost)
        await connection.request("hello")
        return connection

    def _lost(self) -> None:
        log.warning("zygote ended; the next request starts another", pid=self._pid)

    def _reap(self) -> None:
        """Collect the zygote's exit status if it has ended."""
        if self._pid:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._pid, os.WNOHANG)


def _spawn_interpreter(channel: Channel, exec_root: str, extra: Mapping[str, str]) -> int:
    """Execute this interpreter from a read-only detached mount.

    A container may get hold of `/proc/<pid>/exe` of init or of an exec before they become the
    user's program (CVE-2019-5736). Opened through that link the interpreter is a file on a
    read-only mount, in nobody's namespace, and cannot be written.
    """
    import_path = ":".join(os.path.abspath(part) for part in sys.path)
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        **extra,
    }
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    sealed = _sealed_interpreter()
    try:
        path = f"/proc/self/fd/{sealed}" if sealed >= 0 else sys.executable
        target = max(channel.fileno(), null, sealed) + 1  # must not hide `sealed` before it is executed
        arguments = [
            sys.executable,
            "-I",
            "-S",
            "-X",
            "utf8",
            "-c",
            _BOOT,
            import_path,
            str(target),
            exec_root,
        ]
        actions = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, channel.fileno(), target)]
        return os.posix_spawn(path, arguments, environment, file_actions=actions, setsigmask=())
    finally:
        close_all([null, sealed] if sealed >= 0 else [null])


def _sealed_interpreter() -> int:
    """An fd of the interpreter's binary on a detached read-only mount, or -1 where that is not allowed."""
    try:
        clone = mount.detach(os.path.realpath(sys.executable))
    except OSError as error:
        log.warning("the interpreter is not protected by a read-only mount", error=error)
        return -1
    try:
        mount.mount_setattr(clone, set_attributes=mount.MOUNT_ATTR_RDONLY)
    except OSError:
        os.close(clone)
        raise
    return clone
