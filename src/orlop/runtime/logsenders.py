"""What each log service is told, and over which socket: one sender per service, blocking, with a time limit.

Used by the process of `runtime/logshipping.py` alone, so that no service can make a container wait.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from orlop.runtime.spec import LogServiceSpec
from orlop.wire import fluentforward, gelf, journalentry, syslogmsg
from orlop.wire.stdstream import STDERR

__all__ = ["Message", "Partial", "Sender", "ServiceError", "limits", "make_sender"]

_TIMEOUT_S = 5.0
_LOCAL_SYSLOG = ("/dev/log", "/var/run/syslog", "/var/run/log")
_INFO, _ERROR = 6, 3
_SHORT_ID = 12
_ACK_LIMIT = 4096
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


class ServiceError(OSError):
    """A service cannot be reached or does not answer as it should; the text is for the user."""


class Partial(NamedTuple):
    """Which piece of a long line this is."""

    id: str
    ordinal: int
    is_last: bool


@dataclass(frozen=True, slots=True)
class Message:
    """A line without its end, or a piece of a long one."""

    stream: int
    time_ns: int
    text: bytes
    partial: Partial | None = None

    @property
    def level(self) -> int:
        """Syslog's severity."""
        return _ERROR if self.stream == STDERR else _INFO


class Sender(Protocol):
    """A connection to a service; after an error, `connect` makes a new one."""

    def connect(self) -> None:
        """Connect; raises OSError."""

    def send(self, message: Message) -> None:
        """Send one message; raises OSError."""

    def close(self) -> None:
        """Drop the connection; may be repeated."""


def make_sender(spec: LogServiceSpec) -> Sender:
    """The sender of a spec, not connected yet."""
    match spec.kind:
        case "syslog":
            return _Syslog(spec)
        case "journald":
            return _Journal(spec)
        case "fluentd":
            return _Fluentd(spec)
        case "gelf":
            return _Gelf(spec)
        case _:
            raise ServiceError(errno.EINVAL, f"there is no log service {spec.kind!r}")


class _Socket:
    """A sender with one socket; `address` is a URL of the spec."""

    def __init__(self, spec: LogServiceSpec) -> None:
        self.spec = spec
        self.scheme, _, self.place = spec.address.partition("://")
        self.socket: socket.socket | None = None

    def connect(self) -> None:
        self.close()
        self.socket = _dial(self.scheme, self.place)

    def close(self) -> None:
        if self.socket is not None:
            self.socket.close()
            self.socket = None

    @property
    def is_stream(self) -> bool:
        return self.socket is not None and self.socket.type == socket.SOCK_STREAM

    def transmit(self, data: bytes) -> None:
        if self.socket is None:
            self.connect()
        assert self.socket is not None
        if self.is_stream:
            self._check_alive()
        self.socket.sendall(data)

    def _check_alive(self) -> None:
        """What is written after the peer has closed is lost without an error: look first."""
        assert self.socket is not None
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        if poll.poll(0) and not self.socket.recv(1, socket.MSG_PEEK):
            raise ServiceError(errno.EPIPE, "the log service has closed the connection")


class _Syslog(_Socket):
    def connect(self) -> None:
        if self.spec.address:
            super().connect()
            return
        self.close()
        for path in _LOCAL_SYSLOG:
            try:
                self.socket = _dial("unixgram", path)
            except OSError:
                continue
            return
        raise ServiceError(errno.ENOENT, "Unix syslog delivery error")

    def send(self, message: Message) -> None:
        data = syslogmsg.format_message(
            str(self.spec.settings.get("format", "")),
            priority=int(self.spec.settings.get("facility", 3)) * 8 + message.level,
            time_ns=message.time_ns,
            hostname=os.uname().nodename,
            tag=self.spec.tag,
            pid=os.getpid(),
            text=message.text,
            is_local=not self.spec.address or self.scheme.startswith("unix"),
        )
        if self.socket is None:
            self.connect()
        self.transmit(data + b"\n" if self.is_stream else data)


class _Journal(_Socket):
    def send(self, message: Message) -> None:
        fields = {"MESSAGE": message.text, "PRIORITY": b"%d" % message.level}
        fields |= {name: _encode(value) for name, value in self._origin().items()}
        if message.partial is not None:
            fields["CONTAINER_PARTIAL_MESSAGE"] = b"true"
            fields["CONTAINER_PARTIAL_ID"] = _encode(message.partial.id)
            fields["CONTAINER_PARTIAL_ORDINAL"] = b"%d" % message.partial.ordinal
            fields["CONTAINER_PARTIAL_LAST"] = b"true" if message.partial.is_last else b"false"
        data = journalentry.encode_entry(fields)
        try:
            self.transmit(data)
        except OSError as error:
            if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                raise
            self._transmit_memory(data)

    def _origin(self) -> dict[str, str]:
        spec = self.spec
        known = {
            "CONTAINER_ID": spec.container_id[:_SHORT_ID],
            "CONTAINER_ID_FULL": spec.container_id,
            "CONTAINER_NAME": spec.container_name,
            "CONTAINER_TAG": spec.tag,
            "IMAGE_NAME": spec.image_name,
            "SYSLOG_IDENTIFIER": spec.tag,
        }
        extra = {journalentry.field_name(name): value for name, value in spec.attributes.items()}
        extra.pop("", None)
        # a label must not be able to say who speaks
        return {name: value for name, value in extra.items() if name not in ("MESSAGE", "PRIORITY")} | known

    def _transmit_memory(self, data: bytes) -> None:
        assert self.socket is not None
        fd = os.memfd_create("orlop-log", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
            socket.send_fds(self.socket, [b""], [fd])
        finally:
            os.close(fd)


class _Fluentd(_Socket):
    def send(self, message: Message) -> None:
        spec, settings = self.spec, self.spec.settings
        record: dict[str, fluentforward.Packable] = {
            **spec.attributes,  # first: a label must not be able to say who speaks, or what
            "container_id": spec.container_id,
            "container_name": f"/{spec.container_name}",
            "source": "stderr" if message.stream == STDERR else "stdout",
            "log": message.text,
        }
        if message.partial is not None:
            record |= {
                "partial_message": "true",
                "partial_id": message.partial.id,
                "partial_ordinal": str(message.partial.ordinal),
                "partial_last": "true" if message.partial.is_last else "false",
            }
        chunk = os.urandom(16).hex() if settings.get("has_ack") else ""
        is_fine = bool(settings.get("has_nanoseconds"))
        data = fluentforward.forward_message(
            spec.tag, message.time_ns, record, has_nanoseconds=is_fine, chunk=chunk
        )
        self.transmit(data)
        if chunk:
            self._wait_acknowledged(chunk.encode())

    def _wait_acknowledged(self, chunk: bytes) -> None:
        assert self.socket is not None
        answer = b""
        while chunk not in answer:
            data = self.socket.recv(_ACK_LIMIT)
            if not data or len(answer) > _ACK_LIMIT:
                raise ServiceError(errno.EPROTO, "fluentd did not acknowledge a message")
            answer += data


class _Gelf(_Socket):
    def send(self, message: Message) -> None:
        spec, settings = self.spec, self.spec.settings
        extra = spec.attributes | {
            "container_id": spec.container_id,
            "container_name": spec.container_name,
            "image_id": spec.image_id,
            "image_name": spec.image_name,
            "command": spec.command,
            "tag": spec.tag,
        }
        data = gelf.encode(os.uname().nodename, message.text, message.time_ns, message.level, extra)
        if self.scheme == "tcp":
            self.transmit(data + b"\0")
            return
        packed = gelf.compress(data, str(settings.get("compression", "gzip")), int(settings.get("level", 1)))
        for chunk in gelf.chunks(packed, os.urandom(8)):
            self.transmit(chunk)


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _dial(scheme: str, place: str) -> socket.socket:
    """A connected socket; the error says where, in the words of dockerd's.

    Raises:
        ServiceError: nobody there, or no such host.
    """
    try:
        if scheme.startswith("unix"):
            return _dial_unix(scheme, place)
        host, _, port = place.rpartition(":")
        kind = socket.SOCK_STREAM if scheme == "tcp" else socket.SOCK_DGRAM
        return _dial_host(host.strip("[]"), int(port), kind)
    except OSError as error:
        text = (error.strerror or str(error)).lower()
        raise ServiceError(error.errno or errno.EIO, f"dial {scheme} {place}: connect: {text}") from error


def _dial_unix(scheme: str, path: str) -> socket.socket:
    kinds = [socket.SOCK_DGRAM] if scheme == "unixgram" else [socket.SOCK_STREAM, socket.SOCK_DGRAM]
    for kind in kinds:
        sock = socket.socket(socket.AF_UNIX, kind)
        sock.settimeout(_TIMEOUT_S)
        try:
            sock.connect(path)
        except OSError as error:
            sock.close()
            if error.errno != errno.EPROTOTYPE or kind == kinds[-1]:
                raise
            continue
        return sock
    raise AssertionError("unreachable")


def _dial_host(host: str, port: int, kind: socket.SocketKind) -> socket.socket:
    # bytes: a string would have to be encoded by a codec that cannot be loaded here any more
    places = socket.getaddrinfo(host.encode("ascii"), port, type=kind)
    failure = OSError(errno.EHOSTUNREACH, "no address")
    for family, _, _, _, address in places:
        sock = socket.socket(family, kind)
        sock.settimeout(_TIMEOUT_S)
        try:
            sock.connect(address)
        except OSError as error:
            failure = error
            sock.close()
            continue
        return sock
    raise failure


def limits(settings: Mapping[str, object]) -> tuple[float, int]:
    """Seconds to wait before the first repetition, and how many there are (0 = no end)."""
    wait, times = settings.get("retry_wait_s", 1.0), settings.get("max_retries", 0)
    return (float(wait) if isinstance(wait, int | float) else 1.0), (times if isinstance(times, int) else 0)
