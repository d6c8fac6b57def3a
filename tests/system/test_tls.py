"""Our client and docker's against an engine that asks for certificates."""

import hashlib
import os
import shutil
import socket
import ssl
import subprocess

import pytest

from support import images, orlopd

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl program"),
]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


PORT = free_port()


def openssl(directory, *words):
    subprocess.run(["openssl", *map(str, words)], cwd=directory, check=True, capture_output=True)


def make_authority(directory, name):
    openssl(
        directory, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}",
        "-keyout", f"{name}-key.pem", "-out", f"{name}.pem",
    )  # fmt: skip


def make_certificate(directory, name, extension, authority="ca"):
    """`<name>.pem` and `<name>-key.pem`, signed by the authority."""
    (directory / "ext").write_text(extension)
    openssl(
        directory, "req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}",
        "-keyout", f"{name}-key.pem", "-out", f"{name}.csr",
    )  # fmt: skip
    openssl(
        directory, "x509", "-req", "-in", f"{name}.csr", "-CA", f"{authority}.pem", "-days", "2",
        "-CAkey", f"{authority}-key.pem", "-CAcreateserial", "-extfile", "ext", "-out", f"{name}.pem",
    )  # fmt: skip


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A directory with `ours` (what a client needs), `strange` (by nobody's authority) and the engine's files."""
    made = tmp_path_factory.mktemp("tls")
    make_authority(made, "ca")
    make_authority(made, "other")
    make_certificate(made, "server", "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth\n")
    make_certificate(made, "client", "extendedKeyUsage=clientAuth\n")
    make_certificate(made, "spy", "extendedKeyUsage=clientAuth\n", authority="other")
    for name, authority, client in (
        ("ours", "ca", "client"),
        ("strange", "other", "client"),
        ("spy", "ca", "spy"),
    ):
        (made / name).mkdir()
        shutil.copy(made / f"{authority}.pem", made / name / "ca.pem")
        shutil.copy(made / f"{client}.pem", made / name / "cert.pem")
        shutil.copy(made / f"{client}-key.pem", made / name / "key.pem")
    return made


@pytest.fixture(scope="module")
def guarded(certificates):
    flags = ["--tlsverify", "--tlscacert", certificates / "ca.pem"]
    flags += ["--tlscert", certificates / "server.pem", "--tlskey", certificates / "server-key.pem"]
    with orlopd.Orlopd(*map(str, flags), hosts=(f"tcp://127.0.0.1:{PORT}",)) as running:
        running.docker("load", input=images.busybox_archive("busybox:latest"))
        yield running


def ask(engine, directory, *words, host=f"tcp://127.0.0.1:{PORT}", **options):
    environ = {"DOCKER_HOST": host, "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(directory)}
    return engine.orlop_by_environment(*words, env=environ, **options)


def test_a_client_with_a_certificate_gets_in(guarded, certificates):
    assert "busybox" in ask(guarded, certificates / "ours", "images").stdout
    shown = ask(guarded, certificates / "ours", "images", host=f"https://127.0.0.1:{PORT}").stdout
    assert "busybox" in shown


def test_streams_go_through(guarded, certificates):
    script = "seq 1 200000; echo done >&2; exit 3"

    words = ("run", "--rm", "--network", "none", "busybox", "sh", "-c", script)
    ran = ask(guarded, certificates / "ours", *words, check=False)

    assert (ran.returncode, ran.stderr) == (3, "done\n")
    assert ran.stdout.splitlines() == [str(number) for number in range(1, 200001)]


def ask_docker(engine, directory, *words, **options):
    environ = {
        "DOCKER_HOST": f"tcp://127.0.0.1:{PORT}",
        "DOCKER_TLS_VERIFY": "1",
        "DOCKER_CERT_PATH": str(directory),
    }
    return engine.docker(*words, env=environ, **options)


@pytest.mark.parametrize("client", [ask, ask_docker])
def test_the_end_of_input_ends_the_input_alone(guarded, certificates, client):
    script = "cat; sleep 0.5; echo later"
    words = ("run", "-i", "--rm", "--network", "none", "busybox", "sh", "-c", script)

    shown = client(guarded, certificates / "ours", *words, input="hi\n").stdout

    assert shown == "hi\nlater\n"


@pytest.mark.parametrize("client", [ask, ask_docker])
def test_much_goes_in_and_comes_back(guarded, certificates, client):
    data = os.urandom(1 << 20) * 16

    words = ("run", "-i", "--rm", "--network", "none", "busybox", "cat")
    shown = client(guarded, certificates / "ours", *words, input=data).stdout

    assert hashlib.sha256(shown).digest() == hashlib.sha256(data).digest()


def test_a_tcp_end_without_a_farewell_ends_the_input_too(guarded, certificates):
    """As clients do that cannot send a close_notify alone."""
    guarded.docker("create", "-i", "--name", "ragged", "--network", "none", "busybox", "wc", "-c")
    context = ssl.create_default_context(cafile=certificates / "ca.pem")
    context.load_cert_chain(certificates / "ours" / "cert.pem", certificates / "ours" / "key.pem")

    with context.wrap_socket(
        socket.create_connection(("127.0.0.1", PORT)), server_hostname="127.0.0.1"
    ) as client:
        client.sendall(
            b"POST /containers/ragged/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
        )
        assert client.recv(1000).startswith(b"HTTP/1.1 101")
        guarded.docker("start", "ragged")
        client.sendall(b"12345")
        socket.socket.shutdown(client, socket.SHUT_WR)
        answer = b""
        while data := client.recv(1000):
            answer += data

    assert answer[8:] == b"5\n"


def test_what_is_no_handshake_is_dropped(guarded):
    with socket.create_connection(("127.0.0.1", PORT), timeout=10) as client:
        client.sendall(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")

        assert b"OK" not in client.recv(1000)
        assert client.recv(1000) == b""


def test_an_engine_that_is_somebody_else_is_not_spoken_to(guarded, certificates):
    ran = ask(guarded, certificates / "strange", "images", check=False)

    assert ran.returncode != 0
    assert "cannot connect to the engine" in ran.stderr
    assert "self-signed certificate" in ran.stderr or "issuer" in ran.stderr


def test_a_client_of_another_authority_stays_outside(guarded, certificates):
    ran = ask(guarded, certificates / "spy", "images", check=False)

    assert ran.returncode != 0
    assert "certificate" in ran.stderr or "unknown ca" in ran.stderr
    assert "Traceback" not in ran.stderr
