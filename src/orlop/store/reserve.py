"""Space set aside, so that deleting works on a full disk."""

from __future__ import annotations

import contextlib
import os

__all__ = ["Reserve"]

_SIZE_BYTES = 2 << 20  # some hundred pages of write-ahead log


class Reserve:
    """A file of allocated, unused blocks; used by the writer thread only."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._is_held = False
        self.take_back()

    def give_up(self) -> bool:
        """Free the blocks; False when there was nothing to free."""
        if not self._is_held:
            return False
        self._is_held = False
        with contextlib.suppress(OSError):
            os.unlink(self._path)
        return True

    def take_back(self) -> None:
        """Allocate the blocks again if they are not held; a full disk is left alone."""
        if self._is_held:
            return
        try:
            fd = os.open(self._path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError:
            return
        try:
            os.posix_fallocate(fd, 0, _SIZE_BYTES)
            self._is_held = True
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
        finally:
            os.close(fd)
