"""Sockets that a service manager made, the unit files that it reads, and clients at the end of ssh."""

import configparser
import hashlib
import os
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from orlop.daemon_flags import parse_flags
from support import images, orlopd

pytestmark = pytest.mark.system

LAUNCHER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
"""
PING = b"GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
UNITS = Path(__file__).parents[2] / "contrib" / "systemd"


class Activated(orlopd.Orlopd):
    """An engine whose socket was made for it, as systemd does."""

    def __init__(self, *flags):
        super().__init__(*flags)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.socket))
        self.listener.listen(16)
        self.passed_fds = (self.listener.fileno(),)
        self.host = "fd://"

    def _answers(self):
        """Whether the engine does: a connection alone comes about without it."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(0.2)
            client.connect(str(self.socket))
            client.sendall(PING)
            try:
                return client.recv(1000).startswith(b"HTTP/1.1 200")
            except TimeoutError:
                return False

    def command(self):
        words = [word if word != self.address else self.host for word in super().command()]
        return [sys.executable, "-c", LAUNCHER, str(self.listener.fileno()), *words]


@pytest.fixture(scope="module")
def activated():
    with Activated() as running:
        running.docker("load", input=images.busybox_archive("busybox:latest"))
        yield running
    running.listener.close()


def test_an_engine_serves_the_socket_that_it_was_given(activated):
    assert "busybox" in activated.docker("images").stdout


def test_a_client_waits_for_an_engine_that_is_being_started(activated):
    activated.stop()
    assert activated.socket.exists(), "the socket is the service manager's"

    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(30)
        client.connect(str(activated.socket))
        client.sendall(PING)
        activated.start()

        assert client.recv(1000).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("host", ["fd://7", "fd://x"])
def test_a_socket_that_was_not_passed_is_an_error(host):
    engine = Activated()
    engine.host = host

    with engine.listener, pytest.raises(AssertionError) as caught, engine:
        pass

    assert "orlopd ended with 1" in str(caught.value)
    assert f"{host} is not a socket that was passed" in str(caught.value)


def test_without_a_service_manager_there_are_no_sockets():
    with pytest.raises(AssertionError) as caught, orlopd.Orlopd(hosts=("fd://",)):
        pass

    assert "no sockets found via socket activation" in str(caught.value)


def read_unit(name):
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str
    parser.read(UNITS / name)
    return parser


def test_the_service_leaves_containers_alone_and_its_flags_exist():
    service = read_unit("orlop.service")

    words = shlex.split(service["Service"]["ExecStart"])
    flags = parse_flags(words[1:])

    assert flags["host"] == ["fd://"]
    assert service["Service"]["KillMode"] == "process"
    assert service["Service"]["Delegate"] == "yes"
    assert service["Service"]["Type"] == "notify"
    assert service["Unit"]["Requires"] == "orlop.socket"
    assert read_unit("orlop.socket")["Socket"]["ListenStream"] == "/run/orlop/orlop.sock"


# ssh


@pytest.fixture
def by_ssh(activated, tmp_path):
    """The environment of a client whose ssh leads to a machine with this engine, and `orlop` as its docker."""
    (tmp_path / "there").mkdir()
    docker = tmp_path / "there" / "docker"
    docker.write_text(f'#!/bin/sh\nexec {sys.executable} -m orlop.cli.main "$@"\n')
    ssh = tmp_path / "ssh"
    ssh.write_text(
        "#!/bin/sh\n"
        'while [ "$1" != -- ]; do shift; done; shift\n'
        'while [ "$1" = far ] || [ "$1" = -- ]; do shift; done\n'
        f"unset DOCKER_HOST; export ORLOP_HOST={activated.address}\n"
        f'PATH={docker.parent}:$PATH exec sh -c "$*"\n'
    )
    for program in (docker, ssh):
        program.chmod(0o755)
    return {"PATH": f"{tmp_path}:{os.environ['PATH']}", "DOCKER_HOST": "ssh://far"}


def test_docker_reaches_the_engine_over_ssh(activated, by_ssh):
    data = os.urandom(1 << 20) * 4

    shown = activated.docker("images", env=by_ssh).stdout
    script = "cat | sha256sum; echo later"
    words = ("run", "-i", "--rm", "--network", "none", "busybox", "sh", "-c", script)
    ran = activated.docker(*words, env=by_ssh, input=data).stdout

    assert "busybox" in shown
    assert ran.split()[0].decode() == hashlib.sha256(data).hexdigest()
    assert ran.endswith(b"later\n")


def test_dial_stdio_ends_with_the_engine(activated):
    answer = activated.orlop("system", "dial-stdio", input=PING).stdout

    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert answer.endswith(b"OK")


def test_dial_stdio_ends_when_the_engine_hangs_up_and_input_goes_on(activated):
    """The input is a pipe that stays open."""
    reader, writer = os.pipe()
    command = [sys.executable, "-m", "orlop.cli.main", "-H", activated.address, "system", "dial-stdio"]
    with subprocess.Popen(
        command, stdin=reader, stdout=subprocess.PIPE, env=activated.client_env()
    ) as program:
        os.close(reader)
        os.write(writer, PING)
        try:
            shown, _ = program.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            program.send_signal(signal.SIGKILL)
            raise
        finally:
            os.close(writer)

    assert shown.endswith(b"OK")
    assert program.returncode == 0
