"""Project quotas: a limit on the bytes below one directory, on ext4 and XFS mounted with `prjquota`.

Files born in a directory that carries a project id and the inherit flag carry it too, and the file
system counts their blocks. Spec: quotactl(2), ioctl_xfs_fsgetxattr(2), Documentation/filesystems/ext4.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct

from orlop.kernel.syscall import INT, PTR, UINT, SystemCall

__all__ = ["Usage", "get_project", "is_enforced", "read_usage", "set_limit", "set_project"]

_GET_ATTRIBUTES, _SET_ATTRIBUTES = 0x801C581F, 0x401C5820
_ATTRIBUTES = struct.Struct("=IIIII8x")  # struct fsxattr: flags, extent size, extents, project, cow size
_INHERIT = 0x200
_PROJECT = 2  # PRJQUOTA
_GET_QUOTA, _SET_QUOTA, _GET_STATE = 0x800007, 0x800008, 0x5805
_QUOTA = struct.Struct("=QQQQQQQQI4x")  # struct if_dqblk
_BLOCK_LIMITS = 1  # QIF_BLIMITS
_BLOCK = 1024
_STATE_BYTES = 256  # struct fs_quota_stat is shorter; the kernel writes no more than that
_ENFORCED = 1 << 5  # FS_QUOTA_PDQ_ENFD

_quotactl_fd = SystemCall("quotactl_fd", UINT, UINT, INT, PTR)

Usage = tuple[int, int]
"""Bytes used, and the limit in bytes; 0 = none."""


def is_enforced(fd: int) -> bool:
    """Whether the file system of an open directory has project quotas switched on."""
    state = ctypes.create_string_buffer(_STATE_BYTES)
    try:
        _call(fd, _GET_STATE, 0, state)
    except OSError:
        return False  # ENOSYS: none in this kernel, or none on this mount
    (flags,) = struct.unpack_from("=H", state, 2)
    return bool(flags & _ENFORCED)


def get_project(fd: int) -> int:
    """The project id of a file or directory; 0 = none."""
    project: int = _ATTRIBUTES.unpack(_attributes(fd))[3]
    return project


def set_project(fd: int, project: int) -> None:
    """Put a directory into a project; what is made in it from now on is born into it."""
    flags, extent, extents, _, cow = _ATTRIBUTES.unpack(_attributes(fd))
    fcntl.ioctl(fd, _SET_ATTRIBUTES, _ATTRIBUTES.pack(flags | _INHERIT, extent, extents, project, cow))


def read_usage(fd: int, project: int) -> Usage:
    """What a project uses and may use, on the file system of `fd`."""
    buffer = ctypes.create_string_buffer(_QUOTA.size)
    try:
        _call(fd, _GET_QUOTA, project, buffer)
    except FileNotFoundError:  # XFS: nobody has heard of that project
        return 0, 0
    hard, _, used, *_ = _QUOTA.unpack(buffer.raw)
    return used, hard * _BLOCK


def set_limit(fd: int, project: int, limit_bytes: int) -> None:
    """Let a project use so many bytes; 0 = any number.

    A process with CAP_SYS_RESOURCE may go beyond: the kernel lets it, whatever the limit.
    """
    blocks = -(-limit_bytes // _BLOCK)
    data = _QUOTA.pack(blocks, blocks, 0, 0, 0, 0, 0, 0, _BLOCK_LIMITS)
    _call(fd, _SET_QUOTA, project, ctypes.create_string_buffer(data, _QUOTA.size))


def _attributes(fd: int) -> bytes:
    try:
        return fcntl.ioctl(fd, _GET_ATTRIBUTES, bytes(_ATTRIBUTES.size))
    except OSError as error:
        if error.errno == errno.ENOTTY:  # a file system without such attributes
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP)) from error
        raise


def _call(fd: int, command: int, project: int, buffer: ctypes.Array[ctypes.c_char]) -> None:
    _quotactl_fd(fd, (command << 8 | _PROJECT) & 0xFFFFFFFF, project, buffer)
