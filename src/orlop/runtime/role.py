"""What a child of the zygote does to become a supervisor, and what is done ahead of that."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import socket
from typing import Any

from orlop.kernel import process
from orlop.kernel.cgroup import Host, detect
from orlop.procs.forker import seal_imports
from orlop.procs.title import set_title
from orlop.runtime import ahead, contain
from orlop.runtime.driving import DriverFactory
from orlop.runtime.handlers import Handlers
from orlop.runtime.launch import open_pipes
from orlop.runtime.plan import plan_init
from orlop.runtime.server import Server
from orlop.runtime.spec import ContainerSpec, LogSpec, ProcessSpec, RootSpec, to_json
from orlop.runtime.speccodec import attach_spec_from_json, container_spec_from_json
from orlop.runtime.supervisor import Supervisor

__all__ = ["main", "rehearse", "warm_up"]

_OOM_SCORE = b"-999"
_host: list[Host] = []  # at most one: the cgroup hierarchies, looked up in the zygote
_ahead: list[ahead.Ahead] = []  # at most one
_sample: list[str] = []  # at most one: a spec, for rehearsals


def warm_up() -> None:
    """Look up what is the same for every container; called in the zygote."""
    contain.warm_up()
    _host[:] = [detect()]
    root, log_spec = RootSpec(("/",), None, None), LogSpec("none", "")
    _sample[:] = [json.dumps(to_json(ContainerSpec("0" * 64, "/", root, ProcessSpec(("true",)), log_spec)))]
    _rehearse()


def rehearse() -> None:
    """In the spare: make what every container needs, and the pages that a start writes to our own."""
    _harden()
    _ahead[:] = [ahead.prepare()]
    _rehearse()


def _rehearse() -> None:
    """Do what every start does, as far as it has no effect."""
    supervisor = Supervisor(container_spec_from_json(json.loads(_sample[0])), _host[0], ahead.Ahead())
    listener, peer = socket.socketpair()
    pipes = open_pipes(supervisor.spec.process)
    plan_init(supervisor.spec, supervisor.cgroup, (), pipes.child, is_in_unified=False)
    pipes.close()
    Server(supervisor.loop, listener, Handlers(supervisor)).close()
    peer.close()
    supervisor.loop.close()
    os.close(supervisor.run_fd)


def main(payload: dict[str, Any], fds: list[int], *, drivers: DriverFactory | None = None) -> int:
    """The role: `fds` are the first client's socket and one socket per attachment.

    Args:
        payload: the spec and what each attachment carries.
        fds: see above.
        drivers: makes the driver of a container that another runtime is to run.
    """
    seal_imports()
    gc.enable()
    control, *sockets = fds
    spec = container_spec_from_json(payload["spec"])
    attachments = [
        (attach_spec_from_json(item), socket.socket(fileno=fd))
        for item, fd in zip(payload["attachments"], sockets, strict=True)
    ]
    set_title(f"orlop-supervisor {spec.id[:12]}")
    if not _ahead:
        _harden()
    _redirect_output(spec.run_dir)
    made = _ahead.pop() if _ahead else ahead.Ahead()
    supervisor = Supervisor(spec, _host[0] if _host else detect(), made, drivers)
    supervisor.start(socket.socket(fileno=control), attachments)
    supervisor.run()
    return 0


def _harden() -> None:
    """Become a process that nothing but its container's end ends."""
    os.chdir("/")
    process.set_dumpable(is_dumpable=False)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        process.ignore_signal(number)
    with contextlib.suppress(OSError):  # needs SYS_RESOURCE
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, _OOM_SCORE)
        finally:
            os.close(fd)


def _redirect_output(run_dir: str) -> None:
    # The engine's standard error may be a pipe that somebody reads to its end.
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    fd = os.open(f"{run_dir}/supervisor.log", flags, 0o600)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)
