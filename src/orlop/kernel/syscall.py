"""Raw system calls: numbers, prototypes bound at import, and errno turned into OSError.

Everything here is resolved when the module is imported. Code of ours goes on running after
a pivot into a hostile root, where a late `dlsym`, codec or import would load the attacker's
files; so no function of this package looks anything up when it is called.

Wrappers that release the GIL use `SystemCall(...)`; the two callers that must keep it
(`clone`) pass `keeps_gil=True`.
"""

from __future__ import annotations

import ctypes
import os
from ctypes import c_char_p, c_int, c_long, c_size_t, c_uint, c_ulong, c_void_p

__all__ = ["NR", "Path", "SystemCall", "c_path", "fd_path", "os_error"]

Path = str | bytes

# Calls added since Linux 5.1 have the same number on every architecture.
_COMMON = {
    "pidfd_send_signal": 424,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "pidfd_open": 434,
    "clone3": 435,
    "close_range": 436,
    "openat2": 437,
    "pidfd_getfd": 438,
    "mount_setattr": 442,
    "quotactl_fd": 443,
    "landlock_create_ruleset": 444,
    "landlock_add_rule": 445,
    "landlock_restrict_self": 446,
}
_X86_64 = {
    "rt_sigaction": 13,
    "setresuid": 117,
    "personality": 135,
    "ioprio_set": 251,
    "sched_setattr": 314,
    "setresgid": 119,
    "setfsuid": 122,
    "setfsgid": 123,
    "setgroups": 116,
    "capget": 125,
    "capset": 126,
    "pivot_root": 155,
    "prctl": 157,
    "mount": 165,
    "umount2": 166,
    "sethostname": 170,
    "setdomainname": 171,
    "inotify_add_watch": 254,
    "unshare": 272,
    "signalfd4": 289,
    "eventfd2": 290,
    "inotify_init1": 294,
    "syncfs": 306,
    "setns": 308,
    "seccomp": 317,
    "bpf": 321,
}
_AARCH64 = {
    "eventfd2": 19,
    "ioprio_set": 30,
    "personality": 92,
    "sched_setattr": 274,
    "inotify_init1": 26,
    "inotify_add_watch": 27,
    "umount2": 39,
    "rt_sigaction": 134,
    "mount": 40,
    "pivot_root": 41,
    "signalfd4": 74,
    "capget": 90,
    "capset": 91,
    "unshare": 97,
    "setresuid": 147,
    "setresgid": 149,
    "setfsuid": 151,
    "setfsgid": 152,
    "setgroups": 159,
    "sethostname": 161,
    "setdomainname": 162,
    "prctl": 167,
    "syncfs": 267,
    "setns": 268,
    "seccomp": 277,
    "bpf": 280,
}
_TABLES = {"x86_64": _X86_64, "aarch64": _AARCH64}

NR = _COMMON | _TABLES.get(os.uname().machine, {})
"""Numbers of the calls this package makes, for the machine we run on."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc_with_gil = ctypes.PyDLL(None, use_errno=True)

# Short names for prototypes; c_void_p takes bytes, byref(), arrays and None.
INT, UINT, LONG, ULONG, SIZE, PTR, STR = c_int, c_uint, c_long, c_ulong, c_size_t, c_void_p, c_char_p


class SystemCall:
    """One system call with its argument types, bound at import.

    Calling it returns the kernel's result or raises OSError with errno set and, when the
    caller passes `path`, the file name. EINTR is the caller's to handle: none of the calls
    made through here sleeps on a signal-interruptible condition.
    """

    __slots__ = ("_call", "_number", "name")

    def __init__(self, name: str, *argument_types: type, keeps_gil: bool = False) -> None:
        self.name = name
        self._number = NR.get(name, -1)  # an unknown machine gets ENOSYS when it calls, not at import
        call = (_libc_with_gil if keeps_gil else _libc)["syscall"]  # [] makes a fresh function object
        call.restype = c_long
        call.argtypes = (c_long, *argument_types)
        self._call = call

    def __call__(self, *args: object, path: Path | int | None = None) -> int:
        result: int = self._call(self._number, *args)
        if result < 0:
            raise os_error(self.name, ctypes.get_errno(), path)
        return result


def os_error(call: str, number: int, path: Path | int | None = None) -> OSError:
    """The OSError (of the fitting subclass) for a failed call; `path` becomes `filename`."""
    message = f"{call}: {os.strerror(number)}"
    return OSError(number, message) if path is None else OSError(number, message, path)


def c_path(path: Path) -> bytes:
    """A path as the kernel takes it; refuses NUL, which would silently cut the path short."""
    raw = os.fsencode(path)
    if b"\0" in raw:
        raise ValueError(f"path contains a NUL byte: {raw!r}")
    return raw


def fd_path(fd: int) -> str:
    """A path that names what `fd` is open on, for calls that lack a form taking an fd.

    Only for a process whose /proc is the host's own (never after a pivot into an image).
    """
    return f"/proc/self/fd/{fd}"
