"""What a process says about itself: prctl, ids of one thread, fds, host name, pidfds, signals.

The id calls are the raw ones and change the calling thread only; the C library's versions
signal every thread, which a single-threaded init has no use for.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterable, Sequence
from ctypes import c_uint32, c_uint64

from orlop.kernel.syscall import INT, PTR, SIZE, UINT, ULONG, SystemCall

__all__ = [
    "close_range",
    "ignore_signal",
    "parse_siginfo",
    "pidfd_open",
    "pidfd_send_signal",
    "reset_signal",
    "set_child_subreaper",
    "set_domain_name",
    "set_dumpable",
    "set_fs_ids",
    "set_groups",
    "set_host_name",
    "set_keep_caps",
    "set_name",
    "set_no_new_privs",
    "set_parent_death_signal",
    "set_res_gid",
    "set_res_uid",
    "signalfd",
    "start_ticks",
    "syncfs",
]

_DEAD_STATES = frozenset({b"Z", b"X"})  # a zombie whose parent does not care

# include/uapi/linux/prctl.h
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_KEEPCAPS = 8
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38

CLOSE_RANGE_UNSHARE = 2
CLOSE_RANGE_CLOEXEC = 4
LAST_FD = 0xFFFFFFFF

_SFD_CLOEXEC = 0o2000000
_SFD_NONBLOCK = 0o4000
_SIGSET_BYTES = 8

prctl = SystemCall("prctl", INT, ULONG, ULONG, ULONG, ULONG)
_prctl_pointer = SystemCall("prctl", INT, PTR, ULONG, ULONG, ULONG)
_rt_sigaction = SystemCall("rt_sigaction", INT, PTR, PTR, SIZE)
_STAT_BYTES = 4096
_IGNORED_ACTION = (1).to_bytes(8, sys.byteorder) + bytes(24)  # SIG_IGN
_DEFAULT_ACTION = bytes(32)  # struct sigaction of the kernel: SIG_DFL, no flags, empty mask
_SIGNAL_SET_BYTES = 8
_close_range = SystemCall("close_range", UINT, UINT, UINT)
_sethostname = SystemCall("sethostname", PTR, SIZE)
_setdomainname = SystemCall("setdomainname", PTR, SIZE)
_setgroups = SystemCall("setgroups", INT, PTR)
_setresuid = SystemCall("setresuid", UINT, UINT, UINT)
_setresgid = SystemCall("setresgid", UINT, UINT, UINT)
_setfsuid = SystemCall("setfsuid", UINT)
_setfsgid = SystemCall("setfsgid", UINT)
_pidfd_open = SystemCall("pidfd_open", INT, UINT)
_pidfd_send_signal = SystemCall("pidfd_send_signal", INT, INT, PTR, UINT)
_signalfd4 = SystemCall("signalfd4", INT, PTR, SIZE, INT)
_syncfs = SystemCall("syncfs", INT)


def set_no_new_privs() -> None:
    """No exec after this gains privileges; for good, inherited."""
    prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def set_dumpable(*, is_dumpable: bool) -> None:
    """A process that is not dumpable cannot be ptraced or looked into through /proc by its peers."""
    prctl(_PR_SET_DUMPABLE, int(is_dumpable), 0, 0, 0)


def set_parent_death_signal(signum: int) -> None:
    """Be sent `signum` when the parent thread ends; cleared by a change of ids, 0 turns it off.

    The parent may be gone already: check getppid afterwards.
    """
    prctl(_PR_SET_PDEATHSIG, signum, 0, 0, 0)


def set_child_subreaper(*, is_subreaper: bool = True) -> None:
    """Become the parent of orphaned descendants, as pid 1 would."""
    prctl(_PR_SET_CHILD_SUBREAPER, int(is_subreaper), 0, 0, 0)


def set_keep_caps(*, keeps: bool) -> None:
    """Keep permitted capabilities over the change from uid 0; cleared by exec."""
    prctl(_PR_SET_KEEPCAPS, int(keeps), 0, 0, 0)


def set_name(name: str) -> None:
    """The thread's name as `ps` and `top` show it, cut to 15 bytes."""
    _prctl_pointer(_PR_SET_NAME, name.encode("utf-8", "replace")[:15], 0, 0, 0)


def close_range(first: int, last: int = LAST_FD, flags: int = 0) -> None:
    """Close all fds from `first` to `last` inclusive, or mark them with CLOSE_RANGE_CLOEXEC."""
    if first <= last:
        _close_range(first, last, flags)


def set_host_name(name: str) -> None:
    """The host name of the UTS namespace; at most 64 bytes."""
    raw = name.encode("utf-8", "surrogateescape")
    _sethostname(raw, len(raw))


def set_domain_name(name: str) -> None:
    """The NIS domain name of the UTS namespace; at most 64 bytes."""
    raw = name.encode("utf-8", "surrogateescape")
    _setdomainname(raw, len(raw))


def set_groups(groups: Sequence[int]) -> None:
    """The supplementary groups of this thread, exactly these."""
    _setgroups(len(groups), (c_uint32 * len(groups))(*groups))


def set_res_gid(gid: int) -> None:
    """Real, effective and saved group id of this thread."""
    _setresgid(gid, gid, gid)


def set_res_uid(uid: int) -> None:
    """Real, effective and saved user id of this thread; call it after groups and gid."""
    _setresuid(uid, uid, uid)


def set_fs_ids(uid: int, gid: int) -> None:
    """The ids by which this thread's access to files is judged; leaving 0 drops capabilities over files."""
    _setfsgid(gid)
    _setfsuid(uid)


def pidfd_open(pid: int) -> int:
    """An fd of a process (close-on-exec), readable when it has ended; the caller closes it."""
    return _pidfd_open(pid, 0)


def pidfd_send_signal(pidfd: int, signum: int) -> None:
    """Signal exactly that process; ESRCH once it is reaped."""
    _pidfd_send_signal(pidfd, signum, None, 0)


def reset_signal(signum: int) -> None:
    """Give a signal its default action, also one of the two that the C library keeps to itself."""
    _rt_sigaction(signum, _DEFAULT_ACTION, None, _SIGNAL_SET_BYTES)


def ignore_signal(signum: int) -> None:
    """Ignore a signal; like `reset_signal` without `signal.signal`, whose enums cost a forked child pages."""
    _rt_sigaction(signum, _IGNORED_ACTION, None, _SIGNAL_SET_BYTES)


def signalfd(signals: Iterable[int]) -> int:
    """A non-blocking fd that reads 128-byte records (`parse_siginfo`) of `signals`.

    The caller blocks the signals first and closes the fd.
    """
    mask = c_uint64(0)
    for signum in signals:
        mask.value |= 1 << (int(signum) - 1)
    return _signalfd4(-1, ctypes.byref(mask), _SIGSET_BYTES, _SFD_CLOEXEC | _SFD_NONBLOCK)


def parse_siginfo(record: bytes) -> tuple[int, int]:
    """(signal, sender's pid) of one record read from a signalfd (signalfd(2), ssi_signo and ssi_pid)."""
    number = int.from_bytes(record[0:4], "little")
    pid = int.from_bytes(record[12:16], "little")
    return number, pid


def syncfs(fd: int) -> None:
    """Write back everything of the file system that `fd` is on; raises the error of a failed write-back."""
    _syncfs(fd)


def start_ticks(pid: int) -> int:
    """When a process started, in ticks since boot: with the pid it names one process. 0 = none (any more)."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        text = os.read(fd, _STAT_BYTES)
    except OSError:
        return 0
    finally:
        os.close(fd)
    fields = text[text.rindex(b")") + 2 :].split()
    return 0 if fields[0] in _DEAD_STATES else int(fields[19])
