"""Containers under crun and runc: whatever docker's CLI does with them works as under the embedded runtime."""

import contextlib
import json
import os
import shutil
import signal
import sys
import time

import pytest

from support import orlopd
from support.images import busybox_archive
from support.terminal import Terminal

LOOP = "trap 'exit 9' TERM; i=0; while :; do i=$((i+1)); echo line $i; sleep 0.05; done"


@pytest.fixture(scope="module", params=["crun", "runc"])
def driven(request):
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    with orlopd.Orlopd("--default-runtime", request.param) as engine:
        engine.docker("load", input=busybox_archive("busybox:latest"))
        engine.runtime = request.param
        yield engine


@pytest.fixture(autouse=True)
def _tidy(request):
    yield
    if "driven" in request.fixturenames:
        request.getfixturevalue("driven").remove_containers()


def wait_until(condition, timeout_s=20):
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "does not happen"
        time.sleep(0.02)
    return value


def run(engine, *args, **options):
    return engine.docker("run", "--rm", *args, **options)


def state(engine, name, field="Status"):
    return engine.docker("inspect", "-f", f"{{{{.State.{field}}}}}", name).stdout.strip()


def test_output_input_and_exit_codes(driven):
    done = run(driven, "-i", "busybox", "sh", "-c", "cat; echo oops >&2; exit 3", input="in\n", check=False)
    assert (done.returncode, done.stdout) == (3, "in\n")
    assert done.stderr.endswith("oops\n")
    driven.docker("create", "--name", "named", "busybox", "true")
    assert driven.docker("inspect", "-f", "{{.HostConfig.Runtime}}", "named").stdout.strip() == driven.runtime


@pytest.mark.parametrize("command", ["nosuch", "/bin/../nosuch", "/etc"])
def test_programs_that_cannot_run(driven, command):
    done = run(driven, "busybox", command, check=False)
    # crun has no word for a directory that the client would understand
    assert done.returncode in ((126, 125) if command == "/etc" else (127,))
    assert "OCI runtime create failed" in done.stderr


def test_users_are_looked_up_in_the_image(driven):
    assert "unable to find user nosuch" in run(driven, "-u", "nosuch", "busybox", check=False).stderr
    driven.docker("run", "-d", "--name", "host", "busybox", "sleep", "60")
    done = driven.docker("exec", "-u", "nosuch", "host", "id", check=False)
    assert "unable to find user nosuch" in done.stdout + done.stderr
    assert driven.docker("exec", "-u", "user", "host", "id", "-u").stdout == "1000\n"


def test_confinement_is_the_embedded_runtimes(driven):
    words = "Cap|Seccomp:|NoNewPrivs|Groups"
    command = [
        "busybox",
        "sh",
        "-c",
        f"grep -E '{words}' /proc/self/status; ulimit -n; umask; id; pwd; env|sort",
    ]
    flags = ["--security-opt", "no-new-privileges", "--cap-drop", "NET_RAW", "--ulimit", "nofile=500:600"]
    flags += ["-e", "A=1", "-w", "/made/here", "--group-add", "7", "-h", "host"]
    for more in ([], ["-u", "1234:5"], ["--privileged"]):
        theirs = run(driven, *flags, *more, *command).stdout
        assert theirs == run(driven, *flags, *more, "--runtime", "orlop", *command).stdout


def test_files_mounts_and_devices(driven, tmp_path):
    (tmp_path / "file").write_text("from the host\n")
    flags = ["-v", f"{tmp_path}:/data:ro", "--tmpfs", "/scratch:size=1m,mode=1770", "--read-only"]
    flags += ["--shm-size", "3m", "--sysctl", "net.core.somaxconn=77", "--device", "/dev/null:/dev/nothing:r"]
    script = """
        cat /data/file; touch /data/x 2>&1; touch /x 2>&1; stat -c %a /scratch; echo ok > /scratch/f; cat /scratch/f
        df -k /dev/shm | tail -1 | awk '{print $2}'; cat /proc/sys/net/core/somaxconn; ls /dev /proc/acpi /proc/scsi | grep -v core
        cat /proc/kcore | wc -c; echo 1 > /proc/sysrq-trigger; cat /etc/hostname /etc/hosts; hostname
        ip addr show lo | grep -c LOOPBACK,UP; cat /proc/self/cgroup; cat < /dev/nothing; echo > /dev/nothing
    """
    mine = run(driven, *flags, "-h", "h", "busybox", "sh", "-c", script, check=False)
    ours = run(driven, *flags, "-h", "h", "--runtime", "orlop", "busybox", "sh", "-c", script, check=False)
    assert mine.stdout.splitlines()[0] == "from the host"
    assert mine.stdout == ours.stdout


def test_limits_are_in_the_cgroup_that_stats_and_top_read(driven):
    flags = ["-m", "64m", "--cpus", "0.5", "--pids-limit", "40", "--name", "limited"]
    driven.docker("run", "-d", *flags, "busybox", "sleep", "60")
    stats = driven.api().containers.get("limited").stats(stream=False)
    assert stats["memory_stats"]["limit"] == 64 << 20
    assert stats["pids_stats"] == {"current": 1, "limit": 40}
    assert "sleep 60" in driven.docker("top", "limited").stdout
    driven.docker("update", "--pids-limit", "50", "limited")
    assert driven.api().containers.get("limited").stats(stream=False)["pids_stats"]["limit"] == 50
    driven.docker("pause", "limited")
    assert state(driven, "limited") == "paused"
    driven.docker("unpause", "limited")
    assert driven.docker("exec", "limited", "echo", "awake").stdout == "awake\n"


def test_exec(driven):
    driven.docker("run", "-d", "--name", "host", "busybox", "sleep", "60")
    for _ in range(2):  # what a failed one leaves behind is no obstacle
        assert driven.docker("exec", "host", "nosuch", check=False).returncode == 127
    flags = ["-i", "-u", "3:4", "-e", "A=b", "-w", "/tmp"]
    done = driven.docker(
        "exec",
        *flags,
        "host",
        "sh",
        "-c",
        "cat; id -u; id -g; pwd; echo $A; exit 5",
        input="x\n",
        check=False,
    )
    assert (done.returncode, done.stdout) == (5, "x\n3\n4\n/tmp\nb\n")
    driven.docker("exec", "-d", "host", "sh", "-c", "echo made > /by-exec; sleep 60")
    wait_until(lambda: "A /by-exec" in driven.docker("diff", "host").stdout)
    assert driven.docker("cp", "host:/by-exec", "-").stdout.count("made") == 1
    started = time.monotonic()
    driven.docker("kill", "host")
    wait_until(lambda: state(driven, "host") == "exited")
    assert state(driven, "host", "ExitCode") == "137"
    assert time.monotonic() - started < 15


def resize_until(tty, shown):
    """The client notices changes only from some moment after the program runs."""
    for _ in range(30):
        tty.resize(50, 101)
        tty.resize(50, 100)
        with contextlib.suppress(AssertionError):
            tty.expect(shown, timeout_s=0.5)
            return
    raise AssertionError("the size does not arrive")


def test_terminals(driven):
    with Terminal(
        ["docker", "run", "--rm", "-it", "busybox", "sh", "-c", "tty; read word; echo got $word; exit 6"],
        driven.client_env(),
    ) as tty:
        tty.expect("/dev/pts/0")
        tty.type("hello\r")
        tty.expect("got hello")
        assert tty.wait() == 6
    driven.docker("run", "-dt", "--name", "host", "busybox", "sleep", "60")
    with Terminal(
        [
            "docker",
            "exec",
            "-it",
            "host",
            "sh",
            "-c",
            "stty size; until stty size | grep -q '50 100'; do sleep 0.05; done; echo resized",
        ],
        driven.client_env(),
    ) as tty:
        tty.expect("24 80")
        resize_until(tty, "resized")
        assert tty.wait() == 0


def test_init_stop_and_restart_policy(driven):
    driven.docker("run", "-d", "--init", "--name", "inited", "busybox", "sh", "-c", LOOP)
    wait_until(lambda: "line 2" in driven.docker("logs", "inited").stdout)
    assert "docker-init" in driven.docker("exec", "inited", "cat", "/proc/1/cmdline").stdout
    driven.docker("stop", "inited")
    assert state(driven, "inited", "ExitCode") in ("9", "143")
    driven.docker("start", "inited")
    driven.docker("restart", "-t", "1", "inited")
    assert state(driven, "inited") == "running"
    driven.docker(
        "run", "-d", "--restart", "on-failure:2", "--name", "again", "busybox", "sh", "-c", "echo go; exit 1"
    )
    wait_until(lambda: driven.docker("logs", "again").stdout == "go\n" * 3)


def test_shared_namespaces(driven):
    driven.docker(
        "run",
        "-d",
        "--name",
        "first",
        "--ipc",
        "shareable",
        "busybox",
        "sh",
        "-c",
        "echo x > /dev/shm/x; sleep 60",
    )
    flags = ["--network", "container:first", "--ipc", "container:first", "--pid", "container:first"]
    script = "cat /dev/shm/x; grep -c sleep /proc/1/cmdline /proc/*/cmdline >/dev/null && readlink /proc/self/ns/net"
    shown = run(driven, *flags, "busybox", "sh", "-c", script).stdout.split()
    assert shown == ["x", driven.docker("exec", "first", "readlink", "/proc/self/ns/net").stdout.strip()]
    shown = run(
        driven,
        "--network",
        "host",
        "--pid",
        "host",
        "--uts",
        "host",
        "busybox",
        "sh",
        "-c",
        "readlink /proc/self/ns/net; readlink /proc/self/ns/pid",
    )
    assert shown.stdout.split() == [os.readlink("/proc/self/ns/net"), os.readlink("/proc/self/ns/pid")]


def test_health_checks(driven):
    flags = ["--health-cmd", "test -e /good", "--health-interval", "100ms", "--health-retries", "1"]
    driven.docker("run", "-d", "--name", "sick", *flags, "busybox", "sleep", "60")
    wait_until(lambda: state(driven, "sick", "Health.Status") == "unhealthy")
    driven.docker("exec", "sick", "touch", "/good")
    wait_until(lambda: state(driven, "sick", "Health.Status") == "healthy")


def test_a_seccomp_profile_of_dockers_form(driven, tmp_path):
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}],
    }
    (tmp_path / "p.json").write_text(json.dumps(profile))
    flag = ["--security-opt", f"seccomp={tmp_path}/p.json"]
    assert "Permission denied" in run(driven, *flag, "busybox", "mkdir", "/x", check=False).stderr


def test_the_engine_is_killed_and_adopts(driven):
    driven.docker("run", "-d", "--name", "kept", "busybox", "sh", "-c", LOOP)
    wait_until(lambda: "line 3" in driven.docker("logs", "kept").stdout)
    pid = state(driven, "kept", "Pid")
    driven.kill()
    driven.start()
    assert state(driven, "kept", "Pid") == pid
    seen = len(driven.docker("logs", "kept").stdout.splitlines())
    wait_until(lambda: len(driven.docker("logs", "kept").stdout.splitlines()) > seen)
    assert driven.docker("exec", "kept", "echo", "still").stdout == "still\n"
    driven.docker("stop", "kept")
    assert state(driven, "kept", "ExitCode") == "9"


def test_a_killed_supervisor_takes_its_container_along(driven):
    driven.docker("run", "-d", "--name", "lost", "busybox", "sleep", "60")
    pid = int(state(driven, "lost", "Pid"))
    with open(f"/proc/{pid}/stat") as file:
        parent = int(file.read().rpartition(")")[2].split()[1])
    os.kill(parent, signal.SIGKILL)
    wait_until(lambda: state(driven, "lost") == "exited", timeout_s=10)
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"))
    assert state(driven, "lost", "ExitCode") == "137"


def test_runtimes_are_shown_and_unknown_ones_refused(driven):
    info = driven.api().info()
    assert info["DefaultRuntime"] == driven.runtime
    assert info["Runtimes"][driven.runtime] == {"path": shutil.which(driven.runtime)}
    done = run(driven, "--runtime", "nosuch", "busybox", check=False)
    assert "unknown or invalid runtime name: nosuch" in done.stderr
    assert run(driven, "--runtime", "orlop", "busybox", "echo", "embedded").stdout == "embedded\n"


def test_a_configured_runtime_with_arguments(tmp_path):
    real = shutil.which("runc") or shutil.which("crun")
    if real is None:
        pytest.skip("neither runc nor crun is installed")
    wrapper = tmp_path / "wrapper"
    wrapper.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\nshift\nexec {real} "$@"\n')
    wrapper.chmod(0o755)
    config = tmp_path / "daemon.json"
    mine = {"path": str(wrapper), "runtimeArgs": ["first"]}
    config.write_text(json.dumps({"runtimes": {"mine": mine, "broken": {"path": f"{tmp_path}/absent"}}}))
    with orlopd.Orlopd("--config-file", str(config)) as engine:
        engine.docker("load", input=busybox_archive("busybox:latest"))
        assert run(engine, "--runtime", "mine", "busybox", "echo", "hi").stdout == "hi\n"
        done = run(engine, "--runtime", "broken", "busybox", check=False)
        assert done.returncode != 0
        assert "absent cannot be executed" in done.stderr
    calls = (tmp_path / "calls").read_text().splitlines()
    assert all(line.startswith("first --root ") for line in calls)
    assert [word for line in calls for word in line.split() if word in ("create", "start", "delete")] == [
        "create",
        "start",
        "delete",
    ]


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ('case " $* " in *" create "*) exit 0;; esac', "did not say which process it made"),
        (
            'for word; do [ "$last" = --pid-file ] && echo 1 > "$word"; last=$word; done; exit 0',
            "is not one that it made",
        ),
        ('case " $* " in *" start "*) exit 3;; esac; exec {real} "$@"', "ended with exit code 3"),
    ],
)
def test_a_runtime_that_fails_or_lies(tmp_path, script, told):
    real = shutil.which("runc") or shutil.which("crun")
    if real is None:
        pytest.skip("neither runc nor crun is installed")
    wrapper = tmp_path / "wrapper"
    wrapper.write_text("#!/bin/sh\n" + script.replace("{real}", real) + "\n")
    wrapper.chmod(0o755)
    with orlopd.Orlopd("--add-runtime", f"bad={wrapper}") as engine:
        engine.docker("load", input=busybox_archive("busybox:latest"))
        done = run(engine, "--runtime", "bad", "busybox", "true", check=False)
        assert done.returncode == 125
        assert told in done.stderr
        assert run(engine, "busybox", "echo", "fine").stdout == "fine\n"


def test_a_runtime_that_confines_less_is_found_out(tmp_path):
    """What a runtime of this kernel's processes has done is read back from the kernel, as our own is."""
    real = shutil.which("crun")
    if real is None:
        pytest.skip("crun is not installed")
    wrapper = tmp_path / "crun"
    wrapper.write_text(
        f"#!{sys.executable}\n"
        "import json, os, sys\n"
        "if '--bundle' in sys.argv:\n"
        "    path = sys.argv[sys.argv.index('--bundle') + 1] + '/config.json'\n"
        "    config = json.load(open(path))\n"
        "    del config['linux']['seccomp']\n"
        "    json.dump(config, open(path, 'w'))\n"
        f"os.execv({real!r}, [{real!r}, *sys.argv[1:]])\n"
    )
    wrapper.chmod(0o755)
    with orlopd.Orlopd("--add-runtime", f"loose={wrapper}") as engine:
        engine.docker("load", input=busybox_archive("busybox:latest"))
        refused = run(engine, "--runtime", "loose", "busybox", "sleep", "100", check=False)
        assert refused.returncode == 125
        assert "no seccomp filter is in force; it was killed" in refused.stderr
        engine.remove_containers()
