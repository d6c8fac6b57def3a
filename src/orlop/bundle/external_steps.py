"""What the children of a driver do: make the bundle, call the runtime, tell the supervisor.

A child has a mount namespace of its own, cut off from the engine's. There the container's root
is mounted, and every bind source, held by descriptor before the cut, gets a place with a plain
name: the runtime never follows a path that somebody else can change. The namespace ends with
the child; what the container needs was copied from it by then.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass, replace
from typing import NoReturn

from orlop.bundle import bundledir
from orlop.bundle.external_command import Call, Console, RuntimeFailed, exit_code_of
from orlop.bundle.external_facts import container_facts, exec_facts, missing_limits
from orlop.bundle.writing import config_document, process_document
from orlop.kernel import mount, process
from orlop.kernel.cgroup import Cgroup, Mode
from orlop.kernel.filesystems import mount_table
from orlop.kernel.namespaces import CLONE_NEWNS, unshare
from orlop.procs.channel import Channel
from orlop.procs.forker import CHANGED_SIGNALS, close_others, reset_signals, seal_imports
from orlop.runtime import terminal
from orlop.runtime.init import READY, fail
from orlop.runtime.spec import ContainerSpec, ExecSpec, ProcessSpec

__all__ = ["Job", "create", "delete", "execute"]

_NATIVE = frozenset({"crun", "runc"})
_EXECUTE_LIMIT_S = 30.0  # what is read back before would be the confinement of the runtime itself
_EXECUTE_STEP_S = 0.001
_PID_LIMIT = 32


@dataclass(frozen=True, slots=True)
class Job:
    """One call."""

    spec: ContainerSpec
    cgroup: Cgroup
    standard_fds: tuple[int, int, int]  # -1 where a terminal will be
    further: ExecSpec | None = None
    init_pid: int = 0

    @property
    def call(self) -> Call:
        """The runtime."""
        assert self.spec.runtime is not None
        name = f"exec-{os.getpid()}.log" if self.further is not None else "log"
        return Call(self.spec.runtime, self.state_dir, f"{self.directory}/{name}")

    @property
    def is_native(self) -> bool:
        """See `runtime.driving.Driver.is_native`; runtimes that we do not know may run machines."""
        return self.spec.runtime is not None and os.path.basename(self.spec.runtime.path) in _NATIVE

    @property
    def directory(self) -> str:
        """The bundle's."""
        return f"{self.spec.run_dir}/bundle"

    @property
    def state_dir(self) -> str:
        """The runtime's, which goes with the run dir."""
        return f"{self.spec.run_dir}/runtime"


def create(job: Job, channel: Channel) -> NoReturn:
    """Create and start the container."""
    step = "session"
    try:
        _settle(job, channel)
        step = "bundle"
        bundledir.make(job.directory, job.state_dir)
        facts = container_facts(job.spec, job.cgroup, job.directory, lambda: _cut_off(job.cgroup))
        if channel.receive() is None:  # the limits could not be set
            os._exit(1)
        facts = replace(facts, missing_limits=missing_limits(job.cgroup, job.spec.resources))
        bundledir.write(f"{job.directory}/config.json", config_document(job.spec, facts))
        step = "runtime"
        arguments = ["create", "--bundle", job.directory, "--pid-file", f"{job.directory}/pid"]
        pid = _make(job, channel, arguments, job.spec.process, f"{job.directory}/pid")
        before = _program_of(pid)
        job.call.run(["start", job.spec.id])
        if job.is_native:
            _wait_executed(pid, before)
        channel.send_packed(READY)
        os._exit(0)
    except BaseException as error:  # noqa: BLE001 - the process border
        _fail(channel, step, error)


def execute(job: Job, channel: Channel) -> NoReturn:
    """Run a further process."""
    step = "session"
    further = job.further
    assert further is not None
    name = f"{job.directory}/exec-{os.getpid()}"
    try:
        _settle(job, channel)
        _cut_off(job.cgroup)
        step = "process"
        facts = exec_facts(further.process, job.init_pid)
        document = process_document(further.process, facts, is_privileged=further.is_privileged)
        bundledir.write(f"{name}.json", document)
        step = "runtime"
        arguments = ["exec", "--detach", "--process", f"{name}.json", "--pid-file", f"{name}.pid"]
        _make(job, channel, arguments, further.process, f"{name}.pid")
        channel.send_packed(READY)
        _forget(name)
        os._exit(0)
    except BaseException as error:  # noqa: BLE001 - the process border
        _forget(name)
        _fail(channel, step, error)


def delete(job: Job) -> NoReturn:
    """Let the runtime forget the container, whatever has become of it."""
    try:
        _settle(job, None)
        _cut_off(job.cgroup)
        with contextlib.suppress(RuntimeFailed):  # it may never have known it
            job.call.run(["delete", "--force", job.spec.id])
        bundledir.remove(job.directory)
        bundledir.remove(job.state_dir)
    finally:
        os._exit(0)


def _settle(job: Job, channel: Channel | None) -> None:
    seal_imports()
    reset_signals(CHANGED_SIGNALS)
    process.set_dumpable(is_dumpable=False)
    process.set_name("orlop-driver")
    os.setsid()
    os.umask(0o022)
    keep = [fd for fd in job.standard_fds if fd >= 0] + ([channel.fileno()] if channel else [])
    close_others(keep)
    # The supervisor is protected from the OOM killer; its children are not.
    bundledir.write_text("/proc/self/oom_score_adj", "0")
    unshare(CLONE_NEWNS)


def _cut_off(cgroup: Cgroup) -> None:
    """Leave the engine's mounts as they are, and show the runtime only the cgroups that are ours.

    crun refuses hosts whose unified hierarchy has controllers beside version 1, and any runtime
    would leave directories in hierarchies that we do not look after.
    """
    mount.mount_setattr("/", propagation="private", is_recursive=True)
    if cgroup.host.mode not in (Mode.HYBRID, Mode.V1):
        return
    ours = set(cgroup.host.v1.values())
    for entry in mount_table():
        target = os.fsdecode(entry.target)
        if entry.kind in ("cgroup", "cgroup2") and target not in ours:
            with contextlib.suppress(OSError):
                mount.umount2(target, mount.MNT_DETACH)


def _make(job: Job, channel: Channel, arguments: list[str], spec: ProcessSpec, pid_path: str) -> int:
    """Have a process made and tell which it is."""
    if not spec.has_tty:
        job.call.run([*arguments, job.spec.id], job.standard_fds)
        return _tell_program(channel, pid_path)
    os.chdir(job.directory)  # the name of a socket must be short, and runtimes go there, too
    console = Console(f"console-{os.getpid()}.sock")
    try:
        job.call.run([*arguments, "--console-socket", console.name, job.spec.id])
        master = console.receive()
    finally:
        console.close()
        os.chdir("/")
    if any(spec.tty_size):
        terminal.set_size(master, *spec.tty_size)
    pid = _tell_program(channel, pid_path)
    channel.send({"master": True}, [master])
    os.close(master)
    return pid


def _program_of(pid: int) -> tuple[int, int] | None:
    """What it executes now; None when it has ended."""
    try:
        found = os.stat(f"/proc/{pid}/exe")
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _wait_executed(pid: int, before: tuple[int, int] | None) -> None:
    """Wait until the runtime's init has become the program: `start` returns before its last steps."""
    deadline = time.monotonic() + _EXECUTE_LIMIT_S
    while before is not None and _program_of(pid) == before and time.monotonic() < deadline:
        time.sleep(_EXECUTE_STEP_S)


def _parent_of(pid: int) -> int:
    with open(f"/proc/{pid}/stat", "rb") as file:
        text = file.read()
    return int(text[text.rindex(b")") + 2 :].split()[1])


def _tell_program(channel: Channel, pid_path: str) -> int:
    """Its parent is the supervisor by now, which reaps it: until then the pid means nobody else."""
    try:
        with open(pid_path, encoding="ascii") as file:
            pid = int(file.read(_PID_LIMIT))
        pidfd = process.pidfd_open(pid)
        is_ours = _parent_of(pid) == os.getppid()
    except (OSError, ValueError):
        raise RuntimeFailed("the runtime did not say which process it made") from None
    if not is_ours:  # whatever else it is, it must not be signalled as the container's
        raise RuntimeFailed(f"process {pid}, which the runtime names, is not one that it made")
    channel.send({"program": pid}, [pidfd])
    os.close(pidfd)
    return pid


def _forget(name: str) -> None:
    for suffix in ("json", "pid", "log"):
        with contextlib.suppress(OSError):
            os.unlink(f"{name}.{suffix}")


def _fail(channel: Channel, step: str, error: BaseException) -> NoReturn:
    if not isinstance(error, RuntimeFailed):
        fail(channel, step, error)
    with contextlib.suppress(OSError):
        text = error.message
        body = {"step": "runtime", "errno": 0, "message": text, "exit_code": exit_code_of(text)}
        channel.send(body)
    os._exit(1)
