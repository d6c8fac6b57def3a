"""The engine dies and comes back; its containers do not notice."""

import re
import time

import pytest

from support import orlopd
from support.images import busybox_archive
from support.terminal import Terminal

COUNT = "i=0; while [ $i -lt {last} ]; do i=$((i+1)); echo line $i; [ $((i % 20)) = 0 ] && sleep 0.05; done; exit {code}"


def wait_until(condition, timeout_s=20):
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "does not happen"
        time.sleep(0.02)
    return value


def numbers(text):
    return [int(number) for number in re.findall(r"^line (\d+)$", text, re.MULTILINE)]


def state(engine, name, field="Status"):
    return engine.docker("inspect", "-f", f"{{{{.State.{field}}}}}", name).stdout.strip()


def test_a_killed_engine_loses_no_line_and_no_exit_code(fresh_engine):
    for number in range(3):
        script = COUNT.format(last=2000, code=40 + number)
        fresh_engine.docker("run", "-d", "--name", f"w{number}", "busybox", "sh", "-c", script)

    for _ in range(3):
        seen = len(numbers(fresh_engine.docker("logs", "w0").stdout))
        fresh_engine.kill()
        fresh_engine.start()
        wait_until(lambda seen=seen: len(numbers(fresh_engine.docker("logs", "w0").stdout)) > seen)

    codes = fresh_engine.docker("wait", "w0", "w1", "w2").stdout.split()
    assert codes == ["40", "41", "42"]
    for number in range(3):
        assert numbers(fresh_engine.docker("logs", f"w{number}").stdout) == list(range(1, 2001))


def test_an_end_while_no_engine_runs_is_known_afterwards(fresh_engine):
    fresh_engine.docker("run", "-d", "--name", "ends", "busybox", "sh", "-c", "sleep 0.3; echo last; exit 33")
    started = state(fresh_engine, "ends", "StartedAt")
    fresh_engine.kill()
    time.sleep(0.8)

    fresh_engine.start()

    assert state(fresh_engine, "ends") == "exited"
    assert state(fresh_engine, "ends", "ExitCode") == "33"
    assert state(fresh_engine, "ends", "StartedAt") == started
    assert fresh_engine.docker("logs", "ends").stdout == "last\n"


def test_exec_attach_stop_and_signals_work_after_a_restart(fresh_engine):
    script = "trap 'echo bye; exit 7' TERM; echo ready; while read x; do echo got $x; done"
    fresh_engine.docker("run", "-di", "--name", "talks", "busybox", "sh", "-c", script)
    pid = state(fresh_engine, "talks", "Pid")
    fresh_engine.kill()
    fresh_engine.start()

    assert state(fresh_engine, "talks", "Pid") == pid
    assert fresh_engine.docker("exec", "talks", "sh", "-c", "echo in; exit 0").stdout == "in\n"
    assert fresh_engine.docker("exec", "talks", "sh", "-c", "exit 4", check=False).returncode == 4
    with Terminal(["docker", "attach", "--sig-proxy=false", "talks"], fresh_engine.client_env()) as terminal:
        terminal.type("word\n")
        terminal.expect("got word")
    fresh_engine.docker("stop", "talks")
    assert state(fresh_engine, "talks", "ExitCode") == "7"
    assert fresh_engine.docker("logs", "talks").stdout == "ready\ngot word\nbye\n"


def test_a_terminal_is_attached_again_after_a_restart(fresh_engine):
    fresh_engine.docker("run", "-dit", "--name", "shell", "busybox", "sh")
    fresh_engine.kill()
    fresh_engine.start()

    with Terminal(["docker", "attach", "shell"], fresh_engine.client_env(), rows=31, columns=77) as terminal:
        terminal.type("\n")
        terminal.expect("/ # ")
        terminal.type("stty size; exit 9\n")
        terminal.expect("31 77\r\n")
        code = terminal.wait()

    assert code == 9
    assert state(fresh_engine, "shell", "ExitCode") == "9"


def test_paused_created_and_removed_containers_are_as_they_were(fresh_engine):
    fresh_engine.docker("create", "--name", "made", "busybox", "echo", "later")
    fresh_engine.docker("run", "-d", "--name", "held", "busybox", "sleep", "60")
    fresh_engine.docker("pause", "held")
    fresh_engine.docker("run", "-d", "--rm", "--name", "passing", "busybox", "sleep", "0.3")
    fresh_engine.kill()
    time.sleep(0.6)

    fresh_engine.start()

    wait_until(lambda: "passing" not in fresh_engine.docker("ps", "-a", "--format", "{{.Names}}").stdout)
    assert state(fresh_engine, "made") == "created"
    assert state(fresh_engine, "held") == "paused"
    fresh_engine.docker("unpause", "held")
    fresh_engine.docker("kill", "held")
    assert fresh_engine.docker("start", "-a", "made").stdout == "later\n"


def test_restart_policies_go_on_after_a_kill(fresh_engine):
    fresh_engine.docker("run", "-d", "--restart", "always", "--name", "again", "busybox", "sleep", "60")
    before = state(fresh_engine, "again", "Pid")
    fresh_engine.docker("exec", "again", "true")
    fresh_engine.kill()
    fresh_engine.start()

    assert state(fresh_engine, "again", "Pid") == before
    fresh_engine.docker("exec", "again", "kill", "-9", "-1", check=False)
    import os

    os.kill(int(before), 9)
    wait_until(
        lambda: state(fresh_engine, "again") == "running" and state(fresh_engine, "again", "Pid") != before
    )


def test_images_and_builds_survive_a_kill(fresh_engine, tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN echo kept > /kept\nCMD cat /kept\n")
    fresh_engine.docker("build", "-t", "kept", tmp_path)
    fresh_engine.kill()
    fresh_engine.start()

    again = fresh_engine.docker("build", "-t", "kept", tmp_path).stdout

    assert again.count("Using cache") == 2
    assert fresh_engine.docker("run", "--rm", "kept").stdout == "kept\n"


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_restart_answers_within_a_second(fresh_engine, how):
    for number in range(5):
        fresh_engine.docker("run", "-d", "--name", f"c{number}", "busybox", "sleep", "60")
    getattr(fresh_engine, how)()

    began = time.monotonic()
    fresh_engine.start()

    assert time.monotonic() - began < 10  # the budget is a second; here only against blunders
    assert fresh_engine.docker("ps", "-q").stdout.count("\n") == 5


def test_two_engines_side_by_side(engine, fresh_engine):
    for running, word in ((engine, "one"), (fresh_engine, "two")):
        running.docker("run", "-d", "--name", "same", "busybox", "sh", "-c", f"echo {word}; sleep 60")

    assert engine.docker("logs", "same").stdout == "one\n"
    assert fresh_engine.docker("logs", "same").stdout == "two\n"
    fresh_engine.docker("rm", "-f", "same")
    assert engine.docker("ps", "--format", "{{.Names}}").stdout == "same\n"


def test_a_second_engine_on_the_same_root_is_refused(engine):
    import subprocess

    done = subprocess.run(
        engine.command(), env=engine.client_env(), capture_output=True, text=True, timeout=20, check=False
    )

    assert done.returncode == 1
    assert f"(pid {engine.pid})" in done.stderr
    assert engine.docker("version").returncode == 0


def test_a_socket_that_was_left_is_taken_over():
    with orlopd.Orlopd() as running:
        running.kill()
        assert running.socket.exists()

        running.start()

        running.docker("load", input=busybox_archive("busybox:latest"))
        assert running.docker("run", "--rm", "busybox", "echo", "hi").stdout == "hi\n"
