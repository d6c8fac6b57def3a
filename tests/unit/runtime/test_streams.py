import contextlib
import os
import socket

import pytest

from orlop.runtime import streams as streams_module
from orlop.runtime.loop import Loop
from orlop.runtime.spec import AttachSpec
from orlop.runtime.streams import BUFFER_LIMIT_BYTES, Streams
from orlop.wire.stdstream import FrameDecoder

ALL = AttachSpec(True, True, True)


class Sink:
    def __init__(self):
        self.data = {1: b"", 2: b""}

    def write(self, stream, data):
        self.data[stream] += bytes(data)


class Bench:
    """A process's streams with us at both ends."""

    def __init__(self, *, is_raw=False, closes_stdin=True, has_input=False):
        self.loop = Loop()
        self.sink = Sink()
        self.is_drained = False
        self.streams = Streams(
            self.loop,
            sink=self.sink,
            is_raw=is_raw,
            closes_stdin=closes_stdin,
            buffer=memoryview(bytearray(65536)),
            on_drained=lambda: setattr(self, "is_drained", True),
        )
        out, self.out = os.pipe()
        err, self.err = os.pipe()
        self.streams.add_output(out, 1)
        self.streams.add_output(err, 2)
        self.clients = []
        if has_input:
            self.stdin, target = os.pipe()
            os.set_blocking(self.stdin, False)
            self.streams.set_input(target)

    def attach(self, spec=ALL):
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
        self.streams.attach(spec, theirs)
        self.clients.append(ours)
        return ours

    def turn(self, seconds=0.01):
        self.loop._is_running = True
        self.loop.call_later(seconds, self.loop.stop)
        self.loop.run()

    def end_outputs(self):
        os.close(self.out)
        os.close(self.err)
        self.out = self.err = -1

    def close(self):
        for fd in (self.out, self.err, getattr(self, "stdin", -1)):
            if fd >= 0:
                os.close(fd)
        self.streams.close()
        self.loop.close()
        for client in self.clients:
            client.close()


@pytest.fixture
def make_bench():
    made = []

    def make(**options):
        made.append(Bench(**options))
        return made[-1]

    yield make
    for bench in made:
        bench.close()


def drain(client):
    data = b""
    try:
        while piece := client.recv(1 << 20):
            data += piece
    except BlockingIOError:
        return data, False
    return data, True


def frames(data):
    return FrameDecoder().feed(data)


def test_output_goes_to_log_and_clients_in_frames(make_bench):
    bench = make_bench()
    client = bench.attach()

    os.write(bench.out, b"out")
    os.write(bench.err, b"err")
    bench.turn()

    assert bench.sink.data == {1: b"out", 2: b"err"}
    assert sorted(frames(drain(client)[0])) == [(1, b"out"), (2, b"err")]


def test_a_client_gets_only_the_streams_it_asked_for(make_bench):
    bench = make_bench()
    client = bench.attach(AttachSpec(False, False, True))

    os.write(bench.out, b"out")
    os.write(bench.err, b"err")
    bench.turn()

    assert frames(drain(client)[0]) == [(2, b"err")]


def test_a_terminals_bytes_are_not_framed(make_bench):
    bench = make_bench(is_raw=True)
    client = bench.attach()

    os.write(bench.out, b"\x1b[1mx")
    bench.turn()

    assert drain(client)[0] == b"\x1b[1mx"


def test_clients_are_closed_after_the_last_byte(make_bench):
    bench = make_bench()
    client = bench.attach()

    os.write(bench.out, b"last")
    bench.end_outputs()
    bench.turn()
    bench.streams.finish_attachments()

    assert bench.is_drained
    data, is_closed = drain(client)
    assert frames(data) == [(1, b"last")]
    assert is_closed


def test_a_slow_client_holds_back_reading_and_gets_every_byte(make_bench):
    bench = make_bench()
    client = bench.attach()
    os.set_blocking(bench.out, False)
    sent = 0
    for _ in range(200):
        with contextlib.suppress(BlockingIOError):
            sent += os.write(bench.out, b"x" * 32768)
        bench.turn(0.001)

    assert sent < BUFFER_LIMIT_BYTES + 600_000  # buffer, one read, pipe, socket: then it stands
    received = b""
    for _ in range(300):
        received += drain(client)[0]
        bench.turn(0.001)
        if sum(len(data) for _, data in frames(received)) == sent:
            break
    assert sum(len(data) for _, data in frames(received)) == sent == len(bench.sink.data[1])


def test_a_client_that_takes_nothing_is_cut_off_in_the_end(make_bench, monkeypatch):
    monkeypatch.setattr(streams_module, "STALL_LIMIT_S", 0.05)
    bench = make_bench()
    client = bench.attach()
    os.set_blocking(bench.out, False)
    for _ in range(30):
        try:
            os.write(bench.out, b"x" * 65536)
        except BlockingIOError:
            break
        bench.turn(0.001)

    bench.turn(0.1)
    before = len(bench.sink.data[1])
    os.write(bench.out, b"goes on")
    bench.turn(0.05)

    assert len(bench.sink.data[1]) > before
    while not drain(client)[1]:
        bench.turn(0.001)


def test_a_client_that_goes_away_is_forgotten(make_bench):
    bench = make_bench()
    client = bench.attach()
    client.close()
    bench.turn()

    os.write(bench.out, b"x")
    bench.turn()

    assert bench.streams._attached == []
    assert bench.sink.data[1] == b"x"


def test_a_client_that_half_closes_still_gets_output_and_is_dropped_when_it_closes(make_bench):
    bench = make_bench()
    client = bench.attach()
    client.shutdown(socket.SHUT_WR)
    bench.turn()

    os.write(bench.out, b"x")
    bench.turn()
    assert frames(drain(client)[0]) == [(1, b"x")]
    client.close()
    bench.turn()

    assert bench.streams._attached == []


def test_input_reaches_the_process_and_its_end_closes_it(make_bench):
    bench = make_bench(has_input=True)
    client = bench.attach()
    client.send(b"typed")
    client.shutdown(socket.SHUT_WR)
    bench.turn()

    assert os.read(bench.stdin, 100) == b"typed"
    assert os.read(bench.stdin, 100) == b""


def test_the_end_of_one_client_leaves_input_open_when_asked(make_bench):
    bench = make_bench(has_input=True, closes_stdin=False)
    first, second = bench.attach(), bench.attach()
    first.send(b"one ")
    first.shutdown(socket.SHUT_WR)
    bench.turn()
    second.send(b"two")
    bench.turn()

    assert os.read(bench.stdin, 100) == b"one two"
    with pytest.raises(BlockingIOError):
        os.read(bench.stdin, 100)


def test_more_input_than_the_pipe_holds_waits_for_the_process(make_bench):
    bench = make_bench(has_input=True)
    client = bench.attach()
    data = os.urandom(300_000)
    sent = got = b""
    for _ in range(400):
        with contextlib.suppress(BlockingIOError):
            sent += (
                data[len(sent) : len(sent) + client.send(data[len(sent) :])] if len(sent) < len(data) else b""
            )
        if len(sent) == len(data) and client.fileno() >= 0:
            client.close()  # at once: what is under way must still arrive
        bench.turn(0.001)
        try:
            piece = os.read(bench.stdin, 65536)
        except BlockingIOError:
            continue
        got += piece
        if not piece:
            break

    assert got == data


def test_a_process_that_closed_its_input_does_not_hurt(make_bench):
    bench = make_bench(has_input=True)
    client = bench.attach()
    os.close(bench.stdin)
    bench.stdin = -1
    client.send(b"nobody reads")
    bench.turn()
    client.send(b"still nobody")
    bench.turn()
    os.write(bench.out, b"alive")
    bench.turn()

    assert frames(drain(client)[0]) == [(1, b"alive")]


def test_outputs_held_by_strangers_are_abandoned_with_what_is_there(make_bench):
    bench = make_bench()
    os.write(bench.out, b"last words")

    bench.streams.abandon_outputs()

    assert bench.is_drained
    assert bench.sink.data[1] == b"last words"
