"""The name server of a container, at 127.0.0.11: names of its networks, and the host's servers for the rest.

It lives in the container's supervisor: it survives engines, serves nobody else, and what a container
floods is its own. Sockets towards the container are made in its network namespace, those towards the
world in the host's. A rule in the container's namespace leads port 53 to the ports that the sockets
got, so that a program there may have port 53 for itself.

Limits, because the container is hostile: questions under way, connections, bytes of a message.
Every failure is an answer or silence, never the supervisor's.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

from orlop.kernel.nftables import (
    BaseChain,
    NftSocket,
    SetSpec,
    add_elements,
    delete_table,
    new_chain,
    new_rule,
    new_set,
    new_table,
    pack,
)
from orlop.kernel.nftrules import dnat_by_map
from orlop.runtime.ahead import loopback_up
from orlop.runtime.endpoints import inside_network
from orlop.runtime.loop import READ, WRITE, Loop, Timer
from orlop.runtime.spec import NameServerSpec
from orlop.runtime.zones import Zones
from orlop.wire import dns

__all__ = ["ADDRESS", "NameServer"]

ADDRESS = "127.0.0.11"
_TABLE = "orlop-dns"
_TTL_S = 600  # as dockerd's: programs ask again long before, libc does not keep answers
_MAX_UNDER_WAY = 256
_MAX_CONNECTIONS = 32
_TRY_S = 2.0
_IDLE_S = 10.0
_MAX_MESSAGE = 65535
_BATCH = 16  # datagrams per call back: the log and the execs want their turn
_LENGTH = struct.Struct("!H")
_PROTOCOL_TCP, _PROTOCOL_UDP = 6, 17

Reply = Callable[[bytes], None]


class NameServer:
    """Serves one container until it is closed."""

    def __init__(self, loop: Loop, spec: NameServerSpec, netns_fd: int) -> None:
        """Bind in the container's namespace; the fd stays the caller's.

        Raises:
            OSError: the start of the container must fail.
        """
        self._loop = loop
        self._zones = Zones(spec.zones)
        self._upstreams = spec.upstreams
        self._links = spec.links
        self._under_way: set[_Forwarded] = set()
        self._connections: set[_Connection] = set()
        self._turn = 0
        with inside_network(netns_fd):
            self._datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            try:
                loopback_up()  # init has not come so far in a namespace that nobody made ahead
                for sock in (self._datagrams, self._listener):
                    sock.setblocking(False)
                    sock.bind((ADDRESS, 0))
                self._listener.listen(_MAX_CONNECTIONS)
                _lead_port_53(self._datagrams.getsockname()[1], self._listener.getsockname()[1])
            except BaseException:
                self._datagrams.close()
                self._listener.close()
                raise
        loop.watch(self._datagrams.fileno(), READ, self._receive)
        loop.watch(self._listener.fileno(), READ, self._accept)

    def use(self, spec: NameServerSpec) -> None:
        """The container has come to other networks."""
        self._zones.use(spec.zones)
        self._upstreams = spec.upstreams
        self._links = spec.links

    def close(self) -> None:
        """Let go of everything; may be repeated."""
        for question in tuple(self._under_way):
            question.close()
        for connection in tuple(self._connections):
            connection.close()
        for sock in (self._datagrams, self._listener):
            if sock.fileno() >= 0:
                self._loop.unwatch(sock.fileno())
                sock.close()

    # --- towards the container ---

    def _receive(self) -> None:
        for _ in range(_BATCH):
            try:
                data, sender = self._datagrams.recvfrom(_MAX_MESSAGE)
            except OSError:
                return
            self.handle(data, self._replier(sender), is_datagram=True)

    def _replier(self, receiver: tuple[str, int]) -> Reply:
        def send(message: bytes) -> None:
            with contextlib.suppress(OSError):  # a full buffer, or we are closed: it asks again
                self._datagrams.sendto(message, receiver)

        return send

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        if len(self._connections) >= _MAX_CONNECTIONS:
            sock.close()
            return
        self._connections.add(_Connection(self._loop, sock, self.handle, self._connections.discard))

    def handle(self, data: bytes, reply: Reply, *, is_datagram: bool) -> None:
        """Answer one question, now or when somebody else has answered it."""
        try:
            query = dns.parse_query(data)
        except dns.BadQuery as error:
            if error.reply:
                reply(error.reply)
            return
        own = self._answer(query)
        if own is not None:
            reply(dns.truncate(own, query) if is_datagram else own)
        elif not self._upstreams or len(self._under_way) >= _MAX_UNDER_WAY:
            reply(dns.failure(query, dns.SERVER_FAILURE))
        else:
            _Forwarded(self._loop, data, query, reply, self._upstreams, self._under_way, is_datagram)

    def _answer(self, query: dns.Query) -> bytes | None:
        """From the networks' own names; None when they know nothing of it."""
        if query.kind == dns.PTR:
            address = dns.address_of_pointer(query.name)
            name = self._zones.name_of(address) if address is not None else ""
            return dns.pointer_record(query, name, _TTL_S) if name else None
        found = self._zones.addresses(self._links.get(query.name, query.name))
        if not found:
            return None
        self._turn += 1
        at = self._turn % len(found)
        return dns.answer(query, [*found[at:], *found[:at]], _TTL_S)


def _lead_port_53(udp_port: int, tcp_port: int) -> None:
    """In the present network namespace."""
    address = socket.inet_aton(ADDRESS)
    ports = SetSpec("ports", (4, 1, 2), (4, 2), (7, 12, 13), (7, 13))
    elements = [
        (pack(address, bytes([protocol]), _LENGTH.pack(53)), pack(address, _LENGTH.pack(port)))
        for protocol, port in ((_PROTOCOL_UDP, udp_port), (_PROTOCOL_TCP, tcp_port))
    ]
    with NftSocket() as nft:
        nft.commit(
            [
                new_table(_TABLE),
                delete_table(_TABLE),
                new_table(_TABLE),
                new_set(_TABLE, ports, 1),
                add_elements(_TABLE, "ports", elements),
                new_chain(_TABLE, "output", BaseChain("nat", "output", -100)),
                new_rule(_TABLE, "output", [dnat_by_map(4, "ports", with_address=True)]),
            ]
        )


@dataclass(slots=True)
class _Buffer:
    data: bytes = b""

    def messages(self) -> list[bytes]:
        """Whole messages with their length in front, taken out."""
        found = []
        while len(self.data) >= 2:
            length = _LENGTH.unpack_from(self.data)[0]
            if len(self.data) < 2 + length:
                break
            found.append(self.data[2 : 2 + length])
            self.data = self.data[2 + length :]
        return found


class _Connection:
    """A container's TCP connection: questions and answers with their lengths in front."""

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        handle: Callable[..., None],
        forget: Callable[[_Connection], None],
    ) -> None:
        sock.setblocking(False)
        self._loop = loop
        self._socket = sock
        self._handle = handle
        self._forget = forget
        self._input = _Buffer()
        self._output = b""
        self._timer = loop.call_later(_IDLE_S, self.close)
        loop.watch(sock.fileno(), READ, self._ready, self.close)

    def close(self) -> None:
        self._timer.cancel()
        self._forget(self)
        if self._socket.fileno() >= 0:
            self._loop.unwatch(self._socket.fileno())
            self._socket.close()

    def _ready(self) -> None:
        try:
            if self._output:
                self._output = self._output[self._socket.send(self._output) :]
            data = self._socket.recv(_MAX_MESSAGE)
        except BlockingIOError:
            self._watch()
            return
        except OSError:
            self.close()
            return
        if not data:
            self.close()
            return
        self._timer.cancel()
        self._timer = self._loop.call_later(_IDLE_S, self.close)
        self._input.data += data
        for message in self._input.messages():
            self._handle(message, self._reply, is_datagram=False)
        self._watch()

    def _reply(self, message: bytes) -> None:
        if self._socket.fileno() < 0:
            return
        self._output += _LENGTH.pack(len(message)) + message
        if len(self._output) > 4 * _MAX_MESSAGE:  # it asks and does not listen
            self.close()
            return
        self._watch()

    def _watch(self) -> None:
        if self._socket.fileno() >= 0:
            events = READ | (WRITE if self._output else 0)
            self._loop.watch(self._socket.fileno(), events, self._ready, self.close)


class _Forwarded:
    """A question on its way to the host's name servers, one after the other, over a socket of its own.

    A fresh port and a fresh number for every question: who cannot see it cannot answer it.
    """

    def __init__(
        self,
        loop: Loop,
        data: bytes,
        query: dns.Query,
        reply: Reply,
        upstreams: tuple[str, ...],
        under_way: set[_Forwarded],
        is_datagram: bool,
    ) -> None:
        self._loop = loop
        self._query = query
        self._reply = reply
        self._left = list(upstreams)
        self._under_way = under_way
        self._is_datagram = is_datagram
        self._number = os.urandom(2)
        self._message = self._number + data[2:]
        self._socket: socket.socket | None = None
        self._timer: Timer | None = None
        self._buffer = _Buffer()
        self._unsent = b""
        under_way.add(self)
        self._next()

    def close(self) -> None:
        self._drop()
        self._under_way.discard(self)

    def _drop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._socket is not None:
            self._loop.unwatch(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _next(self) -> None:
        """Ask the next server; when there is none left, say so."""
        self._drop()
        if not self._left:
            self.close()
            self._reply(dns.failure(self._query, dns.SERVER_FAILURE))
            return
        server = self._left.pop(0)
        family = socket.AF_INET6 if ":" in server else socket.AF_INET
        kind = socket.SOCK_DGRAM if self._is_datagram else socket.SOCK_STREAM
        try:
            self._socket = socket.socket(family, kind | socket.SOCK_NONBLOCK)
            with contextlib.suppress(BlockingIOError):
                self._socket.connect((server, 53))
            if self._is_datagram:
                self._socket.send(self._message)
        except OSError:
            self._next()
            return
        self._unsent = b"" if self._is_datagram else _LENGTH.pack(len(self._message)) + self._message
        self._buffer = _Buffer()
        self._timer = self._loop.call_later(_TRY_S, self._next)
        self._loop.watch(
            self._socket.fileno(), READ | (WRITE if self._unsent else 0), self._ready, self._next
        )

    def _ready(self) -> None:
        assert self._socket is not None
        try:
            if self._unsent:
                self._unsent = self._unsent[self._socket.send(self._unsent) :]
                if not self._unsent:
                    self._loop.watch(self._socket.fileno(), READ, self._ready, self._next)
                return
            data = self._socket.recv(_MAX_MESSAGE)
        except BlockingIOError:
            return
        except OSError:
            self._next()
            return
        if self._is_datagram:
            self._take(data)
            return
        self._buffer.data += data
        for message in self._buffer.messages():
            self._take(message)
            return
        if not data:
            self._next()

    def _take(self, message: bytes) -> None:
        if len(message) < 12 or message[:2] != self._number or not message[2] & 0x80:
            return  # not an answer to this question; the right one may come yet
        self.close()
        self._reply(self._query.id.to_bytes(2, "big") + message[2:])
