import os

import pytest

from orlop.base.errors import InvalidInput
from orlop.procs.channel import Channel
from orlop.runtime import rundir
from orlop.runtime.loop import Loop
from orlop.runtime.server import MAX_CLIENTS, Server


class Bench:
    def __init__(self, directory):
        self.directory = str(directory)
        self.loop = Loop()
        self.pending = []
        self.run_fd = os.open(directory, os.O_RDONLY)
        self.server = Server(self.loop, rundir.listen(self.run_fd), self.handlers())

    def handlers(self):
        def later(body, fds, pending):
            self.pending.append(pending)

        def fail(body, fds, pending):
            raise InvalidInput("no", hint="yes")

        return {
            "echo": lambda body, fds, pending: {"body": body, "fds": len(fds)},
            "later": later,
            "fail": fail,
            "bug": lambda *_: {}["x"],
        }

    def connect(self):
        client = Channel(rundir.connect(self.directory))
        client.socket.settimeout(2)
        return client

    def turn(self):
        self.loop._is_running = True
        self.loop.call_later(0.005, self.loop.stop)
        self.loop.run()

    def close(self):
        self.server.close()
        self.loop.close()
        os.close(self.run_fd)


@pytest.fixture
def bench(tmp_path):
    made = Bench(tmp_path)
    yield made
    made.close()


def test_a_request_is_answered_and_its_descriptors_are_closed(bench):
    client = bench.connect()
    before = len(os.listdir("/proc/self/fd"))
    client.send({"id": 1, "op": "echo", "x": 2}, [0, 1])
    bench.turn()

    reply = client.receive().body
    assert reply["re"] == 1
    assert reply["ok"]["body"]["x"] == 2
    assert reply["ok"]["fds"] == 2
    assert len(os.listdir("/proc/self/fd")) <= before + 1  # the accepted connection
    client.close()


@pytest.mark.parametrize(
    ("op", "code"), [("fail", "invalid-input"), ("bug", "internal"), ("nope", "invalid-input")]
)
def test_failures_are_replies(bench, op, code):
    client = bench.connect()
    client.send({"id": 1, "op": op})
    bench.turn()

    assert client.receive().body["error"]["code"] == code
    client.close()


def test_a_reply_can_come_later_and_goes_to_who_asked(bench):
    one, two = bench.connect(), bench.connect()
    one.send({"id": 1, "op": "later"})
    two.send({"id": 9, "op": "later"})
    bench.turn()
    for pending in bench.pending:
        pending.reply({"done": True})
        pending.reply({"done": "twice"})

    assert one.receive().body == {"re": 1, "ok": {"done": True}}
    assert two.receive().body == {"re": 9, "ok": {"done": True}}
    one.close()
    two.close()


def test_a_client_that_left_is_no_trouble(bench):
    client = bench.connect()
    client.send({"id": 1, "op": "later"})
    bench.turn()
    client.close()
    bench.turn()

    bench.pending[0].reply({"done": True})

    assert bench.server.is_flushed


def test_rubbish_drops_the_client_only(bench):
    bad, good = bench.connect(), bench.connect()
    bad.socket.send(b"rubbish")
    good.send({"id": 1, "op": "echo"})
    bench.turn()

    assert bad.receive() is None
    assert good.receive().body["re"] == 1
    bad.close()
    good.close()


def test_a_client_that_never_reads_is_dropped(bench):
    client = bench.connect()
    client.socket.setblocking(False)
    ask_without_reading(bench, client)

    assert bench.server._clients == set()
    client.close()


def ask_without_reading(bench, client):
    for number in range(100_000):
        try:
            client.send({"id": number, "op": "echo", "pad": "x" * 500})
        except BlockingIOError:
            bench.turn()
        except OSError:
            return
    pytest.fail("never dropped")


def test_clients_are_limited(bench):
    clients = []
    for _ in range(MAX_CLIENTS // 32):
        clients += [bench.connect() for _ in range(32)]
        bench.turn()
        bench.turn()
    for _ in range(40):
        bench.turn()
    late = bench.connect()
    for _ in range(3):
        bench.turn()

    assert late.receive() is None
    for client in [*clients, late]:
        client.close()
