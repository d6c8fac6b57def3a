"""How the kernel runs a process: execution domain, I/O priority, scheduling policy."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from orlop.kernel.syscall import INT, PTR, UINT, ULONG, SystemCall

__all__ = ["Scheduling", "set_io_priority", "set_personality", "set_scheduling"]


PER_LINUX = 0x0000
PER_LINUX32 = 0x0008

# include/uapi/linux/ioprio.h
IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
_IOPRIO_CLASS_SHIFT = 13
_IOPRIO_WHO_PROCESS = 1

# include/uapi/linux/sched.h
POLICIES = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_ISO": 4,
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}

_personality = SystemCall("personality", ULONG)
_ioprio_set = SystemCall("ioprio_set", INT, INT, INT)
_sched_setattr = SystemCall("sched_setattr", INT, PTR, UINT)


@dataclass(frozen=True, slots=True)
class Scheduling:
    """The attributes of sched_setattr(2); times in nanoseconds."""

    policy: int = 0
    nice: int = 0
    priority: int = 0
    flags: int = 0
    runtime_ns: int = 0
    deadline_ns: int = 0
    period_ns: int = 0


def set_personality(domain: int) -> None:
    """The execution domain of this process, inherited and kept over execve."""
    _personality(domain)


def set_io_priority(io_class: int, priority: int) -> None:
    """The I/O priority of this process: a value of IO_CLASSES, and 0 (first) to 7."""
    _ioprio_set(_IOPRIO_WHO_PROCESS, 0, io_class << _IOPRIO_CLASS_SHIFT | priority)


def set_scheduling(attributes: Scheduling) -> None:
    """The policy of this process."""
    size = 48  # SCHED_ATTR_SIZE_VER0
    packed = struct.pack(
        "=IIQiIQQQ",
        size,
        attributes.policy,
        attributes.flags,
        attributes.nice,
        attributes.priority,
        attributes.runtime_ns,
        attributes.deadline_ns,
        attributes.period_ns,
    )
    _sched_setattr(0, packed, 0)
