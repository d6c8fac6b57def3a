"""The supervisor's socket: clients, requests, replies (protocol: docs/internals/supervisor.md).

A request is answered by the function its `op` names. A reply may come later (`Pending`):
waiting for an exit is a request that is answered when it happens.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from orlop.base.errors import InvalidInput, OrlopError
from orlop.procs.channel import Channel, ChannelBroken, Message, close_all
from orlop.procs.errors import encode_error
from orlop.runtime.loop import READ, WRITE, Loop

__all__ = ["PROTOCOL_VERSION", "Handler", "Pending", "Server"]

PROTOCOL_VERSION = 1
MAX_CLIENTS = 256
_MAX_QUEUED = 1024


class Pending:
    """A reply that is owed to one request of one client; given once, to nobody if the client is gone."""

    def __init__(self, client: _Client, number: object) -> None:
        self._client = client
        self._number = number
        self._is_open = True

    def reply(self, body: dict[str, Any]) -> None:
        """Answer; later calls do nothing."""
        if self._is_open:
            self._is_open = False
            self._client.send({"re": self._number, "ok": body})

    def fail(self, error: BaseException) -> None:
        """Answer with an error; later calls do nothing."""
        if self._is_open:
            self._is_open = False
            self._client.send({"re": self._number, "error": encode_error(error)})


Handler = Callable[[dict[str, Any], list[int], Pending], dict[str, Any] | None]
"""Takes body, descriptors and the reply owed; returns the reply, or None to give it later.

Descriptors that it leaves in the list are closed.
"""


class Handlers(Protocol):
    """Finds who answers a request: a mapping does."""

    def get(self, op: str, /) -> Handler | None:
        """None for an unknown request."""


class Server:
    """Accepts clients and dispatches what they ask."""

    def __init__(self, loop: Loop, listener: socket.socket, handlers: Handlers) -> None:
        self._loop = loop
        self._listener = listener
        self._handlers = handlers
        self._clients: set[_Client] = set()
        loop.watch(listener.fileno(), READ, self._accept)

    def add(self, sock: socket.socket) -> Callable[[object], Pending]:
        """Serve a connection made otherwise; returns how to owe it a reply that it has not asked for here."""
        client = _Client(self, self._loop, sock)
        self._clients.add(client)
        return lambda number: Pending(client, number)

    def close(self) -> None:
        """Accept nobody any more and drop all clients once they have their replies."""
        self._loop.unwatch(self._listener.fileno())
        self._listener.close()
        for client in list(self._clients):
            client.close()

    @property
    def is_flushed(self) -> bool:
        """True when every reply has left."""
        return all(client.is_flushed for client in self._clients)

    def forget(self, client: _Client) -> None:
        """A client went away."""
        self._clients.discard(client)

    def handle(self, client: _Client, message: Message) -> None:
        """Answer one request; whatever goes wrong becomes its reply."""
        pending = Pending(client, message.body.get("id"))
        try:
            handler = self._handlers.get(str(message.body.get("op")))
            if handler is None:
                raise InvalidInput(f"unknown request {message.body.get('op')!r}")
            reply = handler(message.body, message.fds, pending)
        except (OrlopError, OSError, ValueError, KeyError, TypeError) as error:
            pending.fail(error)
        else:
            if reply is not None:
                pending.reply(reply)
        finally:
            close_all(message.fds)

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        if len(self._clients) >= MAX_CLIENTS:
            sock.close()
        else:
            self.add(sock)


class _Client:
    def __init__(self, server: Server, loop: Loop, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._server = server
        self._loop = loop
        self._channel = Channel(sock)
        self._queue: deque[dict[str, Any]] = deque()
        self._is_open = True
        loop.watch(sock.fileno(), READ, self._ready, self.close)

    @property
    def is_flushed(self) -> bool:
        return not self._queue

    def send(self, body: dict[str, Any]) -> None:
        if not self._is_open:
            return
        self._queue.append(body)
        if len(self._queue) > _MAX_QUEUED:  # it asks and never reads
            self.close()
        else:
            self._flush()

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._queue.clear()
            self._loop.unwatch(self._channel.fileno())
            self._channel.close()
            self._server.forget(self)

    def _flush(self) -> None:
        while self._queue:
            try:
                self._channel.send(self._queue[0])
            except BlockingIOError:
                break
            except OSError:
                self.close()
                return
            self._queue.popleft()
        events = READ | (WRITE if self._queue else 0)
        self._loop.watch(self._channel.fileno(), events, self._ready, self.close)

    def _ready(self) -> None:
        if self._queue:
            self._flush()
        if not self._is_open:
            return
        try:
            message = self._channel.receive()
        except BlockingIOError:
            return
        except (OSError, ChannelBroken):
            message = None
        if message is None:
            self.close()
        else:
            self._server.handle(self, message)
