"""Much data, many clients, clients that vanish: what flows through the door arrives, and nothing hangs."""

import hashlib
import os
import select
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

MIB = 1 << 20


def wait_until(condition, timeout_s=15):
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "does not happen"
        time.sleep(0.02)
    return value


def status(engine, name):
    return engine.docker(
        "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", name, check=False
    ).stdout.strip()


@pytest.mark.parametrize("client", ["docker", "orlop"])
def test_stdin_arrives_whole(engine, client):
    data = os.urandom(MIB) * 32

    shown = getattr(engine, client)("run", "--rm", "-i", "busybox", "sha256sum", input=data).stdout

    assert shown.split()[0].decode() == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("client", ["docker", "orlop"])
def test_output_arrives_whole_and_apart(engine, client):
    script = "dd if=/dev/zero bs=1M count=32 2>/dev/null | tr '\\0' o; dd if=/dev/zero bs=1M count=4 2>/dev/null | tr '\\0' e >&2"

    done = getattr(engine, client)("run", "--rm", "busybox", "sh", "-c", script, input=b"")

    assert done.stdout == b"o" * 32 * MIB
    assert done.stderr.endswith(b"e" * 4 * MIB)


def test_output_goes_there_and_back_at_the_same_time(engine):
    data = os.urandom(8 * MIB)

    shown = engine.docker("run", "--rm", "-i", "busybox", "cat", input=data).stdout

    assert hashlib.sha256(shown).digest() == hashlib.sha256(data).digest()


def test_exec_carries_both_ways(engine):
    engine.docker("run", "-d", "--name", "host", "busybox", "sleep", "60")
    data = os.urandom(8 * MIB)

    shown = engine.docker("exec", "-i", "host", "cat", input=data).stdout

    assert hashlib.sha256(shown).digest() == hashlib.sha256(data).digest()


def test_many_runs_at_the_same_time(engine):
    def run(number):
        return engine.docker(
            "run", "--rm", "busybox", "sh", "-c", f"echo {number}; exit {number}", check=False
        )

    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(run, range(24)))

    assert [(item.stdout, item.returncode) for item in done] == [
        (f"{number}\n", number) for number in range(24)
    ]
    assert engine.docker("ps", "-aq").stdout == ""


def test_a_container_outlives_its_client(engine):
    with engine.popen(
        "run", "--name", "orphan", "busybox", "sh", "-c", "echo here; sleep 1; exit 3"
    ) as client:
        assert client.stdout.readline() == b"here\n"
        client.kill()

    assert status(engine, "orphan") == "running 0"
    assert engine.docker("wait", "orphan").stdout == "3\n"


def test_signals_of_the_client_reach_the_program(engine):
    script = "trap 'echo bye; exit 9' TERM; echo ready; while :; do sleep 0.05; done"
    with engine.popen("run", "--rm", "busybox", "sh", "-c", script) as client:
        assert client.stdout.readline() == b"ready\n"
        client.send_signal(signal.SIGTERM)
        rest, _ = client.communicate(timeout=20)

    assert (rest, client.returncode) == (b"bye\n", 9)


def test_a_client_that_reads_nothing_stops_no_other(engine):
    engine.docker("run", "-d", "--name", "loud", "busybox", "sh", "-c", "while :; do echo loud; done")
    with engine.popen("logs", "-f", "loud") as deaf:
        time.sleep(0.5)
        began = time.monotonic()
        shown = engine.docker("run", "--rm", "busybox", "echo", "quiet").stdout
        took_s = time.monotonic() - began
        deaf.kill()

    assert shown == "quiet\n"
    assert took_s < 5


def test_two_clients_see_the_same_output(engine):
    engine.docker("run", "-di", "--name", "shared", "busybox", "cat")
    clients = [engine.popen("attach", "--sig-proxy=false", "shared", stdin=subprocess.PIPE) for _ in range(2)]
    deaf = {client.stdout for client in clients}

    def hear():
        """Nothing tells when a client is attached: say it until everybody has heard it."""
        clients[0].stdin.write(b"to all\n")
        clients[0].stdin.flush()
        deaf.difference_update(select.select(list(deaf), [], [], 0.1)[0])
        return not deaf

    wait_until(hear)
    lines = [client.stdout.readline() for client in clients]

    engine.docker("kill", "shared")
    for client in clients:
        client.communicate(timeout=20)
    assert lines == [b"to all\n", b"to all\n"]


def test_following_logs_ends_with_the_container(engine):
    engine.docker(
        "run", "-d", "--name", "ends", "busybox", "sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.1; done"
    )

    assert engine.docker("logs", "-f", "ends").stdout == "1\n2\n3\n"


def test_removing_by_force_ends_everything_that_hangs_on_it(engine):
    engine.docker("run", "-d", "--name", "gone", "busybox", "sleep", "60")
    clients = [
        engine.popen("logs", "-f", "gone"),
        engine.popen("wait", "gone"),
        engine.popen("exec", "gone", "sleep", "60"),
        engine.popen("attach", "--no-stdin", "gone"),
    ]
    wait_until(
        lambda: b"sleep 60" in engine.docker("top", "gone", input=b"").stdout.replace(b"sleep 60", b"", 1)
    )

    engine.docker("rm", "-f", "gone")

    codes = [client.wait(20) for client in clients]
    for client in clients:
        client.communicate()
    assert codes[1] == 0
    assert codes[2] == 137
