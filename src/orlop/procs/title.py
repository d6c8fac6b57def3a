"""What `ps` shows of our processes: their role and whom they serve, not the zygote's command line.

The arguments are overwritten in place through /proc/self/mem; the place is the same in every
child of the zygote.
"""

from __future__ import annotations

import contextlib
import os

__all__ = ["remember_place", "set_title"]

_ARG_START, _ARG_END = 45, 46  # fields 48 and 49 of proc(5) stat, counted behind the name
_place: list[tuple[int, int]] = []  # at most one: start and size of the arguments


def remember_place() -> None:
    """Find out where the arguments are; called once, by the zygote."""
    with contextlib.suppress(OSError, ValueError, IndexError), open("/proc/self/stat", "rb") as file:
        text = file.read()
        fields = text[text.rindex(b")") + 2 :].split()
        start, end = int(fields[_ARG_START]), int(fields[_ARG_END])
        if 0 < start < end:
            _place[:] = [(start, end - start)]


def set_title(title: str) -> None:
    """Show `title` instead of the arguments; nothing happens where that is not possible."""
    if not _place:
        return
    start, size = _place[0]
    with contextlib.suppress(OSError):
        fd = os.open("/proc/self/mem", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.pwrite(fd, title.encode("utf-8", "replace")[: size - 1].ljust(size, b"\0"), start)
        finally:
            os.close(fd)
