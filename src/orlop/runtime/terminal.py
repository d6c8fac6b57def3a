"""Pseudo terminals, made inside the container's own devpts, without opening a path of its tree."""

from __future__ import annotations

import fcntl
import os
import struct
import termios

__all__ = ["open_terminal", "set_size", "take_control"]

_TIOCGPTPEER = 0x5441  # asm-generic/ioctls.h
_TIOCSPTLCK = 0x40045431
_TIOCGPTN = 0x80045430


def open_terminal(devpts_fd: int, size: tuple[int, int]) -> tuple[int, int, int]:
    """A new terminal: (master, slave, its number); the caller closes both."""
    flags = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
    master = os.open("ptmx", flags | os.O_NOFOLLOW, dir_fd=devpts_fd)
    try:
        fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
        number = struct.unpack("I", fcntl.ioctl(master, _TIOCGPTN, bytes(4)))[0]
        slave = fcntl.ioctl(master, _TIOCGPTPEER, flags)
    except OSError:
        os.close(master)
        raise
    if any(size):
        set_size(master, *size)
    return master, slave, number


def set_size(master: int, rows: int, columns: int) -> None:
    """Tell the terminal's programs its size."""
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows & 0xFFFF, columns & 0xFFFF, 0, 0))


def take_control(slave: int) -> None:
    """Make it the controlling terminal of the calling session leader."""
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
