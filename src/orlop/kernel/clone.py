"""clone3 with a child that is a usable interpreter.

`os.fork` cannot create namespaces, start in a cgroup or return a pidfd. The raw call can, but
the interpreter must be told: its before and after hooks run around the call, with the GIL
held throughout, exactly as `os.fork` does it. Only a process with a single thread may do this:
the C library's own fork handlers (malloc locks, thread list) do not run. The zygote and the
supervisors are such processes; the engine never calls this.
"""

from __future__ import annotations

import ctypes
import signal
from ctypes import byref, c_int, c_uint64, sizeof

from orlop.kernel.namespaces import CLONE_INTO_CGROUP, CLONE_PIDFD
from orlop.kernel.syscall import PTR, SIZE, SystemCall, os_error

__all__ = ["clone3"]


class CloneArgs(ctypes.Structure):
    """The argument of the raw call."""

    # include/uapi/linux/sched.h, struct clone_args, CLONE_ARGS_SIZE_VER2
    _fields_ = (
        ("flags", c_uint64),
        ("pidfd", c_uint64),
        ("child_tid", c_uint64),
        ("parent_tid", c_uint64),
        ("exit_signal", c_uint64),
        ("stack", c_uint64),
        ("stack_size", c_uint64),
        ("tls", c_uint64),
        ("set_tid", c_uint64),
        ("set_tid_size", c_uint64),
        ("cgroup", c_uint64),
    )


raw_clone3 = SystemCall("clone3", PTR, SIZE, keeps_gil=True)


def _hook(name: str) -> ctypes._NamedFuncPointer:
    function = getattr(ctypes.pythonapi, name)
    function.restype = None
    function.argtypes = ()
    return function  # type: ignore[no-any-return]


_before_fork = _hook("PyOS_BeforeFork")
_after_fork_in_parent = _hook("PyOS_AfterFork_Parent")
_after_fork_in_child = _hook("PyOS_AfterFork_Child")


def clone3(
    flags: int = 0, *, cgroup_fd: int | None = None, exit_signal: int = signal.SIGCHLD
) -> tuple[int, int]:
    """Fork into new namespaces; returns (pid, pidfd) in the parent and (0, -1) in the child.

    The caller owns the pidfd (close-on-exec). The child must end with `os._exit` or exec and
    must not return into the parent's stack of `finally` blocks. With `cgroup_fd`, an fd of a
    v2 cgroup directory, the child starts there.

    Raises:
        OSError: EPERM, EINVAL (flags this kernel lacks), EBUSY (the v2 cgroup delegates to
            children), ENOSYS, EAGAIN (pids limit).
    """
    pidfd = c_int(-1)
    arguments = CloneArgs(flags=flags | CLONE_PIDFD, exit_signal=exit_signal)
    arguments.pidfd = ctypes.addressof(pidfd)
    if cgroup_fd is not None:
        arguments.flags |= CLONE_INTO_CGROUP
        arguments.cgroup = cgroup_fd
    pid, error = _call_between_hooks(arguments)
    if error:
        raise os_error("clone3", error)
    return (0, -1) if pid == 0 else (pid, pidfd.value)


def _call_between_hooks(arguments: CloneArgs) -> tuple[int, int]:
    """(pid, errno). Nothing between the hooks may raise, or the import lock stays taken."""
    pointer, size = byref(arguments), sizeof(arguments)
    pid, error = -1, 0
    _before_fork()
    try:
        pid = raw_clone3(pointer, size)
    except OSError as failure:
        error = failure.errno or 0
    finally:
        if pid == 0:
            _after_fork_in_child()
        else:
            _after_fork_in_parent()
    return pid, error
