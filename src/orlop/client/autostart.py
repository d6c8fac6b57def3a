"""Start the engine when its socket is silent: one lock, one winner, everybody else waits.

Only for the default socket: an endpoint that somebody named is somebody's to start.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
from collections.abc import Mapping

from orlop.client.endpoint import CannotConnect, Endpoint

__all__ = ["connect_or_start"]

_WAIT_S = 15.0
_POLL_S = 0.02


def connect_or_start(endpoint: Endpoint, environ: Mapping[str, str]) -> None:
    """Return when the endpoint answers; start `orlopd` when it is the silent default one.

    Raises:
        CannotConnect: nobody listens and starting is not ours to do, or it failed.
    """
    if endpoint.ssh:
        return  # the command at the other end starts it, and a connection is no small thing
    try:
        endpoint.connect().close()
    except CannotConnect:
        if not endpoint.is_default or os.geteuid() != 0:
            raise
        _start(endpoint, environ)


def _start(endpoint: Endpoint, environ: Mapping[str, str]) -> None:
    run_dir = os.path.dirname(endpoint.path)
    os.makedirs(run_dir, mode=0o711, exist_ok=True)
    log_path = os.path.join(run_dir, "orlopd.log")
    with open(os.path.join(run_dir, "start.lock"), "a", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _answers(endpoint):  # somebody else was faster
            return
        child = _spawn(log_path, environ)
        deadline = time.monotonic() + _WAIT_S
        while time.monotonic() < deadline:
            if _answers(endpoint):
                return
            if os.waitpid(child, os.WNOHANG)[0]:
                break
            time.sleep(_POLL_S)
    raise CannotConnect("the engine did not start", hint=f"its log is {log_path}")


def _answers(endpoint: Endpoint) -> bool:
    try:
        endpoint.connect().close()
    except CannotConnect:
        return False
    return True


def _spawn(log_path: str, environ: Mapping[str, str]) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-m", "orlop.daemon"],
        dict(environ),
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, log_path, flags, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )
