"""Make the zygote's heap cheap to share: children write as few of its pages as possible.

A child copies every page that it writes to. After imports the allocator's pools are full of
small holes, and a child's first objects would go into them, one here, one there, copying a page
each. Filling the holes with dead objects makes children allocate in fresh pages instead.
"""

from __future__ import annotations

import gc
import os
import re
import sys

__all__ = ["settle_heap"]

_SIZE_CLASS = re.compile(r"^\s*\d+\s+(\d+)\s+\d+\s+\d+\s+(\d+)\s*$", re.MULTILINE)
_MAX_FILL_BYTES = 4 << 20
_BYTES_OVERHEAD = bytes.__basicsize__
_filling: list[object] = []


def settle_heap() -> int:
    """Collect, fill the holes, freeze; returns how many bytes were filled. Once, before the first fork."""
    gc.collect()
    gc.disable()  # a collection in between would make new holes
    filled = 0
    for size, count in _holes():
        if size < _BYTES_OVERHEAD or filled + size * count > _MAX_FILL_BYTES:
            continue
        _filling.extend([bytes(size - _BYTES_OVERHEAD) for _ in range(count)])
        filled += size * count
    gc.freeze()
    return filled


def _holes() -> list[tuple[int, int]]:
    """(block size, free blocks) of each class of the small object allocator; none if it does not tell."""
    memory = os.memfd_create("allocator", os.MFD_CLOEXEC)
    error_output = os.dup(2)
    try:
        sys.stderr.flush()
        os.dup2(memory, 2)
        sys._debugmallocstats()  # noqa: SLF001 - there is no other way
        os.dup2(error_output, 2)
        text = os.pread(memory, 1 << 20, 0).decode("ascii", "replace")
    finally:
        os.dup2(error_output, 2)
        os.close(error_output)
        os.close(memory)
    return [(int(size), int(count)) for size, count in _SIZE_CLASS.findall(text)]
