"""Capabilities: names and bits, the sets of a thread, and the one order in which to change them.

Names are written without `CAP_`, upper case. Unknown bits of a newer kernel are called by
number (`CAP_41` as `41`) so that nothing is lost on a round trip.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from ctypes import byref, c_int, c_uint32
from dataclasses import dataclass

from orlop.kernel.process import prctl
from orlop.kernel.syscall import PTR, SystemCall

__all__ = [
    "ALL_NAMES",
    "CapabilitySets",
    "apply",
    "bit",
    "current",
    "drop_bounding",
    "known",
    "last_capability",
    "mask_of",
    "names_of",
    "normalize",
]

# include/uapi/linux/capability.h, in bit order
ALL_NAMES = tuple(
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE "
    "NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT "
    "SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE "
    "AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ "
    "PERFMON BPF CHECKPOINT_RESTORE".split()
)
_BIT_OF = {name: number for number, name in enumerate(ALL_NAMES)}

_VERSION_3 = 0x20080522
_PR_CAPBSET_READ = 23
_PR_CAPBSET_DROP = 24
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_IS_SET = 1
_PR_CAP_AMBIENT_RAISE = 2
_PR_CAP_AMBIENT_CLEAR_ALL = 4


class _Header(ctypes.Structure):
    _fields_ = (("version", c_uint32), ("pid", c_int))


class _Data(ctypes.Structure):
    _fields_ = (("effective", c_uint32), ("permitted", c_uint32), ("inheritable", c_uint32))


_capget = SystemCall("capget", PTR, PTR)
_capset = SystemCall("capset", PTR, PTR)


@dataclass(frozen=True, slots=True)
class CapabilitySets:
    """The five sets of a thread as bit masks."""

    effective: int
    permitted: int
    inheritable: int = 0
    bounding: int = 0
    ambient: int = 0


def normalize(name: str) -> str:
    """`cap_net_raw`, `CAP_NET_RAW`, `net_raw` -> `NET_RAW`; unknown names raise ValueError."""
    bare = name.upper().removeprefix("CAP_")
    if bare not in _BIT_OF:
        raise ValueError(f"unknown capability {name!r}")
    return bare


def bit(name: str) -> int:
    """The number of a capability."""
    return _BIT_OF[normalize(name)]


def mask_of(names: Iterable[str]) -> int:
    """The set of these names; those that this kernel does not have are left out."""
    mask = 0
    for name in names:
        mask |= 1 << bit(name)
    return mask & ((2 << last_capability()) - 1)


def names_of(mask: int) -> tuple[str, ...]:
    """Names in bit order."""
    return tuple(
        ALL_NAMES[number] if number < len(ALL_NAMES) else str(number)
        for number in range(mask.bit_length())
        if mask >> number & 1
    )


def known() -> tuple[str, ...]:
    """All that this kernel has: what a privileged container gets."""
    return names_of((2 << last_capability()) - 1)


def last_capability() -> int:
    """The highest capability of this kernel, found by asking and then remembered."""
    if not _last:
        _last.append(_probe_last())
    return _last[0]


_last: list[int] = []


def _probe_last() -> int:
    number = 0
    while number < 63:
        try:
            prctl(_PR_CAPBSET_READ, number + 1, 0, 0, 0)
        except OSError:
            break
        number += 1
    return number


def current() -> CapabilitySets:
    """The sets of the calling thread."""
    header, data = _Header(_VERSION_3, 0), (_Data * 2)()
    _capget(byref(header), byref(data))
    bits = range(last_capability() + 1)
    return CapabilitySets(
        effective=data[0].effective | data[1].effective << 32,
        permitted=data[0].permitted | data[1].permitted << 32,
        inheritable=data[0].inheritable | data[1].inheritable << 32,
        bounding=sum(1 << n for n in bits if prctl(_PR_CAPBSET_READ, n, 0, 0, 0)),
        ambient=sum(1 << n for n in bits if prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_IS_SET, n, 0, 0)),
    )


def drop_bounding(keep: int) -> None:
    """Take everything but `keep` out of the bounding set; needs SETPCAP, so do it before `apply`."""
    for number in range(last_capability() + 1):
        if not keep >> number & 1 and prctl(_PR_CAPBSET_READ, number, 0, 0, 0):
            prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)


def apply(sets: CapabilitySets) -> None:
    """Set effective, permitted and inheritable, then ambient, of this thread. Bounding is not touched.

    The container's order: `drop_bounding`, keep-caps on, groups, gid, uid, then this.
    """
    header, data = _Header(_VERSION_3, 0), (_Data * 2)()
    for half, shift in ((data[0], 0), (data[1], 32)):
        half.effective = sets.effective >> shift & 0xFFFFFFFF
        half.permitted = sets.permitted >> shift & 0xFFFFFFFF
        half.inheritable = sets.inheritable >> shift & 0xFFFFFFFF
    _capset(byref(header), byref(data))
    prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    for number in range(last_capability() + 1):
        if sets.ambient >> number & 1:
            prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, number, 0, 0)
