"""Full files of a log, compressed by a process of its own and read as if they were not.

`0000000001.log` becomes `0000000001.log.gz`: written beside it under another name, renamed, then the plain
one is unlinked. Both may exist for a moment, or after a crash; they say the same.
"""

from __future__ import annotations

import contextlib
import os
import zlib

from orlop.base import log
from orlop.kernel.clone import clone3
from orlop.procs.forker import close_others
from orlop.procs.title import set_title
from orlop.runtime.logwriter import COMPRESSED, PARTIAL, file_name, log_files

__all__ = ["Compressor", "compress_file", "open_file"]

_CHUNK_BYTES = 256 << 10
_GZIP = 31  # window bits of a gzip stream
_LEVEL = 1
_NICE = 10
_READ_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW


def open_file(directory: str, number: int) -> int | None:
    """A descriptor of a file of the log, plain; None when it is gone. The caller closes it."""
    path = f"{directory}/{file_name(number)}"
    for _ in range(2):  # between the two looks it may be compressed
        with contextlib.suppress(FileNotFoundError):
            return os.open(path, _READ_FLAGS)
        with contextlib.suppress(FileNotFoundError):
            fd = os.open(path + COMPRESSED, _READ_FLAGS)
            try:
                return _expand(fd, directory)
            finally:
                os.close(fd)
    return None


def compress_file(directory: int, number: int) -> None:
    """Compress one file; nothing happens when it is gone.

    Raises:
        OSError: it cannot be read or written; the plain file stays.
    """
    name = file_name(number)
    try:
        source = os.open(name, _READ_FLAGS, dir_fd=directory)
    except FileNotFoundError:
        return
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        target = os.open(name + PARTIAL, flags, 0o640, dir_fd=directory)
        try:
            packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
            while data := os.read(source, _CHUNK_BYTES):
                _write_all(target, packer.compress(data))
            _write_all(target, packer.flush())
        finally:
            os.close(target)
    finally:
        os.close(source)
    os.rename(name + PARTIAL, name + COMPRESSED, src_dir_fd=directory, dst_dir_fd=directory)
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:  # rotated away meanwhile
        os.unlink(name + COMPRESSED, dir_fd=directory)


class Compressor:
    """Compresses all files but the newest of a directory, one process at a time."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._pid = 0

    def start(self) -> None:
        """Fork the process, unless one is at work: the next call then finds what this one left."""
        if self._pid:
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(self._pid, os.WNOHANG) == (0, 0):
                    return
        self._pid = 0
        with contextlib.suppress(OSError):  # no process to be had: the files stay as they are
            self._pid, pidfd = clone3()
            if self._pid == 0:
                self._become()
            os.close(pidfd)

    def _become(self) -> None:
        try:
            close_others([])
            set_title("orlop-logcompress")
            os.nice(_NICE)
            directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            for number in log_files(directory)[:-1]:
                compress_file(directory, number)
        except BaseException as error:  # noqa: BLE001 - a process border
            log.error("a log file was not compressed", error=f"{type(error).__name__}: {error}")
        finally:
            os._exit(0)


def _expand(source: int, directory: str) -> int:
    """The plain bytes, in a file without a name; what is damaged ends them."""
    fd = _unnamed_file(directory)
    try:
        unpacker = zlib.decompressobj(_GZIP)
        with contextlib.suppress(zlib.error):
            while data := os.read(source, _CHUNK_BYTES):
                while data:
                    _write_all(fd, unpacker.decompress(data, _CHUNK_BYTES * 4))
                    data = unpacker.unconsumed_tail
    except BaseException:
        os.close(fd)
        raise
    return fd


def _unnamed_file(directory: str) -> int:
    """Beside the log, where it had room before: a file may be as large as `max-size` says, memory is not."""
    try:
        return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:  # a file system without such files
        return os.memfd_create("orlop-log", os.MFD_CLOEXEC)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
