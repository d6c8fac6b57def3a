"""Composition root of the zygote: the roles and jobs its children can take on.

Everything is imported before the first fork and nothing later: replacing the installed
package under a running engine or supervisor is harmless, and no child ever imports from a
place that a container can write to. House rule: nothing here may reach asyncio, sqlite3,
ssl, logging or subprocess.
"""

from __future__ import annotations

import importlib
import os
import signal
import socket
from typing import Any

from orlop.base import failpoints, log
from orlop.bundle.external import ExternalDriver
from orlop.procs import forker, sealing
from orlop.procs.channel import Channel
from orlop.procs.heap import settle_heap
from orlop.procs.title import remember_place
from orlop.procs.worker import Job, run_worker
from orlop.runtime import role

__all__ = ["JOBS", "SEALED", "load_jobs", "main"]

JOBS: dict[str, str] = {
    "build.digests": "orlop.build.jobs:digests",
    "build.files": "orlop.build.jobs:files",
    "build.layer": "orlop.build.jobs:layer",
    "files.archive": "orlop.engine.copyjobs:archive",
    "files.copy-up": "orlop.engine.copyup:copy_up",
    "files.export": "orlop.engine.copyjobs:export",
    "files.extract": "orlop.engine.copyjobs:extract",
    "files.list": "orlop.engine.copyjobs:list_files",
    "files.stat": "orlop.engine.copyjobs:stat_path",
    "images.attach": "orlop.store.hostmountjobs:attach_tree",
    "images.detach": "orlop.store.hostmountjobs:detach_tree",
    "layers.difference": "orlop.store.comparejobs:difference",
    "layers.index": "orlop.store.layerjobs:index",
    "layers.inventory": "orlop.store.comparejobs:inventory",
    "layers.unpack": "orlop.store.layerjobs:unpack",
    "layers.verify": "orlop.store.layerjobs:verify",
    "procs.echo": "orlop.procs.selftest:echo",
    "trees.changes": "orlop.store.treejobs:changes",
    "trees.copy": "orlop.store.treejobs:copy",
    "trees.diff": "orlop.store.treejobs:diff",
    "trees.empty": "orlop.store.treejobs:empty",
    "trees.usage": "orlop.store.treejobs:usage",
}
"""Job name -> `module:function`; one line per job, resolved when the zygote starts."""

SEALED = frozenset({"layers.index", "layers.unpack", "layers.verify", "trees.empty", "trees.usage"})
"""Jobs to which their descriptors are all; the others open trees by name, and mount them."""


def main(channel_fd: int) -> None:
    """Serve the engine at the other end of `channel_fd` until it closes."""
    os.setsid()
    # Children of the engine's terminal get its ^C; the zygote ends when the engine does.
    forker.reset_signals()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    failpoints.configure(os.environ.get("ORLOP_FAILPOINTS", ""))
    log.set_format(os.environ.get("ORLOP_LOG_FORMAT", "text"))
    if record := os.environ.get("ORLOP_FAILPOINTS_RECORD"):
        failpoints.record_hits(record)
    jobs = load_jobs()

    def worker(payload: dict[str, Any], fds: list[int]) -> int:
        return run_worker(jobs, Channel(socket.socket(fileno=fds[0])), payload, fds[1:], SEALED)

    def supervise(payload: dict[str, Any], fds: list[int]) -> int:
        return role.main(payload, fds, drivers=ExternalDriver)

    roles: dict[str, forker.Role] = {"worker": worker, "supervisor": supervise}
    channel = Channel(socket.socket(fileno=channel_fd))
    channel.socket.set_inheritable(False)
    os.chdir("/")
    remember_place()
    role.warm_up()
    sealing.prepare()
    settle_heap()
    forker.serve(channel, roles, {"supervisor": role.rehearse})


def load_jobs() -> dict[str, Job]:
    """Import every job now."""
    jobs: dict[str, Job] = {}
    for name, target in JOBS.items():
        module, _, function = target.partition(":")
        jobs[name] = getattr(importlib.import_module(module), function)
    return jobs
