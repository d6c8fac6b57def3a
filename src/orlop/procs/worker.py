"""A worker: a forked child that runs one job and ends.

The job's report and result go through a message socket: any number of `{"progress": {...}}`,
then one `{"result": {...}}` or `{"error": {...}}`. A worker has mounts of its own, cannot
gain privileges and dies with the zygote. Closing the other end of the socket does not stop
it before its next report; the engine kills it by pidfd.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from orlop.kernel import mount
from orlop.kernel.namespaces import CLONE_NEWIPC, CLONE_NEWNS, unshare
from orlop.kernel.process import set_no_new_privs
from orlop.procs import sealing
from orlop.procs.channel import Channel, close_all
from orlop.procs.errors import encode_error
from orlop.procs.forker import die_with_zygote
from orlop.procs.title import set_title

__all__ = ["Job", "Report", "run_worker"]

Report = Callable[[dict[str, Any]], None]
Job = Callable[[dict[str, Any], list[int], Report], dict[str, Any]]
"""A job: payload, descriptors (closed when it returns, not by it) and a way to report progress."""


def run_worker(
    jobs: Mapping[str, Job],
    channel: Channel,
    payload: dict[str, Any],
    fds: list[int],
    sealed: Collection[str] = (),
) -> int:
    """Run the job that `payload` names and send its result; returns the exit code.

    Args:
        jobs: all there are.
        channel: to the engine.
        payload: `job` and its `payload`.
        fds: the job's.
        sealed: names of jobs that open nothing outside of their descriptors; see `procs.sealing`.
    """
    try:
        set_title(f"orlop-worker {payload['job']}")
        _confine()
        if payload["job"] in sealed:
            sealing.seal(fds)
        job = jobs[payload["job"]]
        result = job(payload["payload"], fds, lambda progress: channel.send({"progress": progress}))
        channel.send({"result": result})
    except BrokenPipeError:
        return 1  # nobody wants the result any more
    except BaseException as error:  # noqa: BLE001 - the process border: every failure travels to the engine
        channel.send({"error": encode_error(error)})
        return 1
    finally:
        close_all(fds)
    return 0


def _confine() -> None:
    die_with_zygote()
    unshare(CLONE_NEWNS | CLONE_NEWIPC)
    # Slave, not private: a lazy unmount of a layer in the engine must reach us, or we would pin it.
    mount.mount_setattr("/", propagation="slave", is_recursive=True)
    set_no_new_privs()
