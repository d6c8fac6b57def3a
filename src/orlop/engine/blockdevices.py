"""Block devices of I/O limits: from paths on the host to the numbers that the kernel takes."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from typing import Any

from orlop.base.errors import InvalidInput
from orlop.engine.requests import BlkioThrottle, BlkioWeight, HostConfig

__all__ = ["device_limits"]


def device_limits(host: HostConfig) -> dict[str, Any]:
    """The fields of a ResourceSpec that are about single devices; lines of `major:minor value`.

    Raises:
        InvalidInput: a path that is no block device (now: it may have been one at create).
    """
    return {
        "blkio_weight_devices": _lines(host.blkio_weight_device or ()),
        "blkio_read_bps": _lines(host.blkio_device_read_bps or ()),
        "blkio_write_bps": _lines(host.blkio_device_write_bps or ()),
        "blkio_read_iops": _lines(host.blkio_device_read_iops or ()),
        "blkio_write_iops": _lines(host.blkio_device_write_iops or ()),
    }


def _lines(items: Iterable[BlkioWeight | BlkioThrottle]) -> tuple[str, ...]:
    return tuple(
        f"{_number(item.path)} {item.weight if isinstance(item, BlkioWeight) else item.rate}"
        for item in items
    )


def _number(path: str) -> str:
    try:
        info = os.stat(path)
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or "invalid path").lower()
        raise InvalidInput(f"stat {path[:200]}: {reason}") from error
    if not stat.S_ISBLK(info.st_mode):
        raise InvalidInput(f"{path[:200]} is not a block device")
    return f"{os.major(info.st_rdev)}:{os.minor(info.st_rdev)}"
