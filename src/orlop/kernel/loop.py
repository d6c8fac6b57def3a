"""Loop devices: the way to mount a layer on kernels that cannot mount EROFS from a file.

Devices are read-only and detach themselves (autoclear) when the last user goes: a crash leaves
nothing that has to be found again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
from collections.abc import Iterator

from orlop.kernel.syscall import Path

__all__ = ["attach", "attached"]

# include/uapi/linux/loop.h
_LOOP_CONFIGURE = 0x4C0A
_LOOP_CTL_GET_FREE = 0x4C82
_LO_FLAGS_READ_ONLY = 1
_LO_FLAGS_AUTOCLEAR = 4
_LO_NAME_SIZE = 64
# struct loop_config: fd, block size, then struct loop_info64 and 8 reserved words
_CONFIG = struct.Struct("=II5Q4I64s64s32s2Q8Q")
_LOOP_MAJOR = 7
_RETRIES = 64


@contextlib.contextmanager
def attached(path: Path, *, block_size: int = 0) -> Iterator[str]:
    """A read-only device of the file for as long as the block runs, and then as long as it is mounted."""
    device, fd = attach(path, block_size=block_size)
    try:
        yield device
    finally:
        os.close(fd)


def attach(path: Path, *, block_size: int = 0) -> tuple[str, int]:
    """Bind the file to a free device, read-only; returns the device and the fd that keeps it bound.

    The caller closes the fd after mounting. `block_size` 0 leaves the choice to the kernel.

    Raises:
        OSError: no loop driver (ENOENT, ENXIO), no free device after many tries (EBUSY).
    """
    backing = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
        try:
            return _attach_free(control, backing, os.fsencode(path), block_size)
        finally:
            os.close(control)
    finally:
        os.close(backing)


def _attach_free(control: int, backing: int, name: bytes, block_size: int) -> tuple[str, int]:
    """Somebody else may take the device between asking and binding: ask again."""
    flags = _LO_FLAGS_READ_ONLY | _LO_FLAGS_AUTOCLEAR
    label = name[-(_LO_NAME_SIZE - 1) :]  # for losetup's eyes: the end of a path tells more
    config = _CONFIG.pack(backing, block_size, *[0] * 5, 0, 0, 0, flags, label, b"", b"", *[0] * 10)
    for _ in range(_RETRIES):
        number = fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
        device = f"/dev/loop{number}"
        try:
            fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:  # a /dev that nobody fills
            os.mknod(device, 0o60660, os.makedev(_LOOP_MAJOR, number))
            fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(fd, _LOOP_CONFIGURE, bytearray(config))
        except OSError as error:
            os.close(fd)
            if error.errno != errno.EBUSY:
                raise OSError(error.errno, f"loop device: {error.strerror}", name) from error
        else:
            return device, fd
    raise OSError(errno.EBUSY, "no free loop device", name)
