"""Messages between our own processes: JSON plus file descriptors over SOCK_SEQPACKET.

One packet is one message. The first byte tells how the body travels: `J` the JSON follows
in the packet; `M` the first descriptor is a sealed memfd that holds it (payloads beyond
what a packet carries). All other descriptors belong to the message and pass to the
receiver, close-on-exec. Both ends are ours, yet a supervisor may be older than the engine:
sizes, seals and truncation are checked all the same.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from orlop.base.errors import Kind, OrlopError

__all__ = ["Channel", "ChannelBroken", "Message", "channel_pair", "close_all"]

INLINE_LIMIT_BYTES = 32 << 10
BODY_LIMIT_BYTES = 64 << 20
MAX_FDS = 64
_FD_SIZE = array.array("i").itemsize
_CONTROL_BYTES = socket.CMSG_SPACE(MAX_FDS * _FD_SIZE)
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class ChannelBroken(OrlopError):
    """The peer sent something that is not a message of this protocol."""

    kind: ClassVar[Kind] = Kind.UNAVAILABLE
    code: ClassVar[str] = "channel-broken"


@dataclass(slots=True)
class Message:
    """A received message; whoever takes it owns (and closes) the descriptors."""

    body: dict[str, Any]
    fds: list[int] = field(default_factory=list)


def close_all(fds: Iterable[int]) -> None:
    """Close descriptors, whatever happens."""
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)


class Channel:
    """One end of a message socket. Blocking or not as the socket is; not thread safe."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock

    def fileno(self) -> int:
        """The descriptor, for selectors."""
        return self.socket.fileno()

    def close(self) -> None:
        """Close this end; may be repeated."""
        self.socket.close()

    def send(self, body: dict[str, Any], fds: Sequence[int] = ()) -> None:
        """Send one message; the descriptors stay the caller's.

        Raises:
            BlockingIOError: non-blocking socket and the peer is behind.
            OSError: the peer is gone (EPIPE, ECONNRESET).
        """
        self.send_packed(json.dumps(body, separators=(",", ":")).encode(), fds)

    def send_packed(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Like `send` with the JSON already encoded: the only form used after a pivot."""
        if len(data) <= INLINE_LIMIT_BYTES:
            self._send_packet(b"J" + data, fds)
            return
        memfd = _sealed_memfd(data)
        try:
            self._send_packet(b"M", [memfd, *fds])
        finally:
            os.close(memfd)

    def _send_packet(self, packet: bytes, fds: Sequence[int]) -> None:
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.socket.sendmsg([packet], control, socket.MSG_NOSIGNAL)

    def receive(self) -> Message | None:
        """The next message, or None when the peer closed its end.

        Raises:
            BlockingIOError: non-blocking socket and nothing there.
            ChannelBroken: not a message.
        """
        try:
            data, control, flags = self._receive_packet()
        except ConnectionResetError:
            # The peer went away without reading all that we sent. The error is told once, and first;
            # what the peer had sent before is still there.
            data, control, flags = self._receive_packet()
        fds = _rights(control)
        if not data:
            close_all(fds)
            return None
        try:
            _check_whole(flags)
            return Message(_decode(_body_bytes(data, fds)), fds)
        except BaseException:
            close_all(fds)
            raise

    def _receive_packet(self) -> tuple[bytes, list[tuple[int, int, bytes]], int]:
        data, control, flags, _ = self.socket.recvmsg(
            INLINE_LIMIT_BYTES + 1, _CONTROL_BYTES, socket.MSG_CMSG_CLOEXEC
        )
        return data, control, flags


def channel_pair() -> tuple[Channel, Channel]:
    """Two connected ends."""
    one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Channel(one), Channel(two)


def _rights(control: list[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, data in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % _FD_SIZE])
    return list(fds)


def _check_whole(flags: int) -> None:
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        raise ChannelBroken("a message was cut off: too large or too many descriptors")


def _body_bytes(packet: bytes, fds: list[int]) -> bytes:
    if packet[:1] == b"J":
        return packet[1:]
    if packet != b"M" or not fds:
        raise ChannelBroken("a packet is neither JSON nor a memfd")
    memfd = fds.pop(0)
    try:
        return _read_memfd(memfd)
    finally:
        os.close(memfd)


def _decode(data: bytes) -> dict[str, Any]:
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ChannelBroken(f"a message is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise ChannelBroken("a message is not a JSON object")
    return body


def _sealed_memfd(data: bytes) -> int:
    fd = os.memfd_create("orlop-message", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _read_memfd(fd: int) -> bytes:
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError as error:
        raise ChannelBroken("a large message is not in a memfd") from error
    size = os.fstat(fd).st_size
    if seals & _SEALS != _SEALS or size > BODY_LIMIT_BYTES:
        raise ChannelBroken("a large message is not sealed or beyond 64 MiB")
    parts = []
    offset = 0
    while offset < size:
        part = os.pread(fd, size - offset, offset)
        if not part:
            break
        parts.append(part)
        offset += len(part)
    return b"".join(parts)
