import socket
import threading
from dataclasses import replace

import pytest

from orlop.runtime.logs import LogEntry, LogQuery, LogReader
from orlop.runtime.logsenders import Message, ServiceError, make_sender
from orlop.runtime.logshipping import PIECE_BYTES, Shipper, messages_of
from orlop.runtime.logwriter import LogWriter
from orlop.runtime.spec import LogServiceSpec


def service(kind="fluentd", address="tcp://127.0.0.1:1", **settings):
    return LogServiceSpec(kind, address, "tag", "c" * 64, settings={"retry_wait_s": 0.001, **settings})


class Sender:
    """Fails as often as it is told to before each message, and keeps the rest."""

    def __init__(self, failures=0):
        self.sent = []
        self.closed = 0
        self._failures = self._left = failures

    def connect(self):
        raise AssertionError("the sender connects by itself")

    def send(self, message):
        if message.text == b"too big":
            raise ValueError("too big")
        if self._left:
            self._left -= 1
            raise ServiceError(111, "refused")
        self._left = self._failures
        self.sent.append(message.text)

    def close(self):
        self.closed += 1


def ship(directory, sender, spec, *lines):
    """Ship a log whose writer ends at once."""
    writer = LogWriter(directory, max_size_bytes=1 << 20, max_files=3)
    ours, theirs = socket.socketpair()
    with ours, theirs, LogReader(directory, LogQuery(tail=0), follow=True) as reader:
        for line in lines:
            writer.write(1, memoryview(line))
        writer.close()
        ours.close()
        Shipper(spec, reader, sender, theirs).run()


def test_everything_is_sent_before_the_end_a_last_half_line_too(tmp_path):
    sender = Sender()

    ship(str(tmp_path / "log"), sender, service(), b"one\ntwo\n", b"half")

    assert sender.sent == [b"one", b"two", b"half"]


def test_a_service_that_comes_back_misses_nothing(tmp_path):
    sender = Sender(failures=3)

    ship(str(tmp_path / "log"), sender, service(), b"one\ntwo\n")

    assert sender.sent == [b"one", b"two"]
    assert sender.closed == 6


def test_a_message_is_given_up_after_as_many_tries_as_were_asked_for(tmp_path):
    sender = Sender(failures=2)

    ship(str(tmp_path / "log"), sender, service(max_retries=1), b"one\ntwo\n")

    assert sender.sent == [b"two"]  # the third try of all is the first of the second line


def test_a_line_that_fits_into_no_message_is_left_out(tmp_path):
    sender = Sender()

    ship(str(tmp_path / "log"), sender, service(), b"too big\nfine\n")

    assert sender.sent == [b"fine"]


def test_a_dead_service_is_given_up_some_time_after_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr("orlop.runtime.logshipping.DRAIN_LIMIT_S", 0.05)

    with pytest.raises(TimeoutError):
        ship(str(tmp_path / "log"), Sender(failures=10**9), service(), b"one\n")


@pytest.mark.parametrize("size", [1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES])
def test_long_lines_are_cut_and_say_so(size):
    pieces = messages_of(LogEntry(2, 5, b"x" * size + b"\n"))

    assert b"".join(piece.text for piece in pieces) == b"x" * size
    assert all(len(piece.text) <= PIECE_BYTES and piece.level == 3 for piece in pieces)
    if len(pieces) == 1:
        assert pieces[0].partial is None
    else:
        assert [piece.partial.ordinal for piece in pieces] == list(range(1, len(pieces) + 1))
        assert [piece.partial.is_last for piece in pieces] == [False] * (len(pieces) - 1) + [True]
        assert len({piece.partial.id for piece in pieces}) == 1


def test_empty_lines_are_not_sent():
    assert messages_of(LogEntry(1, 1, b"\n")) == []


def test_a_connection_that_the_service_closed_is_noticed_before_the_next_message():
    server = socket.create_server(("127.0.0.1", 0))
    with server:
        sender = make_sender(service(address=f"tcp://127.0.0.1:{server.getsockname()[1]}"))
        sender.connect()
        connection, _ = server.accept()
        connection.close()

        with pytest.raises(OSError, match=r"closed the connection|reset"):
            sender.send(Message(1, 1, b"x"))
        sender.close()


def test_a_missing_acknowledgement_is_an_error():
    server = socket.create_server(("127.0.0.1", 0))

    def answer():
        connection, _ = server.accept()
        with connection:
            connection.recv(1000)

    thread = threading.Thread(target=answer)
    thread.start()
    with server:
        sender = make_sender(service(address=f"tcp://127.0.0.1:{server.getsockname()[1]}", has_ack=True))
        with pytest.raises(OSError, match="did not acknowledge"):
            sender.send(Message(1, 1, b"x"))
        sender.close()
        thread.join()


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "unix:///nowhere/s", "unixgram:///nowhere/s"])
def test_who_is_not_there_is_named(address):
    with pytest.raises(ServiceError) as caught:
        make_sender(service("syslog", address)).connect()

    assert caught.value.strerror.startswith(f"dial {address.replace('://', ' ', 1)}: connect: ")


def test_no_label_says_who_speaks_to_fluentd():
    forged = dict.fromkeys(("container_id", "container_name", "source", "log", "mine"), "forged")
    with socket.create_server(("127.0.0.1", 0)) as server:
        spec = replace(service(address=f"tcp://127.0.0.1:{server.getsockname()[1]}"), attributes=forged)
        sender = make_sender(spec)
        sender.connect()
        connection, _ = server.accept()
        with connection:
            sender.send(Message(1, 0, b"true words"))
            sender.close()
            data = b"".join(iter(lambda: connection.recv(4096), b""))

    assert data.count(b"forged") == 1
    assert b"true words" in data
    assert b"c" * 64 in data
