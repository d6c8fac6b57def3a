"""The engine's end of a message socket: requests, their replies, and events (asyncio).

A request is `{"id": n, "op": name, ...}`; its reply `{"re": n, "ok": {...}}` or
`{"re": n, "error": {...}}`; anything with `"event"` is told to the listener. Replies come
in any order. Never imported by the zygote.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from orlop.base.errors import Kind, OrlopError
from orlop.procs.channel import Channel, ChannelBroken, Message, close_all
from orlop.procs.errors import decode_error

__all__ = ["Connection", "ConnectionLost"]


class ConnectionLost(OrlopError):
    """The other process went away before it answered."""

    kind: ClassVar[Kind] = Kind.UNAVAILABLE
    code: ClassVar[str] = "connection-lost"


class Connection:
    """Multiplexes requests over one channel; owns the channel."""

    def __init__(
        self,
        channel: Channel,
        *,
        name: str,
        on_event: Callable[[Message], None] | None = None,
        on_lost: Callable[[], None] | None = None,
    ) -> None:
        """Must be made inside the event loop. `name` appears in errors."""
        channel.socket.setblocking(False)
        self._channel = channel
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._pending: dict[int, asyncio.Future[Message]] = {}
        self._outgoing: deque[tuple[dict[str, Any], list[int]]] = deque()
        self._next_id = 0
        self._on_event = on_event
        self._on_lost = on_lost
        self.is_open = True
        self._loop.add_reader(channel.fileno(), self._readable)

    async def request(self, op: str, body: dict[str, Any] | None = None, fds: Sequence[int] = ()) -> Message:
        """Send a request and wait for its reply; the reply's descriptors are the caller's.

        The descriptors of the request stay the caller's and must be open until this returns.
        If cancelled, it is not sent any more, or its reply is dropped when it comes.

        Raises:
            ConnectionLost: the peer is gone.
            OrlopError: what the peer answered.
        """
        if not self.is_open:
            raise ConnectionLost(f"{self._name} is gone")
        self._next_id += 1
        number = self._next_id
        reply: asyncio.Future[Message] = self._loop.create_future()
        self._pending[number] = reply
        item = ({**(body or {}), "id": number, "op": op}, list(fds))
        try:
            self._send(*item)
            return await reply
        finally:
            self._pending.pop(number, None)
            if not reply.done():  # cancelled: its descriptors may be closed from now on
                self._outgoing = deque(kept for kept in self._outgoing if kept[0] is not item[0])

    def post(self, op: str, body: dict[str, Any] | None = None) -> None:
        """Send a request whose reply nobody waits for."""
        if self.is_open:
            self._next_id += 1
            self._send({**(body or {}), "id": self._next_id, "op": op}, [])

    def close(self) -> None:
        """Drop the connection; waiting requests fail. May be repeated."""
        if not self.is_open:
            return
        self.is_open = False
        self._loop.remove_reader(self._channel.fileno())
        self._loop.remove_writer(self._channel.fileno())
        self._channel.close()
        for reply in self._pending.values():
            if not reply.done():
                reply.set_exception(ConnectionLost(f"{self._name} is gone"))

    def _send(self, body: dict[str, Any], fds: list[int]) -> None:
        self._outgoing.append((body, fds))
        if len(self._outgoing) == 1:
            self._writable()

    def _writable(self) -> None:
        while self._outgoing:
            body, fds = self._outgoing[0]
            try:
                self._channel.send(body, fds)
            except BlockingIOError:
                self._loop.add_writer(self._channel.fileno(), self._writable)
                return
            except OSError:
                self._lose()
                return
            self._outgoing.popleft()
        self._loop.remove_writer(self._channel.fileno())

    def _readable(self) -> None:
        # A bounded number of messages per turn keeps the loop fair.
        for _ in range(64):
            try:
                message = self._channel.receive()
            except BlockingIOError:
                return
            except (OSError, ChannelBroken):
                message = None
            if message is None:
                self._lose()
                return
            self._dispatch(message)
            if not self.is_open:
                return

    def _dispatch(self, message: Message) -> None:
        number = message.body.get("re")
        if number is None:
            if self._on_event is not None:
                self._on_event(message)
            else:
                close_all(message.fds)
            return
        reply = self._pending.get(number)
        if reply is None or reply.done():
            close_all(message.fds)
        elif "error" in message.body:
            close_all(message.fds)
            reply.set_exception(decode_error(message.body["error"]))
        else:
            reply.set_result(Message(message.body.get("ok") or {}, message.fds))

    def _lose(self) -> None:
        if self.is_open:
            self.close()
            if self._on_lost is not None:
                self._on_lost()
