"""TLS for accepted connections, with what asyncio's own lacks: either side may end its half alone.

A `TlsLayer` is the protocol of the plain connection. It runs OpenSSL over memory buffers and gives the
protocol above a transport of its own. A client's close_notify is the end of its input and nothing more:
what the server writes still goes out (docker's `run -i` ends its standard input like this). A client that
ends the TCP stream without one is treated alike, as dockerd does; old docker clients know no other way.
`write_eof` sends our close_notify and goes on reading.

What is written is encrypted at once and waits in the plain transport, so its buffer limits and its
pauses are the ones of both.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Iterable
from typing import Any

from orlop.base import log

__all__ = ["HANDSHAKE_S", "MAX_HANDSHAKES", "TlsLayer"]

HANDSHAKE_S = 20.0
MAX_HANDSHAKES = 256  # connections of who has not shown a certificate yet, for each socket
_READ_BYTES = 128 << 10

Factory = Callable[[], asyncio.Protocol]


class TlsLayer(asyncio.Protocol):
    """One connection; created by the server for each accepted socket.

    Args:
        context: of the server.
        factory: makes the protocol above, once the handshake is done.
        handshakes: those of the server that are under way; one too many is dropped at once.
    """

    def __init__(self, context: ssl.SSLContext, factory: Factory, handshakes: set[TlsLayer]) -> None:
        self.context = context
        self.below: asyncio.Transport
        self.protocol: asyncio.BaseProtocol | None = None
        self._factory = factory
        self._handshakes = handshakes
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._transport: _TlsTransport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._reads = True
        self._has_ended = False  # the client's half
        self._is_cut = False  # the TCP stream has ended
        self._has_farewell = False  # ours
        self._pump_is_due = False
        self.is_closing = False

    # -- called by the plain transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.below = transport
        if len(self._handshakes) >= MAX_HANDSHAKES:
            self.abort()
            return
        self._handshakes.add(self)
        self._timer = asyncio.get_running_loop().call_later(HANDSHAKE_S, transport.abort)

    def data_received(self, data: bytes) -> None:
        self._incoming.write(data)
        if self._transport is None and not self._shake_hands():
            return
        self._pump()

    def eof_received(self) -> bool:
        if self._transport is None:
            return False
        self._is_cut = True  # OpenSSL is not told: it would take it for an error, and write nothing more
        self._pump()
        return not self.is_closing

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self.is_closing = True
        if self.protocol is not None:
            self.protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        if self.protocol is not None:
            self.protocol.pause_writing()

    def resume_writing(self) -> None:
        if self.protocol is not None:
            self.protocol.resume_writing()

    # -- the handshake

    def _shake_hands(self) -> bool:
        """True when it is done and the protocol above has its transport."""
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return False
        except ssl.SSLError as error:
            log.debug("TLS handshake failed", error=error.reason or str(error))
            self._flush()  # the alert that says why
            self.below.close()
            return False
        self._stop_timer()
        self._flush()
        self._transport = _TlsTransport(self)
        self.protocol = self._factory()
        self.protocol.connection_made(self._transport)
        return True

    def _stop_timer(self) -> None:
        self._handshakes.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- reading

    def _pump(self) -> None:
        """Give the protocol above everything that can be decrypted now."""
        self._pump_is_due = False
        while self._reads and not self._has_ended and not self.is_closing:
            try:
                data = self.tls.read(_READ_BYTES)
            except ssl.SSLWantReadError:
                self._flush()  # what the layer has to say for itself: key updates
                if not self._is_cut:
                    return
                data = b""
            except ssl.SSLError as error:
                log.debug("TLS connection broken", error=error.reason or str(error))
                self._flush()
                self.below.abort()
                return
            self._deliver(data)

    def _deliver(self, data: bytes) -> None:
        assert isinstance(self.protocol, asyncio.Protocol)
        if data:
            self.protocol.data_received(data)
            return
        self._has_ended = True
        if not self.protocol.eof_received() and not self.is_closing:
            self.close()

    def set_reading(self, *, wanted: bool) -> None:
        """Stop or go on giving data to the protocol above."""
        if wanted == self._reads or self.is_closing:
            return
        self._reads = wanted
        if not wanted:
            self.below.pause_reading()
            return
        self.below.resume_reading()
        if not self._pump_is_due:
            self._pump_is_due = True
            asyncio.get_running_loop().call_soon(self._pump)  # never from within the caller

    @property
    def is_reading(self) -> bool:
        """True unless reading is paused."""
        return self._reads and not self.is_closing

    # -- writing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and queue; dropped after our end."""
        if not data or self._has_farewell or self.is_closing:
            return
        try:
            self.tls.write(data)
        except ssl.SSLError as error:
            log.debug("TLS connection broken", error=error.reason or str(error))
            self.below.abort()
            return
        self._flush()

    def write_eof(self) -> None:
        """Send our close_notify, once."""
        if self._has_farewell or self.is_closing:
            return
        self._has_farewell = True
        with contextlib.suppress(ssl.SSLError, OSError):  # the client's own may still be to come
            self.tls.unwrap()
        self._flush()
        if self.below.can_write_eof():
            self.below.write_eof()

    def close(self) -> None:
        """End both halves once what is queued was sent."""
        if self.is_closing:
            return
        self.write_eof()
        self.is_closing = True
        self.below.close()

    def abort(self) -> None:
        """Drop the connection at once."""
        self.is_closing = True
        self.below.abort()

    def _flush(self) -> None:
        if self._outgoing.pending and not self.below.is_closing():
            self.below.write(self._outgoing.read())


class _TlsTransport(asyncio.Transport):
    """What the protocol above sees of a layer."""

    def __init__(self, layer: TlsLayer) -> None:
        super().__init__()
        self._layer = layer

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        match name:
            case "ssl_object":
                return self._layer.tls
            case "sslcontext":
                return self._layer.context
            case "peercert":
                return self._layer.tls.getpeercert()
            case _:
                return self._layer.below.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._layer.protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self._layer.protocol is not None
        return self._layer.protocol

    def is_closing(self) -> bool:
        return self._layer.is_closing

    def is_reading(self) -> bool:
        return self._layer.is_reading

    def pause_reading(self) -> None:
        self._layer.set_reading(wanted=False)

    def resume_reading(self) -> None:
        self._layer.set_reading(wanted=True)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._layer.below.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return self._layer.below.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._layer.below.get_write_buffer_limits()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._layer.write(data)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self._layer.write(b"".join(list_of_data))

    def write_eof(self) -> None:
        self._layer.write_eof()

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        self._layer.close()

    def abort(self) -> None:
        self._layer.abort()
