"""Our client and docker's against an engine that asks for certificates."""

import shutil
import socket
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


def test_input_goes_through(guarded, certificates):
    words = ("run", "-i", "--name", "eats", "--network", "none", "busybox", "sh", "-c", "wc -l; sleep 0.2")
    ask(guarded, certificates / "ours", *words, input="line\n" * 50_000)

    # with TLS the end of input ends the connection: the answer may be in the log alone
    assert ask(guarded, certificates / "ours", "logs", "eats").stdout == "50000\n"


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
