"""podman, unmodified, with `orlop-runtime` as its OCI runtime."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.images import busybox_archive
from support.terminal import Terminal

pytestmark = pytest.mark.system

SOURCE = Path(__file__).parents[2] / "src"
COMMAND = f"""#!{sys.executable} -I
import sys
sys.path.insert(0, {str(SOURCE)!r})
from orlop.oci_runtime import main
main()
"""
# This machine may have less than podman asks for by default.
CONFIGURATION = """[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
"""


class Podman:
    """podman with storage of its own and our runtime."""

    def __init__(self, directory):
        runtime = directory / "orlop-runtime"
        runtime.write_text(COMMAND)
        runtime.chmod(0o755)
        (directory / "containers.conf").write_text(CONFIGURATION)
        self.env = os.environ | {"CONTAINERS_CONF": str(directory / "containers.conf"), "XDG_RUNTIME_DIR": ""}
        self.command = [
            "podman", "--root", str(directory / "root"), "--runroot", str(directory / "run"),
            "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "none",
            "--tmpdir", str(directory / "tmp"), "--runtime", str(runtime),
        ]  # fmt: skip

    def __call__(self, *words, check=True, **options):
        options = {"capture_output": True, "text": "input" not in options, "timeout": 90} | options
        done = subprocess.run([*self.command, *words], env=self.env, check=False, **options)
        assert not check or done.returncode == 0, done.stderr
        return done


@pytest.fixture(scope="module")
def podman(tmp_path_factory):
    if shutil.which("podman") is None:
        pytest.skip("podman is not installed")
    made = Podman(tmp_path_factory.mktemp("podman"))
    made("load", input=busybox_archive("busybox:latest"))
    yield made
    made("rm", "-fa", "-t", "0", check=False)
    made("rmi", "-fa", check=False)


def run(podman, *words, **options):
    return podman("run", "--rm", "--network=none", *words, **options)


def test_output_and_exit_code(podman):
    done = run(podman, "busybox", "sh", "-c", "echo out; echo err >&2; exit 3", check=False)

    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")


def test_errors_have_the_codes_that_podman_reads_from_the_runtimes_words(podman):
    assert run(podman, "busybox", "nosuch", check=False).returncode == 127
    assert run(podman, "busybox", "/etc", check=False).returncode == 126


def test_a_daemon_is_entered_paused_and_stopped(podman):
    script = "trap 'exit 4' TERM; echo up; while :; do sleep 0.05; done"
    podman("run", "-d", "--name", "daemon", "--network=none", "busybox", "sh", "-c", script)
    done = podman("exec", "daemon", "sh", "-c", "cat /proc/1/comm; exit 5", check=False)
    assert (done.returncode, done.stdout) == (5, "sh\n")
    podman("pause", "daemon")
    assert podman("inspect", "-f", "{{.State.Status}}", "daemon").stdout == "paused\n"
    podman("unpause", "daemon")
    deadline = time.monotonic() + 20
    while podman("logs", "daemon").stdout != "up\n":
        assert time.monotonic() < deadline
    podman("stop", "daemon")

    assert podman("inspect", "-f", "{{.State.ExitCode}} {{.State.Status}}", "daemon").stdout == "4 exited\n"
    podman("rm", "daemon")


def test_a_terminal(podman):
    with Terminal(
        [*podman.command, "run", "-it", "--rm", "--network=none", "busybox", "sh"], podman.env
    ) as terminal:
        terminal.expect("#")
        terminal.type("tty; echo $((40 + 2))\n")
        terminal.expect("/dev/pts/0")
        terminal.expect("42")
        terminal.type("exit 6\n")
        assert terminal.wait() == 6


def test_what_users_ask_for(podman, tmp_path):
    tmp_path.chmod(0o755)
    (tmp_path / "file").write_text("kept\n")
    done = run(
        podman, "-v", f"{tmp_path}:/data:ro", "--tmpfs", "/scratch", "--read-only", "--user", "7:8", "--hostname", "x1",
        "--cap-drop", "all", "--memory", "64m", "--pids-limit", "50", "--sysctl", "kernel.msgmax=8000", "busybox",
        "sh", "-c", "cat /data/file; id -u; id -g; hostname; cat /proc/sys/kernel/msgmax; grep CapEff /proc/self/status; touch /x",
        check=False,
    )  # fmt: skip

    assert done.stdout == "kept\n7\n8\nx1\n8000\nCapEff:\t0000000000000000\n"
    assert "Read-only" in done.stderr


def test_user_namespaces_and_privileged(podman):
    maps = run(
        podman,
        "--uidmap",
        "0:200000:1000",
        "--gidmap",
        "0:200000:1000",
        "busybox",
        "cat",
        "/proc/self/uid_map",
    )

    assert maps.stdout.split() == ["0", "200000", "1000"]
    assert run(podman, "--privileged", "busybox", "sh", "-c", "ls /dev | grep -c .").stdout.strip().isdigit()


def test_containers_of_a_pod_share_namespaces(podman):
    podman("run", "-d", "--name", "first", "--network=none", "--hostname", "shared", "busybox", "sleep", "60")
    done = podman("run", "--rm", "--network", "container:first", "--pid", "container:first", "busybox", "ps")

    assert "sleep 60" in done.stdout
    podman("rm", "-f", "-t", "0", "first")
