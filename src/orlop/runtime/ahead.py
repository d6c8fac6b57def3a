"""What every container needs and no spec decides, made before anybody asks for it.

The spare supervisor holds it as descriptors: new network, IPC and UTS namespaces, and detached
file systems that nobody has seen. No process lives in the namespaces; they and the mounts end
with the descriptors, however the supervisor ends. Nothing here may be used twice.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import NoReturn

from orlop.base import log
from orlop.kernel import process
from orlop.kernel.clone import clone3
from orlop.kernel.namespaces import CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWUTS
from orlop.procs.channel import Channel, channel_pair, close_all
from orlop.runtime import devices, rootfs

__all__ = ["Ahead", "loopback_up", "prepare"]

_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1


@dataclass(slots=True)
class Ahead:
    """Descriptors, -1 where there is none. Whoever uses one takes it out."""

    network: int = -1  # the loopback is up
    ipc: int = -1
    uts: int = -1
    sys: int = -1  # sysfs of `network`, read-only
    queues: int = -1  # mqueue of `ipc`
    dev: int = -1  # with links and default nodes
    terminals: int = -1
    null: int = -1
    empty: int = -1

    def descriptors(self) -> Iterator[int]:
        """All that are there."""
        return (fd for item in fields(self) if (fd := getattr(self, item.name)) >= 0)

    def take(self, name: str) -> int:
        """One of them, which is the caller's from now on; -1 for none."""
        fd: int = getattr(self, name)
        setattr(self, name, -1)
        return fd

    def close(self) -> None:
        """Give back what was not taken; may be repeated."""
        close_all(list(self.descriptors()))
        for item in fields(self):
            setattr(self, item.name, -1)


def prepare() -> Ahead:
    """Make everything; when that fails, nothing, and starts make their own. Single-threaded callers only."""
    ours, theirs = channel_pair()
    try:
        pid, pidfd = clone3(CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS)
        if pid == 0:
            _make(theirs)
        theirs.close()
        try:
            message = ours.receive()
        finally:
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
            os.close(pidfd)
    except OSError as error:
        log.warning("nothing made ahead", error=error)
        return Ahead()
    finally:
        ours.close()
        theirs.close()
    if message is None or len(message.fds) != len(fields(Ahead)):
        close_all(message.fds if message else ())
        return Ahead()
    return Ahead(*message.fds)


def _make(channel: Channel) -> NoReturn:
    """The short life of the first and only inhabitant of the namespaces."""
    code = 1
    try:
        process.set_dumpable(is_dumpable=False)
        os.umask(0)
        loopback_up()
        flags = os.O_RDONLY | os.O_CLOEXEC
        made = [os.open(f"/proc/self/ns/{name}", flags) for name in ("net", "ipc", "uts")]
        made += [rootfs.new_sys(is_writable=False), devices.new_queues()]
        made += [devices.new_dev(devices.DEFAULT_DEVICES), devices.new_terminals()]
        made += [rootfs.open_null(), rootfs.new_empty_directory()]
        channel.send({}, made)
        code = 0
    except OSError as error:
        log.warning("nothing made ahead", error=error)
    finally:
        os._exit(code)


def loopback_up() -> None:
    """Switch on `lo` in the present network namespace."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sH22x", b"lo", 0)
        (flags,) = struct.unpack_from("H", fcntl.ioctl(sock, _SIOCGIFFLAGS, request), 16)
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", flags | _IFF_UP))
