"""Attach and exec where it is narrow: order of log and stream, slow readers, keys, states, many."""

import http.client
import json
import os
import select
import socket
import time

import docker
import pytest

from orlop.wire.stdstream import FrameDecoder

pytestmark = pytest.mark.system


def start(engine, name, *command, flags=()):
    engine.docker("run", "-d", "--network", "none", "--name", name, *flags, "busybox", *command)


def attach(engine, name, query):
    """A hijacked connection after its head, and what came with the head."""
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(30)
    client.connect(str(engine.socket))
    client.sendall(
        f"POST /v1.44/containers/{name}/attach?{query} HTTP/1.1\r\nHost: x\r\n"
        "Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n".encode()
    )
    data = b""
    while b"\r\n\r\n" not in data:
        data += client.recv(1)
    return client, data.split(b" ")[1]


def read_end(client):
    data = b""
    while piece := client.recv(1 << 16):
        data += piece
    client.close()
    return b"".join(piece for _, piece in FrameDecoder().feed(data))


def ask(engine, method, path, body=None):
    connection = http.client.HTTPConnection("localhost", timeout=30)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(engine.socket))
    headers = {"Content-Type": "application/json"} if body is not None else {}
    connection.request(method, path, json.dumps(body) if body is not None else None, headers)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, json.loads(text)["message"] if answer.status >= 400 else text


def test_logs_and_stream_join_without_gap_and_twice_nothing(engine):
    script = "i=0; while [ $i -lt 3000 ]; do echo $i; i=$((i+1)); done; read x; echo last"
    start(engine, "joins", "sh", "-c", script, flags=("-i",))

    client, status = attach(engine, "joins", "logs=1&stream=1&stdin=1&stdout=1")
    client.sendall(b"go\n")
    lines = read_end(client).split()

    assert status == b"101"
    assert lines == [str(number).encode() for number in range(3000)] + [b"last"]


def test_a_stopped_container_is_attached_to_and_started_later(engine):
    start(engine, "again", "echo", "here")
    engine.docker("wait", "again")

    old, _ = attach(engine, "again", "logs=1&stdout=1")
    client, status = attach(engine, "again", "stream=1&stdout=1")
    engine.docker("start", "again")

    assert read_end(old) == b"here\n"
    assert (status, read_end(client)) == (b"101", b"here\n")


def test_one_slow_reader_holds_back_neither_engine_nor_log_for_good(engine):
    start(engine, "loud", "sh", "-c", "read x; head -c 8000000 /dev/zero; echo; echo done", flags=("-i",))
    slow, _ = attach(engine, "loud", "stream=1&stdout=1")
    quick, _ = attach(engine, "loud", "stream=1&stdout=1&stdin=1")

    quick.sendall(b"go\n")
    select.select([slow], [], [], 10)
    assert engine.docker("ps", "-q").stdout  # answers while one does not read
    got = 0
    deadline = time.monotonic() + 30
    for client in (slow, quick):
        client.setblocking(False)
    ends = {slow: 0, quick: 0}
    waiting = {slow, quick}
    while waiting:
        assert time.monotonic() < deadline
        ready, _, _ = select.select(list(waiting), [], [], 5)
        for client in ready:
            piece = client.recv(1 << 16)
            ends[client] += len(piece)
            got += len(piece)
            if not piece:
                waiting.discard(client)
                client.close()

    assert ends[slow] == ends[quick] > 8_000_000


@pytest.mark.parametrize(
    ("keys", "typed"),
    [
        ("", b"\x10\x11"),
        ("ctrl-p,ctrl-q", b"\x10\x11"),
        ("a,b", b"ab"),
        ("ctrl-%40", b"\0"),
        ("DEL", b"\x7f"),
    ],
)
def test_detach_keys_leave(engine, keys, typed):
    start(engine, "keys", "cat", flags=("-it",))

    client, status = attach(engine, "keys", f"stream=1&stdin=1&stdout=1&detachKeys={keys}")
    client.sendall(b"x" + typed)
    shown = b""
    while piece := client.recv(1000):
        shown += piece
    client.close()

    assert status == b"101"
    assert shown in (b"", b"x")
    assert engine.docker("inspect", "-f", "{{.State.Running}}", "keys").stdout.strip() == "true"


@pytest.mark.parametrize("keys", ["ctrl-P", "ctrl-", "abc", "a,", "ctrl-p;ctrl-q"])
def test_other_keys_are_refused(engine, keys):
    start(engine, "keys", "cat", flags=("-it",))
    query = keys.replace(";", "%3B")

    status, text = ask(engine, "POST", f"/v1.44/containers/keys/attach?stream=1&detachKeys={query}")
    assert (status, text) == (400, f"Invalid detach keys ({keys}) provided")
    status, text = ask(engine, "POST", "/v1.44/containers/keys/exec", {"Cmd": ["true"], "DetachKeys": keys})
    assert (status, text) == (400, f"Invalid escape keys ({keys}) provided")


def test_execs_in_every_state(engine):
    start(engine, "states", "sleep", "1000")
    cid = engine.docker("inspect", "-f", "{{.Id}}", "states").stdout.strip()
    body = {"Cmd": ["sleep", "1000"]}

    def create():
        return json.loads(ask(engine, "POST", "/v1.44/containers/states/exec", body)[1])["Id"]

    running, waiting, done = create(), create(), create()
    assert ask(engine, "POST", f"/v1.44/exec/{running}/start", {"Detach": True})[0] == 200
    assert ask(engine, "POST", f"/v1.44/exec/{running}/start", {"Detach": True}) == (
        409,
        f"Error: Exec command {running} is already running",
    )
    engine.docker("pause", "states")
    assert ask(engine, "POST", "/v1.44/containers/states/exec", body) == (
        409,
        "Container states is paused, unpause the container before exec",
    )
    assert ask(engine, "POST", f"/v1.44/exec/{waiting}/start", {"Detach": True}) == (
        409,
        f"Container {cid} is paused, unpause the container before exec",
    )
    engine.docker("unpause", "states")
    engine.docker("restart", "-t", "0", "states")
    for path in ("start", "resize?h=1&w=1"):
        assert ask(engine, "POST", f"/v1.44/exec/{waiting}/{path}", {"Detach": True}) == (
            404,
            f"No such exec instance: {waiting}",
        )
    assert ask(engine, "GET", f"/v1.44/exec/{done}/json")[0] == 404
    ended = json.loads(ask(engine, "GET", f"/v1.44/exec/{running}/json")[1])
    assert (ended["Running"], ended["ExitCode"]) == (False, 137)
    assert ask(engine, "POST", f"/v1.44/exec/{running}/start", {"Detach": True}) == (
        409,
        f"Error: Exec command {running} has already run",
    )
    engine.docker("stop", "-t", "0", "states")
    assert ask(engine, "POST", "/v1.44/containers/states/exec", body) == (
        409,
        f"container {cid} is not running",
    )
    assert ask(engine, "POST", "/v1.44/containers/states/resize?h=1&w=1") == (
        409,
        f"container {cid} is not running",
    )
    assert ask(engine, "POST", "/v1.44/containers/states/resize?h=&w=1")[0] == 400


def test_many_execs_leave_nothing(engine):
    start(engine, "many", "sleep", "1000")
    api = engine.api().api

    def descriptors():
        return len(os.listdir(f"/proc/{engine.pid}/fd"))

    def run_one():
        exec_id = api.exec_create("many", ["true"])["Id"]
        api.exec_start(exec_id)
        return exec_id

    first = run_one()
    before = descriptors()
    for _ in range(100):
        run_one()
    for _ in range(1100):
        api.exec_create("many", ["true"])
    deadline = time.monotonic() + 20
    while descriptors() > before + 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)

    assert api.exec_inspect(first)["ExitCode"] == 0
    assert len(api.inspect_container("many")["ExecIDs"] or ()) <= 1001


@pytest.mark.parametrize("version", ["1.24", "1.30", "1.39", "1.41", "1.44"])
def test_clients_of_old_versions_are_served(engine, version):
    api = docker.APIClient(base_url=engine.address, version=version, timeout=30)

    made = api.create_container(
        "busybox", ["sh", "-c", "cat /proc/self/cgroup; sleep 100"], host_config={"NetworkMode": "none"}
    )
    api.start(made)
    exec_id = api.exec_create(made["Id"], ["echo", "hi"])["Id"]
    shown = api.exec_start(exec_id)
    config = api.inspect_container(made)
    info = api.info()
    api.remove_container(made, force=True)
    api.close()

    assert shown == b"hi\n"
    assert ("KernelMemory" in config["HostConfig"]) == (version < "1.42")
    assert ("ExecutionDriver" in info) == (version == "1.24")
    assert config["HostConfig"]["IpcMode"] == ("shareable" if version < "1.40" else "private")
