"""Attach over WebSocket with docker-py and a plain WebSocket client."""

import socket

import docker
import pytest
import websocket

from support import images, orlopd

pytestmark = pytest.mark.system


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


PORT = free_port()


@pytest.fixture(scope="module")
def served():
    with orlopd.Orlopd(hosts=(f"tcp://127.0.0.1:{PORT}",)) as running:
        running.docker("load", input=images.busybox_archive("busybox:latest"))
        yield running


def container(engine, name, script, *flags):
    engine.docker("create", "-i", "--network", "none", "--name", name, *flags, "busybox", "sh", "-c", script)
    return name


def connect(name, query="stream=1&stdin=1&stdout=1&stderr=1", version="v1.44", **options):
    url = f"ws://127.0.0.1:{PORT}/{version}/containers/{name}/attach/ws?{query}"
    return websocket.create_connection(url, timeout=20, **options)


def read_all(client):
    """All data until the close, and the opcodes of the messages."""
    data, opcodes = b"", set()
    while True:
        opcode, payload = client.recv_data()
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            return data, opcodes
        opcodes.add(opcode)
        data += payload


def test_docker_py_attaches_over_websocket(served):
    api = docker.APIClient(base_url=f"tcp://127.0.0.1:{PORT}", timeout=20)
    name = container(served, "by-docker-py", "read word; echo got $word")

    client = api.attach_socket(name, {"stdin": 1, "stdout": 1, "stream": 1}, ws=True)
    served.docker("start", name)
    client.send("hello\n")
    data, _ = read_all(client)
    api.close()

    assert data == b"got hello\n"


def test_output_has_no_frames_and_the_end_is_a_close(served):
    name = container(served, "plain", "echo out; echo err >&2; seq 1 100000")

    client = connect(name)
    served.docker("start", name)
    data, opcodes = read_all(client)

    assert data.startswith((b"out\n", b"err\n"))
    assert data.splitlines()[-1] == b"100000"
    assert len(data) == len("out\nerr\n") + sum(len(str(number)) + 1 for number in range(1, 100001))
    assert opcodes == {websocket.ABNF.OPCODE_BINARY}


def test_old_versions_get_text_of_all_streams(served):
    name = container(served, "old", r"printf '\303\244\377'; echo err >&2")

    client = connect(name, "stream=1", version="v1.27")
    served.docker("start", name)
    data, opcodes = read_all(client)

    assert "\u00e4\ufffd" in data.decode()
    assert b"err" in data
    assert opcodes == {websocket.ABNF.OPCODE_TEXT}


def test_only_the_streams_asked_for_come(served):
    name = container(served, "one", "echo out; echo err >&2")

    client = connect(name, "stream=1&stderr=1")
    served.docker("start", name)

    assert read_all(client)[0] == b"err\n"


def test_logs_come_first_and_pings_are_answered(served):
    name = container(served, "past", "echo before; read word; echo after")
    served.docker("start", name)
    served.docker("exec", name, "true")

    client = connect(name, "logs=1&stream=1&stdin=1&stdout=1")
    assert client.recv() == b"before\n"
    client.ping("there?")
    opcode, payload = client.recv_data(control_frame=True)
    client.send_binary(b"go\n")

    assert (opcode, payload) == (websocket.ABNF.OPCODE_PONG, b"there?")
    assert read_all(client)[0] == b"after\n"


def test_detach_keys_leave_the_container(served):
    name = container(served, "left", "cat", "-t")
    served.docker("start", name)

    client = connect(name, "stream=1&stdin=1&stdout=1&detachKeys=a,b")
    client.send_binary(b"ab")
    read_all(client)

    assert served.docker("inspect", "-f", "{{.State.Running}}", name).stdout.strip() == "true"


def test_a_close_of_the_client_is_answered_and_the_container_goes_on(served):
    name = container(served, "closed", "sleep 100")
    served.docker("start", name)

    client = connect(name)
    client.send_close(1000)
    opcode, payload = client.recv_data()

    assert (opcode, payload) == (websocket.ABNF.OPCODE_CLOSE, b"\x03\xe8")
    assert served.docker("inspect", "-f", "{{.State.Running}}", name).stdout.strip() == "true"


def test_a_client_that_breaks_the_protocol_is_told_so(served):
    name = container(served, "broken", "sleep 100")
    served.docker("start", name)

    client = connect(name)
    client.sock.sendall(b"\x82\x05hello")  # not masked
    opcode, payload = client.recv_data()

    assert opcode == websocket.ABNF.OPCODE_CLOSE
    assert payload[:2] == b"\x03\xea"


@pytest.mark.parametrize(
    ("name", "options", "status"),
    [
        ("nobody", {}, 404),
        ("seen", {"header": ["Sec-WebSocket-Version: 8"]}, 426),
        ("seen", {"origin": "http://elsewhere.example"}, 403),
    ],
)
def test_refusals_are_plain_answers(served, name, options, status):
    if not served.docker("ps", "-aqf", "name=^seen$").stdout:
        container(served, "seen", "true")

    with pytest.raises(websocket.WebSocketBadStatusException) as caught:
        connect(name, **options)

    assert caught.value.status_code == status
