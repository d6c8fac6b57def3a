"""The process that sends a container's log to a log service, from the log on disk.

The supervisor forks it when the container starts. It follows the log directory as any reader does, so the
log itself is its queue: a service that is slow, hangs or is gone costs the container nothing, and what is
sent later than `max-file` files are overwritten is lost to the service alone. It lives as long as the
supervisor holds the other end of its socket, then sends what is left and ends.
"""

from __future__ import annotations

import os
import select
import socket
import time
from typing import NoReturn

from orlop.base import log
from orlop.kernel.clone import clone3
from orlop.procs.forker import close_others
from orlop.procs.title import set_title
from orlop.runtime.logs import LogEntry, LogQuery, LogReader
from orlop.runtime.logsenders import Message, Partial, Sender, ServiceError, limits, make_sender
from orlop.runtime.spec import LogServiceSpec, LogSpec

__all__ = ["PIECE_BYTES", "LogShipping", "Shipper", "messages_of", "start_shipping"]

PIECE_BYTES = 16 << 10
DRAIN_LIMIT_S = 3.0
_START_LIMIT_S = 15.0
_READ_BYTES = 256 << 10
_MAX_WAIT_S = 30.0
_BLIND_WAIT_S = 0.2
_GROWTH = 1.5
_OK = b"ok"
_ERROR_BYTES = 4096


class LogShipping:
    """The supervisor's handle."""

    def __init__(self, sock: socket.socket, pid: int) -> None:
        self._socket = sock
        self._pid = pid

    def finish(self) -> None:
        """The log is complete; the process ends by itself. May be repeated."""
        self._socket.close()
        if self._pid:
            pid, self._pid = self._pid, 0
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                return


def start_shipping(spec: LogSpec) -> LogShipping:
    """Fork the process and wait until it has reached the service.

    Raises:
        ServiceError: the service is not there, and the driver is not asynchronous.
    """
    assert spec.service is not None
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid, pidfd = clone3()
    if pid == 0:
        _become(spec, spec.service, theirs)
    theirs.close()
    os.close(pidfd)
    ours.settimeout(_START_LIMIT_S)
    try:
        answer = ours.recv(_ERROR_BYTES)
    except OSError:
        answer = b"the log service does not answer"
    if answer == _OK:
        return LogShipping(ours, pid)
    ours.close()
    os.waitpid(pid, 0)
    text = answer.decode("utf-8", "replace") or "the sender of the log ended"
    raise ServiceError(0, f"failed to initialize logging driver: {text}")


def messages_of(entry: LogEntry) -> list[Message]:
    """A line as messages of at most 16 KiB, as dockerd cuts them."""
    text = entry.data.removesuffix(b"\n")
    if len(text) <= PIECE_BYTES:
        return [Message(entry.stream, entry.time_ns, text)] if text else []
    identity = os.urandom(32).hex()
    starts = range(0, len(text), PIECE_BYTES)
    return [
        Message(
            entry.stream,
            entry.time_ns,
            text[start : start + PIECE_BYTES],
            Partial(identity, number, number == len(starts)),
        )
        for number, start in enumerate(starts, 1)
    ]


class Shipper:
    """Reads and sends until the other end of `alive` is closed and all is sent, or for a while after that."""

    def __init__(self, spec: LogServiceSpec, reader: LogReader, sender: Sender, alive: socket.socket) -> None:
        self._reader = reader
        self._sender = sender
        self._alive = alive
        self._first_wait_s, self._max_tries = limits(spec.settings)
        self._deadline = float("inf")  # finite once the container has ended
        self._is_down = False
        self._name = f"{spec.kind} {spec.address}"

    def run(self) -> None:
        """Serve."""
        while True:
            has_ended = self._has_ended()
            for entries in self._reader.batches(_READ_BYTES):
                self._deliver(entries)
            if has_ended:
                self._deliver(self._reader.finish())
                return
            self._wait_more()

    def _deliver(self, entries: list[LogEntry]) -> None:
        for entry in entries:
            for message in messages_of(entry):
                self._send(message)

    def _send(self, message: Message) -> None:
        """Send, again and again if need be."""
        wait_s, tries = self._first_wait_s, 0
        while True:
            try:
                self._sender.send(message)
            except ValueError as error:  # it fits into no message of this service
                log.warning("a line was not sent to the log service", service=self._name, error=error)
                return
            except OSError as error:
                self._sender.close()
                self._report(error)
            else:
                self._is_down = False
                return
            tries += 1
            if self._max_tries and tries > self._max_tries:
                return
            if tries > 1:  # a connection that was closed meanwhile is made anew at once
                self._pause(wait_s)
                wait_s = min(wait_s * _GROWTH, _MAX_WAIT_S)

    def _report(self, error: OSError) -> None:
        if not self._is_down:
            log.warning("the log service does not take the log", service=self._name, error=error)
        self._is_down = True

    def _pause(self, wait_s: float) -> None:
        """Wait; when the time after the container's end is over, this process is, too."""
        if not self._has_ended():
            poll = select.poll()
            poll.register(self._alive, select.POLLIN)
            poll.poll(wait_s * 1000)
            return
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            log.warning("the end of the log did not reach the log service", service=self._name)
            raise TimeoutError
        time.sleep(min(wait_s, left_s))

    def _has_ended(self) -> bool:
        if self._deadline == float("inf"):
            poll = select.poll()
            poll.register(self._alive, select.POLLIN)
            if poll.poll(0):
                self._deadline = time.monotonic() + DRAIN_LIMIT_S
        return self._deadline != float("inf")

    def _wait_more(self) -> None:
        poll = select.poll()
        poll.register(self._alive, select.POLLIN)
        if self._reader.is_following:
            poll.register(self._reader.fileno(), select.POLLIN)
        poll.poll(None if self._reader.is_following else _BLIND_WAIT_S * 1000)


def _become(spec: LogSpec, service: LogServiceSpec, alive: socket.socket) -> NoReturn:
    code = 1
    try:
        close_others([alive.fileno()])
        set_title(f"orlop-logship {service.container_id[:12]}")
        code = _serve(spec, service, alive)
    except BaseException as error:  # noqa: BLE001 - a process border
        log.error("the sender of a log ended", error=f"{type(error).__name__}: {error}")
    finally:
        os._exit(code)


def _serve(spec: LogSpec, service: LogServiceSpec, alive: socket.socket) -> int:
    sender = make_sender(service)
    try:
        sender.connect()
    except OSError as error:
        if not service.settings.get("is_async"):
            alive.send((error.strerror or str(error)).encode("utf-8", "replace")[:_ERROR_BYTES])
            return 1
    with _follow(spec.directory) as reader:
        alive.send(_OK)
        try:
            Shipper(service, reader, sender, alive).run()
        except TimeoutError:
            return 1
    return 0


def _follow(directory: str) -> LogReader:
    query = LogQuery(tail=0)
    try:
        return LogReader(directory, query, follow=True)
    except OSError:  # the user's inotify instances are used up: look now and then
        return LogReader(directory, query)
