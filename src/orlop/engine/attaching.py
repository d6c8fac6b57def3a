"""Attach: live streams of a container, before and after its start.

A stream is the engine's end of a socket pair whose other end the supervisor has (or will get at
the start). The API pumps between it and the client; the input filter watches for the detach keys.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from dataclasses import dataclass

from orlop.engine.detach import DEFAULT_DETACH_KEYS, DetachFilter, parse_detach_keys
from orlop.engine.lifecycle import NotPossible, Status
from orlop.engine.model import Container
from orlop.engine.services import Services, emit
from orlop.runtime.contract import Attachment, TaskGone, open_attachment
from orlop.runtime.spec import AttachSpec

__all__ = ["AttachOptions", "AttachStream", "Attacher"]


@dataclass(frozen=True, slots=True)
class AttachOptions:
    """What a client wants of an attach."""

    has_logs: bool = False
    is_stream: bool = False
    has_stdin: bool = False
    has_stdout: bool = False
    has_stderr: bool = False
    detach_keys: str = ""


@dataclass(slots=True)
class AttachStream:
    """An attached stream; the holder closes the socket.

    `socket` is None when only logs were asked for or the container has ended. `logs_until_ns` bounds the
    log that belongs in front of the live stream.
    """

    socket: socket.socket | None
    has_tty: bool
    input_filter: DetachFilter | None
    logs_until_ns: int = 0
    forget: Callable[[], None] | None = None  # takes back what waits for a start that has not come

    def close(self) -> None:
        """Close the stream; the container goes on."""
        if self.forget is not None:
            self.forget()
        if self.socket is not None:
            self.socket.close()
            self.socket = None


class Attacher:
    """Connects clients to containers."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def attach(self, container: Container, options: AttachOptions) -> AttachStream:
        """Connect to the container's streams, or to those that it will have.

        Raises:
            NotPossible: it is paused or restarting; dockerd's texts.
        """
        keys = parse_detach_keys(options.detach_keys or DEFAULT_DETACH_KEYS)
        if container.status is Status.PAUSED:
            raise NotPossible(f"container {container.id} is paused, unpause the container before attach")
        if container.status is Status.RESTARTING:
            raise NotPossible(f"container {container.id} is restarting, wait until the container is running")
        config = container.record.config
        spec = AttachSpec(
            has_stdin=options.has_stdin and config.open_stdin,
            has_stdout=options.has_stdout,
            has_stderr=options.has_stderr,
        )
        stream = AttachStream(
            None,
            config.tty,
            DetachFilter(keys) if config.tty or options.detach_keys else None,
            self._services.clock.now_ns(),
        )
        if options.is_stream:
            await self._connect(container, spec, stream)
        emit(self._services, container, "attach")
        return stream

    async def _connect(self, container: Container, spec: AttachSpec, stream: AttachStream) -> None:
        task = container.task
        if task is not None:
            with contextlib.suppress(TaskGone):
                stream.socket, stream.logs_until_ns = await task.attach_at(spec)
            return
        stream.socket, pending = open_attachment(spec)
        container.attachments.append(pending)
        stream.forget = lambda: _forget(container, pending)

    def detached(self, container: Container) -> None:
        """The client left by the detach keys."""
        emit(self._services, container, "detach")


def _forget(container: Container, pending: Attachment) -> None:
    """A client that waited for a start has left; once started, the end is the supervisor's."""
    if pending in container.attachments:
        container.attachments.remove(pending)
        pending.socket.close()
