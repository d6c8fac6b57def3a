"""`docker logs` as its users know it, and what ours can do besides."""

import os
import re
import socket
import subprocess
import sys
import time

import pytest

RFC3339 = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z"


def start(engine, script, *flags):
    return engine.docker("run", "-d", *flags, "busybox", "sh", "-c", script).stdout.strip()


def finished(engine, script, *flags):
    container = start(engine, script, *flags)
    engine.docker("wait", container)
    return container


def log_files(engine, container):
    return sorted((engine.data_root / "containers" / container / "log").iterdir())


def wait_until(condition, timeout_s=15):
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "does not happen"
        time.sleep(0.02)
    return value


def follow(engine, client, *words):
    ours = [sys.executable, "-m", "orlop.cli.main", "-H", engine.address]
    command = ["docker"] if client == "docker" else ours
    return subprocess.Popen(
        [*command, "logs", "-f", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=engine.client_env(),
        text=True,
    )


@pytest.mark.parametrize("client", ["docker", "orlop"])
def test_flags_choose_what_is_shown(engine, client):
    container = finished(engine, "echo one; sleep 0.3; echo two; echo bad >&2; sleep 0.1; echo three")

    def show(*words):
        return getattr(engine, client)("logs", *words, container)

    assert show().stdout.split() == ["one", "two", "three"]
    assert show().stderr == "bad\n"
    assert show("--tail", "1").stdout == "three\n"
    assert show("--tail", "0").stdout == ""
    for everything in ("all", "-1", "nonsense"):
        assert show("--tail", everything).stdout.split() == ["one", "two", "three"]
    stamped = show("-t").stdout.splitlines()
    assert all(re.fullmatch(RFC3339 + r" \w+", line) for line in stamped)
    second = stamped[1].split()[0]
    assert show("--since", second).stdout.split() == ["two", "three"]
    assert show("--until", second).stdout.split() == ["one", "two"]
    assert show("--since", "10m").stdout.split() == ["one", "two", "three"]
    assert show("--until", "10m").stdout == ""
    assert show("--since", str(int(time.time()) + 3600)).stdout == ""
    assert show("--since", "1.5").stdout.split() == ["one", "two", "three"]


def test_bytes_survive_as_they_are(engine):
    container = finished(
        engine,
        "printf 'a\\0b\\r\\377\\n'; head -c 10000000 /dev/zero | tr '\\0' y; printf '\\nno end'",
        "--log-opt",
        "max-size=50m",
    )

    done = subprocess.run(
        ["docker", "logs", container], capture_output=True, env=engine.client_env(), check=True
    )

    assert done.stdout == b"a\0b\r\xff\n" + b"y" * 10_000_000 + b"\nno end"


def test_following_goes_over_a_rotation_and_ends_with_the_container(engine):
    container = start(
        engine,
        "read x; seq 1 50000; echo end",
        "-i",
        "--log-opt",
        "max-size=64k",
        "--log-opt",
        "max-file=100",
    )
    follower = follow(engine, "docker", container)
    subprocess.run(
        ["docker", "attach", container],
        input=b"go\n",
        env=engine.client_env(),
        capture_output=True,
        check=True,
    )

    out, _ = follower.communicate(timeout=30)

    assert out.split() == [*map(str, range(1, 50001)), "end"]
    assert len(log_files(engine, container)) > 2


def test_following_ends_when_the_container_is_removed(engine):
    container = start(engine, "echo here; sleep 600")
    follower = follow(engine, "docker", container)
    assert follower.stdout.readline() == "here\n"

    engine.docker("rm", "-f", container)

    out, _ = follower.communicate(timeout=15)
    assert out == ""


def test_a_restarted_container_goes_on_in_its_log(engine):
    container = finished(engine, "echo once")
    engine.docker("start", "-a", container)

    assert engine.docker("logs", container).stdout == "once\nonce\n"


@pytest.mark.parametrize("client", ["docker", "orlop"])
def test_followers_of_both_clients_wait_for_more(engine, client):
    container = start(engine, "echo one; while ! test -e /go; do sleep 0.05; done; echo two")
    follower = follow(engine, client, "--tail", "1", container)
    assert follower.stdout.readline() == "one\n"

    engine.docker("exec", container, "touch", "/go")

    assert follower.communicate(timeout=15) == ("two\n", "")
    assert follower.returncode == 0


@pytest.mark.parametrize("is_running", [True, False])
def test_a_log_can_be_cleared(engine, is_running):
    more = "while ! test -e /go; do sleep 0.05; done; echo new; sleep 600" if is_running else "true"
    container = start(engine, f"echo old; {more}")
    wait_until(lambda: "old" in engine.docker("logs", container).stdout)
    if not is_running:
        engine.docker("wait", container)

    engine.orlop("logs", "--clear", container)

    assert engine.docker("logs", container).stdout == ""
    if is_running:
        engine.docker("exec", container, "touch", "/go")
        wait_until(lambda: engine.docker("logs", container).stdout == "new\n")


def test_lines_can_be_searched_for(engine):
    container = finished(engine, "seq 1 2000; sleep 0.2; echo bad 77 >&2")

    done = engine.orlop("logs", "--grep", "77", "--tail", "1500", container)

    assert done.stdout.split() == [str(n) for n in range(502, 2001) if "77" in str(n)]
    assert done.stderr == "bad 77\n"


def test_damage_costs_what_is_damaged_and_is_told(engine):
    container = finished(engine, "for i in 1 2 3; do echo line $i; sleep 0.05; done")
    (path,) = log_files(engine, container)
    data = bytearray(path.read_bytes())
    data[data.index(b"line 2")] ^= 1
    path.write_bytes(data)

    done = engine.docker("logs", container)

    assert done.stdout == "line 1\nline 3\n"
    assert re.fullmatch(r"orlop: \d+ bytes of this log are damaged and were left out\n", done.stderr)


def test_compressed_logs_read_as_others(engine):
    container = finished(
        engine,
        "seq 1 60000",
        "--log-driver",
        "local",
        "--log-opt",
        "max-size=64k",
        "--log-opt",
        "max-file=50",
    )
    wait_until(lambda: any(path.suffix == ".gz" for path in log_files(engine, container)))

    assert engine.docker("logs", container).stdout.split() == [*map(str, range(1, 60001))]
    assert engine.docker("logs", "--tail", "3", container).stdout.split() == ["59998", "59999", "60000"]


def test_driver_none_keeps_nothing(engine):
    container = finished(engine, "echo x", "--log-driver", "none")

    done = engine.docker("logs", container, check=False)

    assert done.returncode == 1
    assert "configured logging driver does not support reading" in done.stderr


def test_inspect_shows_the_driver_and_where_the_log_is(engine):
    container = finished(engine, "echo x", "--log-opt", "max-size=1m")
    shown = engine.docker("inspect", "-f", "{{.LogPath}} {{json .HostConfig.LogConfig}}", container).stdout

    assert shown.endswith(' {"Type":"json-file","Config":{"max-size":"1m"}}\n')
    assert os.path.isdir(shown.split()[0])


def test_docker_py_reads_streams_and_chooses(engine):
    client = engine.api()
    script = "echo one; sleep 0.2; echo two; echo bad >&2"
    container = client.containers.run("busybox", ["sh", "-c", script], detach=True)

    followed = list(container.logs(stream=True, follow=True, stderr=False))

    assert followed == [b"one\n", b"two\n"]
    assert container.logs(stdout=False) == b"bad\n"
    assert container.logs(stderr=False, tail=1) == b"two\n"
    stamped = container.logs(stderr=False, timestamps=True).splitlines()
    assert all(re.fullmatch(RFC3339 + r" \w+", line.decode()) for line in stamped)
    assert container.logs(since=int(time.time()) + 3600) == b""
    assert container.logs(until=int(time.time()) - 3600) == b""


def test_sending_goes_on_over_a_restart_of_the_engine(fresh_engine):
    server = socket.create_server(("127.0.0.1", 0))
    with server:
        server.settimeout(15)
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        container = start(
            fresh_engine,
            "while ! test -e /go; do sleep 0.05; done; echo after; sleep 600",
            *("--log-driver", "syslog", "--log-opt", f"syslog-address={address}"),
        )
        connection, _ = server.accept()
        with connection:
            connection.settimeout(15)
            fresh_engine.kill()
            fresh_engine.start()
            fresh_engine.docker("exec", container, "touch", "/go")

            assert connection.recv(4096).endswith(b": after\n")
    fresh_engine.docker("rm", "-f", container)
