"""Log drivers with services that the test plays, driven by docker's unmodified CLI."""

import contextlib
import json
import re
import socket
import threading
import time
import zlib

import pytest


class Receiver:
    """A socket that keeps what arrives; a stream server or a datagram socket."""

    def __init__(self, sock, *, answers=None):
        self.socket = sock
        self.data = b""
        self.datagrams = []
        self._answers = answers
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        with contextlib.suppress(OSError):
            if self.socket.type == socket.SOCK_DGRAM:
                while True:
                    data, fds, _, _ = socket.recv_fds(self.socket, 1 << 20, 4)
                    for fd in fds:
                        with open(fd, "rb") as file:
                            file.seek(0)
                            data = file.read()
                    self._keep(data)
            while True:
                connection, _ = self.socket.accept()
                threading.Thread(target=self._read, args=(connection,), daemon=True).start()

    def _read(self, connection):
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(1 << 16):
                self._keep(data)
                if self._answers:
                    connection.sendall(self._answers(data))

    def _keep(self, data):
        with self._changed:
            self.data += data
            self.datagrams.append(data)
            self._changed.notify_all()

    def wait_for(self, text):
        with self._changed:
            assert self._changed.wait_for(lambda: text in self.data, 15), self.data[-500:]
        return self.data

    def close(self):
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


@pytest.fixture
def listen():
    """Make a receiver: `udp`, `tcp`, or the path of a datagram socket; returns it and its address."""
    made = []

    def start(kind, **options):
        if kind in ("udp", "tcp"):
            sock = socket.socket(type=socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", options.pop("port", 0)))
            address = f"{kind}://127.0.0.1:{sock.getsockname()[1]}"
            if kind == "tcp":
                sock.listen()
        else:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            sock.bind(str(kind))
            address = f"unixgram://{kind}"
        made.append(Receiver(sock, **options))
        return made[-1], address

    yield start
    for receiver in made:
        receiver.close()


def run(engine, driver, script, **options):
    words = [
        word for name, value in options.items() for word in ("--log-opt", f"{name.replace('_', '-')}={value}")
    ]
    return engine.docker(
        "run", "-d", "--log-driver", driver, *words, "busybox", "sh", "-c", script
    ).stdout.strip()


def logs(engine, container):
    done = engine.docker("logs", container)
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("form", "pattern"),
    [
        ("", rb"<30>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ \S+ box\[\d+\]: hello\n"),
        ("rfc3164", rb"<30>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \S+ box\[\d+\]: hello\n"),
        ("rfc5424", rb"<30>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ \S+ box \d+ box - hello\n"),
        ("rfc5424micro", rb"<30>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z \S+ box \d+ box - hello\n"),
    ],
)
def test_syslog_over_tcp(engine, listen, form, pattern):
    receiver, address = listen("tcp")

    container = run(
        engine, "syslog", "echo hello; echo bad >&2", syslog_address=address, syslog_format=form, tag="box"
    )

    assert re.search(pattern, receiver.wait_for(b"bad") and receiver.wait_for(b"hello"))
    assert b"<27>" in receiver.data  # standard error is an error
    assert sorted(logs(engine, container).split()) == ["bad", "hello"]


def test_syslog_over_udp_with_a_facility(engine, listen):
    receiver, address = listen("udp")

    container = run(engine, "syslog", "echo hello", syslog_address=address, syslog_facility="local3")

    receiver.wait_for(b"hello")
    assert receiver.datagrams[0].startswith(b"<158>")
    assert container[:12].encode() in receiver.datagrams[0]


def test_a_service_that_is_not_there_fails_the_start(engine):
    done = engine.docker(
        *("run", "-d", "--log-driver", "syslog", "--log-opt", "syslog-address=tcp://127.0.0.1:1"),
        *("busybox", "true"),
        check=False,
    )

    assert done.returncode == 125 or done.returncode == 128
    assert (
        "failed to initialize logging driver: dial tcp 127.0.0.1:1: connect: connection refused"
        in done.stderr
    )


def test_an_asynchronous_service_gets_the_log_when_it_comes(engine, listen):
    probe = socket.create_server(("127.0.0.1", 0))
    port = probe.getsockname()[1]
    probe.close()
    container = run(
        engine,
        "fluentd",
        "echo early; sleep 600",
        fluentd_address=f"127.0.0.1:{port}",
        fluentd_async="true",
        fluentd_retry_wait="50ms",
    )
    assert "early" in wait_logs(engine, container, "early")  # nobody there, and nothing held up

    receiver, _ = listen("tcp", port=port)

    receiver.wait_for(b"early")


def wait_logs(engine, container, text):
    """Wait until a line is in the log kept here."""
    deadline = time.monotonic() + 15
    while text not in (shown := logs(engine, container)):
        assert time.monotonic() < deadline, shown
        time.sleep(0.05)
    return shown


def unpack(data, at=0):
    """Enough of MessagePack to read what a forwarder sends: (value, where it ends)."""
    head = data[at]
    if head < 0x80:
        return head, at + 1
    if head >> 4 == 0x9:
        return unpack_many(data, at + 1, head & 15)
    if head >> 4 == 0x8 or head == 0xDE:
        size, at = (head & 15, at + 1) if head != 0xDE else (int.from_bytes(data[at + 1 : at + 3]), at + 3)
        items, at = unpack_many(data, at, 2 * size)
        return dict(zip(items[::2], items[1::2], strict=True)), at
    if head == 0xD7:
        assert data[at + 1] == 0
        return (int.from_bytes(data[at + 2 : at + 6]), int.from_bytes(data[at + 6 : at + 10])), at + 10
    if head == 0xCF:
        return int.from_bytes(data[at + 1 : at + 9]), at + 9
    width = {0xD9: 1, 0xDA: 2, 0xDB: 4}.get(head, 0)
    size = int.from_bytes(data[at + 1 : at + 1 + width]) if width else head & 31
    start = at + 1 + width
    return data[start : start + size].decode("latin-1"), start + size


def unpack_many(data, at, count):
    items = []
    for _ in range(count):
        item, at = unpack(data, at)
        items.append(item)
    return items, at


def events(data):
    found, at = [], 0
    while at < len(data):
        event, at = unpack(data, at)
        found.append(event)
    return found


def test_fluentd_with_acknowledgements_and_nanoseconds(engine, listen):
    def acknowledge(data):
        return b"".join(b"\x81\xa3ack\xd9\x20" + event[3]["chunk"].encode() for event in events(data))

    receiver, address = listen("tcp", answers=acknowledge)

    run(
        engine,
        "fluentd",
        "echo one; echo two",
        fluentd_address=address,
        fluentd_request_ack="true",
        fluentd_sub_second_precision="true",
        tag="app.{{.ImageName}}",
        env="COLOUR",
    )

    receiver.wait_for(b"two")
    first, second = events(receiver.data)
    assert (first[0], first[2]["log"], second[2]["log"]) == ("app.busybox", "one", "two")
    assert abs(first[1][0] - time.time()) < 600
    assert first[2]["source"] == "stdout"
    assert first[2]["container_name"].startswith("/")


def test_journald_gets_fields_and_long_lines_in_pieces(engine, listen, tmp_path):
    receiver, address = listen(tmp_path / "journal")

    container = run(
        engine,
        "journald",
        "echo hello; head -c 40000 /dev/zero | tr '\\0' x; echo; echo bad >&2; echo end",
        journald_address=address,
        tag="{{.ID}}!",
    )

    receiver.wait_for(b"MESSAGE=end\n")
    receiver.wait_for(b"MESSAGE=bad\n")
    assert b"MESSAGE=hello\nPRIORITY=6\n" in receiver.data
    assert b"MESSAGE=bad\nPRIORITY=3\n" in receiver.data
    short = container[:12].encode()
    for field in (
        b"CONTAINER_ID=%s" % short,
        b"CONTAINER_ID_FULL=%s" % container.encode(),
        b"CONTAINER_TAG=%s!" % short,
    ):
        assert field + b"\n" in receiver.data
    pieces = [entry for entry in receiver.datagrams if b"CONTAINER_PARTIAL_MESSAGE=true" in entry]
    assert sum(entry.count(b"x", 0, entry.index(b"PRIORITY")) for entry in pieces) == 40000
    assert [b"CONTAINER_PARTIAL_LAST=true" in entry for entry in pieces] == [False, False, True]


def test_gelf_over_udp_is_compressed(engine, listen):
    receiver, address = listen("udp")

    container = run(
        engine, "gelf", "echo hello", gelf_address=address, gelf_compression_type="zlib", labels="x"
    )

    deadline = time.monotonic() + 15
    while not receiver.datagrams and time.monotonic() < deadline:
        time.sleep(0.02)
    message = json.loads(zlib.decompress(receiver.datagrams[0]))
    assert (message["version"], message["short_message"], message["level"]) == ("1.1", "hello", 6)
    assert message["_container_id"] == container


def test_a_service_that_hangs_holds_up_nobody(engine, listen):
    server = socket.create_server(("127.0.0.1", 0))  # nobody reads
    with server:
        container = run(
            engine,
            "syslog",
            "head -c 20000000 /dev/zero | tr '\\0' 'x' | fold -w 99; echo; echo end",
            syslog_address=f"tcp://127.0.0.1:{server.getsockname()[1]}",
        )
        assert engine.docker("wait", container).stdout.strip() == "0"
        assert engine.docker("logs", "--tail", "1", container).stdout == "end\n"


def test_the_copy_kept_here_can_be_switched_off(engine, listen):
    _, address = listen("udp")
    container = run(engine, "syslog", "echo x", syslog_address=address, cache_disabled="true")

    done = engine.docker("logs", container, check=False)

    assert done.returncode == 1
    assert "configured logging driver does not support reading" in done.stderr


def test_details_are_the_chosen_labels_and_variables(engine):
    engine.docker(
        *("run", "--name", "detailed", "-l", "app=my shop", "-e", "A=1", "-e", "B=2"),
        *("--log-opt", "labels=app", "--log-opt", "env=A,B", "busybox", "echo", "hello"),
    )
    engine.docker("run", "--name", "plain", "busybox", "echo", "hello")

    assert engine.docker("logs", "--details", "detailed").stdout == "A=1,B=2,app=my+shop hello\n"
    assert engine.docker("logs", "--details", "plain").stdout == " hello\n"
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z A=1,B=2,app=my\+shop hello\n",
        engine.docker("logs", "--details", "-t", "detailed").stdout,
    )


def test_an_unknown_option_is_refused_in_dockers_words(engine):
    done = engine.docker("create", "--log-opt", "colour=red", "busybox", check=False)

    assert "unknown log opt 'colour' for json-file log driver" in done.stderr
    info = json.loads(engine.docker("info", "-f", "{{json .}}").stdout)
    assert info["LoggingDriver"] == "json-file"
    assert {"json-file", "local", "none", "syslog", "journald", "fluentd", "gelf"} <= set(
        info["Plugins"]["Log"]
    )
