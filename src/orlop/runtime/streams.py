"""What a container says and is told: from its pipes or terminal to log and attachments, and back.

One reading buffer serves all streams of a supervisor: what was read goes to the log and to
each attachment before the next read. Output is never dropped between the container and its
log. When an attachment lags by more than its buffer, reading stops: the container is slowed
to the client's pace, as a pipe would do. A client that takes nothing at all for
`STALL_LIMIT_S` is cut off, so a dead one cannot stop the container for ever.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
import termios
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from orlop.runtime.inputpump import InputPump
from orlop.runtime.loop import HANGUP, READ, WRITE, Loop, Timer
from orlop.runtime.spec import AttachSpec
from orlop.wire import stdstream

__all__ = [
    "BUFFER_LIMIT_BYTES",
    "STALL_LIMIT_S",
    "Attached",
    "OutputSink",
    "Streams",
    "widen_pipe",
]

READ_BYTES = 128 << 10
PIPE_BYTES = 256 << 10
BUFFER_LIMIT_BYTES = 256 << 10
STALL_LIMIT_S = 30.0
STDIN_CHUNK_BYTES = 64 << 10
GATHER_BYTES = 64 << 10
_GATHER_S = 0.0003
_STREAK_S = 0.001
_INT = struct.Struct("i")


class OutputSink(Protocol):
    """Where output is kept."""

    def write(self, stream: int, data: memoryview) -> None:
        """Keep what was read; must not raise."""


def _waiting_bytes(fd: int) -> int:
    """How much could be read now; 0 where that cannot be told."""
    try:
        return int(_INT.unpack(fcntl.ioctl(fd, termios.FIONREAD, bytes(_INT.size)))[0])
    except OSError:
        return 0


def widen_pipe(fd: int) -> None:
    """A larger pipe means fewer and larger reads; it stays small where the kernel says so."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


class Streams:
    """The streams of one process: its output pumps, its input, its attachments."""

    def __init__(
        self,
        loop: Loop,
        *,
        sink: OutputSink | None,
        is_raw: bool,
        closes_stdin: bool,
        buffer: memoryview,
        on_drained: Callable[[], None],
    ) -> None:
        """`is_raw`: attachments get bytes as they are (a terminal), not stdcopy frames.

        `closes_stdin`: the end of an attachment's input ends the process's. `buffer` is scratch
        space that all streams of this thread may share.
        """
        self._loop = loop
        self._sink = sink
        self._is_raw = is_raw
        self._closes_stdin = closes_stdin
        self._buffer = buffer
        self._on_drained = on_drained
        self._outputs: dict[int, int] = {}  # fd -> stream
        self._attached: list[Attached] = []
        self._is_held = False
        self._last_read_s = 0.0
        self.input: InputPump | None = None
        self.awaits_input = False  # clients' input is left where it is until there is somewhere to write it

    def add_output(self, fd: int, stream: int) -> None:
        """Read `fd` (owned from now on) until its end."""
        os.set_blocking(fd, False)
        self._outputs[fd] = stream
        if not self._is_held:
            self._watch(fd)

    def set_input(self, fd: int) -> None:
        """Write what attachments send to `fd` (owned from now on, unless it is an output too)."""
        self.input = InputPump(self._loop, fd, is_shared=fd in self._outputs)
        self.awaits_input = False
        for client in list(self._attached):
            client.start()

    @property
    def is_drained(self) -> bool:
        """True when every output has ended."""
        return not self._outputs

    @property
    def is_flushed(self) -> bool:
        """True when every attachment has all it is due."""
        return all(not client.pending_bytes for client in self._attached)

    def attach(self, spec: AttachSpec, sock: socket.socket) -> None:
        """Serve a client (its socket is owned from now on) until either side ends."""
        client = Attached(self._loop, self, spec, sock, is_raw=self._is_raw, closes_stdin=self._closes_stdin)
        self._attached.append(client)
        client.start()

    def forget(self, client: Attached) -> None:
        """A client ended."""
        with contextlib.suppress(ValueError):
            self._attached.remove(client)
        self.balance()

    def balance(self) -> None:
        """Stop or go on reading, as the attachments have room."""
        should_hold = any(client.pending_bytes > BUFFER_LIMIT_BYTES for client in self._attached)
        if should_hold == self._is_held:
            return
        self._is_held = should_hold
        for fd in self._outputs:
            if should_hold:
                self._loop.unwatch(fd)
            else:
                self._watch(fd)

    def close_input(self) -> None:
        """End the process's standard input."""
        if self.input is not None:
            self.input.finish()

    def abandon_outputs(self) -> None:
        """Take what is there and stop reading: somebody outside still holds the other ends."""
        for fd in list(self._outputs):
            while fd in self._outputs and self._read_once(fd):
                pass
            self._finish_output(fd)

    def finish_attachments(self) -> None:
        """No more output will come: close each client once it has everything."""
        for client in list(self._attached):
            client.finish()

    def close(self) -> None:
        """Drop everything at once."""
        for fd in list(self._outputs):
            self._loop.unwatch(fd)
            os.close(fd)
        self._outputs.clear()
        for client in list(self._attached):
            client.close()
        if self.input is not None:
            self.input.close()

    def _watch(self, fd: int) -> None:
        self._loop.watch(fd, READ, lambda: self._readable(fd), lambda: self._finish_output(fd))

    def _readable(self, fd: int) -> None:
        if fd in self._outputs:
            if time.monotonic() - self._last_read_s < _STREAK_S and 0 < _waiting_bytes(fd) < GATHER_BYTES:
                # One who writes much in small pieces: a wake-up and a frame for each would cost more
                # than the bytes. The pipe has room for what comes meanwhile.
                time.sleep(_GATHER_S)
            if self._read_once(fd):
                self._last_read_s = time.monotonic()

    def _read_once(self, fd: int) -> bool:
        """Read and pass on one piece; False when there was none."""
        try:
            size = os.readv(fd, [self._buffer])
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno != errno.EIO:  # EIO: the last user of the terminal is gone
                raise
            size = 0
        if not size:
            self._finish_output(fd)
            return False
        self._pass_on(self._outputs[fd], self._buffer[:size])
        return True

    def _pass_on(self, stream: int, data: memoryview) -> None:
        if self._sink is not None:
            self._sink.write(stream, data)
        for client in list(self._attached):
            client.offer(stream, data)
        self.balance()

    def _finish_output(self, fd: int) -> None:
        if fd not in self._outputs:
            return
        del self._outputs[fd]
        self._loop.unwatch(fd)
        if self.input is not None and self.input.fd == fd:
            self.input.close()
        os.close(fd)
        if not self._outputs:
            self._on_drained()


class Attached:
    """One client of a process's streams."""

    def __init__(
        self,
        loop: Loop,
        streams: Streams,
        spec: AttachSpec,
        sock: socket.socket,
        *,
        is_raw: bool,
        closes_stdin: bool,
    ) -> None:
        sock.setblocking(False)
        self._loop = loop
        self._streams = streams
        self._spec = spec
        self._socket = sock
        self._is_raw = is_raw
        self._closes_stdin = closes_stdin
        self._queue: deque[memoryview] = deque()
        self.pending_bytes = 0
        self._stall: Timer | None = None
        self._is_open = True
        self._is_finishing = False
        self._reads = True

    def start(self) -> None:
        """Begin to serve."""
        self._update()

    def offer(self, stream: int, data: memoryview) -> None:
        """Send output, or keep a copy of what the socket does not take now."""
        wanted = self._spec.has_stdout if stream == stdstream.STDOUT else self._spec.has_stderr
        if not wanted or not self._is_open:
            return
        head = b"" if self._is_raw else stdstream.header(stream, len(data))
        sent = 0
        if not self._queue:
            try:
                sent = self._socket.sendmsg([head, data], (), socket.MSG_NOSIGNAL)
            except BlockingIOError:
                pass
            except OSError:
                self.close()
                return
        if sent < len(head) + len(data):
            self._keep((head + bytes(data))[sent:])

    def finish(self) -> None:
        """Close once everything queued was sent."""
        self._is_finishing = True
        self._reads = False
        if not self._queue:
            self.close()
        else:
            self._update()

    def close(self) -> None:
        """Drop the client; may be repeated."""
        if not self._is_open:
            return
        self._is_open = False
        if self._stall is not None:
            self._stall.cancel()
        self._queue.clear()
        self.pending_bytes = 0
        self._loop.unwatch(self._socket.fileno())
        self._socket.close()
        self._streams.forget(self)

    def _keep(self, data: bytes) -> None:
        self._queue.append(memoryview(data))
        self.pending_bytes += len(data)
        if self._stall is None:
            self._stall = self._loop.call_later(STALL_LIMIT_S, self.close)
        self._update()

    def _flush(self) -> None:
        while self._queue:
            try:
                sent = self._socket.send(self._queue[0], socket.MSG_NOSIGNAL)
            except BlockingIOError:
                break
            except OSError:
                self.close()
                return
            self.pending_bytes -= sent
            self._queue[0] = self._queue[0][sent:]
            if not self._queue[0]:
                self._queue.popleft()
            self._restart_stall()
        if not self._queue and self._is_finishing:
            self.close()
            return
        self._update()
        self._streams.balance()

    def _restart_stall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
        self._stall = self._loop.call_later(STALL_LIMIT_S, self.close) if self._queue else None

    def _update(self) -> None:
        """Watch for what can go on now."""
        if not self._is_open:
            return
        events = (WRITE if self._queue else 0) | (READ if self._wants_input() else 0)
        if events or not self._reads:
            self._loop.watch(self._socket.fileno(), events or HANGUP, self._ready, self.close)
        else:  # a hang-up must wait until the input that came before it has found room
            self._loop.unwatch(self._socket.fileno())

    def _wants_input(self) -> bool:
        if not self._reads or (self._spec.has_stdin and self._streams.awaits_input):
            return False
        target = self._streams.input
        # Input that nobody wants is read and dropped, so that a closed client is noticed.
        return not self._spec.has_stdin or target is None or not target.is_open or target.has_room

    def _ready(self) -> None:
        if self._queue:
            self._flush()
        elif not self._reads:
            self.close()
        if self._is_open and self._wants_input():
            self._read_input()

    def _read_input(self) -> None:
        try:
            data = self._socket.recv(STDIN_CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        target = self._streams.input if self._spec.has_stdin else None
        if not data:
            self._end_of_input(target)
        elif target is not None and target.is_open:
            target.write(data, self._update)
            self._update()

    def _end_of_input(self, target: InputPump | None) -> None:
        self._reads = False
        self._update()
        if target is not None and self._closes_stdin:
            target.finish()
