"""The run dir of a container: what its supervisor leaves there for whoever comes later.

`record` says who runs what, from before the first program runs; `sock` is the supervisor's
socket; `exit` appears, complete, when the container has ended. All on a tmpfs, so a reboot
clears them. Written by the supervisor only; the engine removes the directory.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
from dataclasses import asdict, dataclass, field
from typing import Any

from orlop.kernel.process import start_ticks
from orlop.runtime.spec import ExitRecord
from orlop.runtime.speccodec import exit_record_from_json

__all__ = [
    "Record",
    "clear",
    "connect",
    "is_alive",
    "listen",
    "read_exit",
    "read_record",
    "socket_inode",
    "unlink_socket",
    "wait_gone",
    "write_exit",
    "write_exit_at",
    "write_record",
]

RECORD = "record"
SOCKET = "sock"
EXIT = "exit"
RECORD_VERSION = 1
_BACKLOG = 64
_MAX_FILE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Record:
    """Who supervises a container. Pids are the host's; ticks are field 22 of /proc/<pid>/stat."""

    id: str
    supervisor_pid: int
    supervisor_ticks: int
    init_pid: int
    init_ticks: int
    cgroup: str  # relative to every hierarchy
    started_at_ns: int = 0  # 0 until execve has succeeded
    version: int = RECORD_VERSION
    extra: dict[str, Any] = field(default_factory=dict)


def write_record(run_fd: int, record: Record) -> None:
    """Replace the record as a whole."""
    _write_whole(run_fd, RECORD, {name: getattr(record, name) for name in Record.__match_args__})


def read_record(run_dir: str) -> Record | None:
    """The record, or None when there is none (or none that can be read)."""
    data = _read(run_dir, RECORD)
    names = set(Record.__dataclass_fields__)
    try:
        return Record(**{name: value for name, value in data.items() if name in names}) if data else None
    except TypeError:
        return None


def write_exit(run_fd: int, record: ExitRecord) -> None:
    """Write the exit record as a whole; the container has ended once this file exists."""
    _write_whole(run_fd, EXIT, asdict(record))


def write_exit_at(run_dir: str, record: ExitRecord) -> None:
    """`write_exit` for the engine, in the place of a supervisor that is gone."""
    run_fd = os.open(run_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        write_exit(run_fd, record)
    finally:
        os.close(run_fd)


def read_exit(run_dir: str) -> ExitRecord | None:
    """The exit record, or None while there is none."""
    data = _read(run_dir, EXIT)
    return exit_record_from_json(data) if data else None


def clear(run_dir: str) -> None:
    """Forget how an earlier run went, before a supervisor is asked for, lest it be taken for the new end."""
    for name in (EXIT, RECORD):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{run_dir}/{name}")


def listen(run_fd: int) -> socket.socket:
    """The supervisor's listening socket. Bound through a directory fd: the path may be of any length."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(SOCKET, dir_fd=run_fd)
    listener.bind(f"/proc/self/fd/{run_fd}/{SOCKET}")
    os.chmod(SOCKET, 0o600, dir_fd=run_fd)
    listener.listen(_BACKLOG)
    return listener


def socket_inode(run_fd: int) -> int:
    """What names the supervisor's socket now; 0 when there is none."""
    try:
        return os.stat(SOCKET, dir_fd=run_fd).st_ino
    except FileNotFoundError:
        return 0


def unlink_socket(run_fd: int, inode: int) -> None:
    """Take the name away, unless a later supervisor has it. Call it while the socket is open."""
    if inode and socket_inode(run_fd) == inode:
        os.unlink(SOCKET, dir_fd=run_fd)


def connect(run_dir: str) -> socket.socket | None:
    """A connection to the supervisor, or None when nobody listens."""
    try:
        run_fd = os.open(run_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    try:
        client.connect(f"/proc/self/fd/{run_fd}/{SOCKET}")
    except (FileNotFoundError, ConnectionRefusedError, BlockingIOError):  # the last: it accepts nobody
        client.close()
        return None
    finally:
        os.close(run_fd)
    return client


def is_alive(pid: int, ticks: int) -> bool:
    """Whether that very process still runs."""
    return ticks != 0 and start_ticks(pid) == ticks


def kill_supervisor(record: Record) -> None:
    """SIGKILL the supervisor that wrote the record, and nobody else; nothing happens when it has ended."""
    try:
        pidfd = os.pidfd_open(record.supervisor_pid)
    except OSError:
        return
    try:
        if is_alive(record.supervisor_pid, record.supervisor_ticks):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    finally:
        os.close(pidfd)


def wait_gone(pid: int, timeout_s: float) -> bool:
    """Wait until a process has ended; blocks."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return True
    try:
        return bool(select.select([pidfd], [], [], timeout_s)[0])
    finally:
        os.close(pidfd)


def _write_whole(run_fd: int, name: str, data: dict[str, Any]) -> None:
    temporary = f".{name}.new"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600, dir_fd=run_fd)
    try:
        os.write(fd, json.dumps(data).encode())
    finally:
        os.close(fd)
    os.rename(temporary, name, src_dir_fd=run_fd, dst_dir_fd=run_fd)


def _read(run_dir: str, name: str) -> dict[str, Any] | None:
    try:
        fd = os.open(f"{run_dir}/{name}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        data = json.loads(os.read(fd, _MAX_FILE_BYTES))
    except ValueError:
        return None
    finally:
        os.close(fd)
    return data if isinstance(data, dict) else None
