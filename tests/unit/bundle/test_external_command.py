"""Calls of a runtime's command line, tried with scripts."""

import os
import socket

import pytest

from orlop.bundle import external_command
from orlop.bundle.external_command import Call, Console, RuntimeFailed, exit_code_of
from orlop.runtime.spec import RuntimeSpec


@pytest.fixture
def call(tmp_path):
    def make(script, *arguments):
        path = tmp_path / "runtime"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return Call(RuntimeSpec("fake", str(path), arguments), "/state", str(tmp_path / "log"))

    return make


def failure(call, *arguments, **options):
    with pytest.raises(RuntimeFailed) as caught:
        call.run(arguments or ["create", "id"], **options)
    return caught.value.message


def test_the_command_line_and_the_streams(call, tmp_path):
    out = os.open(tmp_path / "out", os.O_CREAT | os.O_WRONLY)
    call('echo "$@"; env | grep -c SECRET; cat', "--first").run(["create", "id"], fds=(-1, out, out))
    os.close(out)
    log = tmp_path / "log"
    assert (
        tmp_path / "out"
    ).read_text() == f"--first --root /state --log {log} --log-format json create id\n0\n"


def test_the_last_error_of_the_log_is_the_reason(call):
    script = """
    printf '%s\\n' '{"level":"error","msg":"first"}' 'no json' '[]' '{"level":"error","msg":"No such file or directory"}' \\
        '{"level":"info","msg":"later"}' > "$4"; exit 1"""
    assert failure(call(script)) == "no such file or directory"


def test_a_runtime_that_says_nothing(call):
    assert failure(call("exit 7")) == "fake ended with exit code 7"
    assert failure(call("kill -9 $$")) == "fake was ended by signal 9"
    assert "cannot be executed" in failure(Call(RuntimeSpec("x", "/nosuch/x"), "/s", "/nosuch/log"))


def test_a_runtime_that_does_not_end(call, monkeypatch):
    monkeypatch.setattr(external_command, "_CALL_LIMIT_S", 0.2)
    assert failure(call("exec sleep 60")) == "fake create did not end within 0.2 seconds"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('exec: "x": executable file not found in $PATH', 127),
        ("stat /x: no such file or directory", 127),
        ("exec /x: Permission denied", 126),
        ("exec /etc: is a directory", 126),
        ("something else", 128),
    ],
)
def test_exit_codes_are_read_from_the_text(text, code):
    assert exit_code_of(text) == code


def test_a_terminal_is_handed_over(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    console = Console("c.sock")
    reader, writer = os.pipe()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("c.sock")
        socket.send_fds(client, [b"/dev/ptmx"], [writer])
    got = console.receive()
    console.close()
    os.write(got, b"x")
    assert os.read(reader, 1) == b"x"
    assert not os.get_inheritable(got)
    for fd in (reader, writer, got):
        os.close(fd)
    assert not os.path.exists("c.sock")


@pytest.mark.parametrize("count", [0, 2])
def test_anything_but_one_terminal_is_refused(tmp_path, monkeypatch, count):
    monkeypatch.chdir(tmp_path)
    console = Console("c.sock")
    before = len(os.listdir("/proc/self/fd"))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("c.sock")
        socket.send_fds(client, [b"x"], [0] * count)
    with pytest.raises(RuntimeFailed, match="no terminal"):
        console.receive()
    assert len(os.listdir("/proc/self/fd")) == before
    console.close()
