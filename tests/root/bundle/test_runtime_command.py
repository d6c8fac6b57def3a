"""`orlop-runtime` as its callers use it: verbs, files, exit codes and streams, with a busybox bundle."""

import fcntl
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from orlop.bundle.knowledge import starting_config
from orlop.kernel.cgroup import Cgroup, detect
from support.images import busybox_path

pytestmark = pytest.mark.root

SOURCE = str(Path(__file__).parents[3] / "src")
COMMAND = [
    sys.executable,
    "-I",
    "-c",
    f"import sys; sys.path.insert(0, {SOURCE!r}); from orlop.oci_runtime import main; main()",
]
LOOP = "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done"


@pytest.fixture(scope="module")
def rootfs(tmp_path_factory):
    if os.geteuid() != 0 or shutil.which("busybox") is None:
        pytest.skip("needs root and busybox-static")
    root = tmp_path_factory.mktemp("bundle-rootfs")
    (root / "bin").mkdir()
    shutil.copy(busybox_path(), root / "bin/busybox")
    for applet in (
        "sh",
        "cat",
        "echo",
        "sleep",
        "id",
        "ps",
        "mount",
        "true",
        "tty",
        "env",
        "touch",
        "grep",
        "ls",
        "head",
    ):
        (root / "bin" / applet).symlink_to("busybox")
    root.chmod(0o755)
    return root


class Runtime:
    """The command with a bundle; `config` is edited in place before a container is made."""

    def __init__(self, directory, rootfs):
        self.bundle = directory / "bundle"
        self.bundle.mkdir()
        self.state = directory / "state"
        self.directory = directory
        self.config = starting_config()
        self.config["root"] = {"path": str(rootfs), "readonly": False}
        self.process["terminal"] = False
        self.names = []

    @property
    def process(self):
        return self.config["process"]

    @property
    def linux(self):
        return self.config["linux"]

    def name(self):
        self.names.append(f"t{uuid.uuid4().hex[:12]}")
        return self.names[-1]

    def write(self, *args):
        if args:
            self.process["args"] = list(args)
        (self.bundle / "config.json").write_text(json.dumps(self.config))

    def __call__(self, *words, **options):
        options = {"capture_output": True, "text": True, "timeout": 60} | options
        return subprocess.run([*COMMAND, "--root", str(self.state), *words], check=False, **options)

    def run(self, *args, **options):
        self.write(*args)
        return self("run", "-b", str(self.bundle), self.name(), **options)

    def create(self, *args, flags=()):
        """Create with files as streams, as a daemon has it: a pipe would stay open as long as the container."""
        self.write(*args)
        name = self.name()
        with open(self.directory / f"{name}.out", "wb") as output:
            done = self(
                "create", "-b", str(self.bundle), *flags, name,
                capture_output=False, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        assert done.returncode == 0, self.output(name)
        return name

    def output(self, name):
        return (self.directory / f"{name}.out").read_text()

    def status(self, name):
        return json.loads(self("state", name).stdout)["status"]

    def wait(self, condition):
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline, "does not happen"
            time.sleep(0.02)

    def loop(self):
        name = self.create("sh", "-c", LOOP)
        assert self("start", name).returncode == 0
        self.wait(lambda: "up" in self.output(name))
        return name


@pytest.fixture
def runtime(tmp_path, rootfs):
    made = Runtime(tmp_path, rootfs)
    yield made
    for name in made.names:
        made("delete", "--force", name)


def reap(pid):
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except ChildProcessError:
        return None


def test_run_passes_streams_and_exit_code(runtime):
    done = runtime.run("sh", "-c", "cat; echo oops >&2; exit 3", input="in\n")

    assert (done.returncode, done.stdout, done.stderr) == (3, "in\n", "oops\n")
    assert not list(runtime.state.iterdir())


def test_the_life_of_a_container(runtime):
    name = runtime.create("sh", "-c", LOOP, flags=["--pid-file", str(runtime.directory / "pid")])
    state = json.loads(runtime("state", name).stdout)
    pid = int((runtime.directory / "pid").read_text())

    assert (state["status"], state["pid"], state["bundle"]) == ("created", pid, str(runtime.bundle))
    assert runtime.output(name) == ""
    assert runtime("start", name).returncode == 0
    assert runtime.status(name) == "running"
    assert runtime("start", name).returncode == 1
    assert runtime("delete", name).returncode == 1
    runtime.wait(lambda: runtime.output(name) == "up\n")
    assert runtime("kill", name, "TERM").returncode == 0
    runtime.wait(lambda: runtime.status(name) == "stopped")
    assert runtime("kill", name).stderr == "container not running\n"
    assert runtime("delete", name).returncode == 0
    gone = runtime("state", name)
    assert (gone.returncode, gone.stderr) == (1, "container does not exist\n")


def test_the_first_process_is_left_to_the_callers_subreaper(runtime):
    script = (
        "import ctypes, json, os, subprocess, sys\n"
        "ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)\n"
        "command = json.loads(sys.argv[1])\n"
        "name = sys.argv[2]\n"
        "subprocess.run([*command, 'create', '-b', sys.argv[3], '--pid-file', sys.argv[4], name], check=True)\n"
        "pid = int(open(sys.argv[4]).read())\n"
        "subprocess.run([*command, 'start', name], check=True)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
    )
    runtime.write("sh", "-c", "exit 42")
    command = json.dumps([*COMMAND, "--root", str(runtime.state)])
    words = [command, runtime.name(), str(runtime.bundle), str(runtime.directory / "pid")]
    done = subprocess.run(
        [sys.executable, "-c", script, *words], capture_output=True, text=True, timeout=60, check=False
    )

    assert done.stdout == "42\n", done.stderr


def test_confinement_is_exactly_that_of_the_document(runtime):
    others = {key: ["CAP_KILL"] for key in ("effective", "permitted", "inheritable", "ambient")}
    runtime.process["capabilities"] = {"bounding": ["CAP_KILL", "CAP_CHOWN"]} | others
    runtime.process["user"] = {"uid": 5, "gid": 6, "additionalGids": [7], "umask": 0o077}
    runtime.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]
    runtime.process["oomScoreAdj"] = 500
    runtime.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["chmod", "fchmodat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}],
    }
    script = (
        "id; umask; ulimit -Sn; ulimit -Hn; cat /proc/self/oom_score_adj;"
        "grep -E 'Cap|NoNew|Seccomp:' /proc/self/status; chmod 0 /bin/sh"
    )
    (Path(runtime.config["root"]["path"]) / "bin/chmod").unlink(missing_ok=True)
    (Path(runtime.config["root"]["path"]) / "bin/chmod").symlink_to("busybox")
    done = runtime.run("sh", "-c", script)
    words = done.stdout.split()

    assert done.stdout.startswith("uid=5 gid=6 groups=6,7\n0077\n100\n200\n500\n")
    sets = dict(itertools.pairwise(words))
    assert int(sets["CapBnd:"], 16) == 1 << 5 | 1 << 0
    assert [int(sets[f"Cap{name}:"], 16) for name in ("Prm", "Eff", "Inh", "Amb")] == [1 << 5] * 4
    assert (sets["NoNewPrivs:"], sets["Seccomp:"]) == ("1", "2")
    assert "not supported" in done.stderr


def test_mounts_masks_and_names(runtime):
    (runtime.directory / "data").mkdir()
    (runtime.directory / "data/file").write_text("from the host\n")
    runtime.config["hostname"] = "vessel"
    runtime.config["mounts"] += [
        {"destination": "/data", "source": str(runtime.directory / "data"), "options": ["rbind", "ro"]},
        {"destination": "/new/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["size=64k", "mode=700"]},
    ]
    runtime.linux["maskedPaths"] = ["/proc/version"]
    runtime.linux["sysctl"] = {"kernel.msgmax": "8000", "net.ipv4.ip_forward": "1"}
    script = (
        "cat /data/file /proc/version /proc/sys/kernel/msgmax /proc/sys/net/ipv4/ip_forward;"
        "cat /proc/sys/kernel/hostname; touch /data/x; touch /new/tmp/x && echo made; ls -l /dev/null"
    )
    done = runtime.run("sh", "-c", script)

    assert done.stdout.startswith("from the host\n8000\n1\nvessel\nmade\ncrw-rw-rw-")
    assert "Read-only" in done.stderr


def test_a_link_of_the_image_leads_no_mount_out_of_it(runtime, tmp_path_factory):
    root = tmp_path_factory.mktemp("hostile")
    shutil.copytree(runtime.config["root"]["path"], root, symlinks=True, dirs_exist_ok=True)
    outside = tmp_path_factory.mktemp("outside")
    (root / "link").symlink_to(str(outside))
    shutil.rmtree(root / "sys", ignore_errors=True)
    (root / "sys").symlink_to("/proc")
    runtime.config["root"]["path"] = str(root)
    proc, dev = runtime.config["mounts"][:2]
    runtime.config["mounts"] = [proc, dev, {"destination": "/link/below", "type": "tmpfs", "source": "tmpfs"}]

    assert runtime.run("true").returncode == 0
    assert not list(outside.iterdir())
    runtime.config["mounts"] = [proc, dev, {"destination": "/sys", "type": "sysfs", "source": "sysfs"}]
    done = runtime.run("true")
    assert done.returncode == 1
    assert "must be mounted on ordinary directory" in done.stderr


def test_a_user_namespace_with_its_mappings(runtime):
    runtime.linux["namespaces"].append({"type": "user"})
    for key in ("uidMappings", "gidMappings"):
        runtime.linux[key] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    for parent in [runtime.directory, *runtime.directory.parents]:
        if parent.stat().st_uid == os.geteuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)
    name = runtime.create("sh", "-c", f"cat /proc/self/uid_map; id; echo x > /dev/null; {LOOP}")
    runtime("start", name)
    runtime.wait(lambda: "up" in runtime.output(name))
    pid = json.loads(runtime("state", name).stdout)["pid"]

    assert runtime.output(name).split() == ["0", "100000", "65536", "uid=0", "gid=0", "groups=0", "up"]
    assert os.stat(f"/proc/{pid}").st_uid == 100000
    assert runtime("exec", name, "cat", "/proc/self/uid_map").stdout.split() == ["0", "100000", "65536"]


def test_joining_the_namespaces_of_another_container(runtime):
    first = runtime.loop()
    pid = json.loads(runtime("state", first).stdout)["pid"]
    kinds = {"pid": "pid", "network": "net", "ipc": "ipc"}
    runtime.linux["namespaces"] = [
        {"type": "mount"}, {"type": "uts"}, *({"type": kind, "path": f"/proc/{pid}/ns/{name}"} for kind, name in kinds.items()),
    ]  # fmt: skip
    done = runtime.run("sh", "-c", "ps; ls -l /proc/self/ns/net")

    assert "while :" in done.stdout
    assert os.readlink(f"/proc/{pid}/ns/net") in done.stdout


def test_exec_in_every_way(runtime):
    name = runtime.loop()

    done = runtime(
        "exec", "-u", "5:6", "-e", "A=b", "--cwd", "/bin", name, "sh", "-c", "id; pwd; echo $A; exit 4"
    )
    assert (done.returncode, done.stdout) == (4, "uid=5 gid=6 groups=6\n/bin\nb\n")
    missing = runtime("exec", name, "nosuch")
    assert missing.returncode == 255
    assert missing.stderr.endswith('exec: "nosuch": executable file not found in $PATH\n')
    document = runtime.directory / "process.json"
    document.write_text(
        json.dumps(
            {"args": ["sh", "-c", "echo $$ > /dev/shm/pid; sleep 99"], "cwd": "/", "env": ["PATH=/bin"]}
        )
    )
    pid_file = runtime.directory / "exec.pid"
    quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL) | {"capture_output": False}
    assert (
        runtime(
            "exec", "-d", "--process", str(document), "--pid-file", str(pid_file), name, **quiet
        ).returncode
        == 0
    )
    pid = int(pid_file.read_text())
    assert os.readlink(f"/proc/{pid}/ns/pid") != os.readlink("/proc/self/ns/pid")
    assert pid in json.loads(runtime("ps", "-f", "json", name).stdout)
    assert str(pid) in runtime("ps", name).stdout


def test_pause_update_and_resume(runtime):
    runtime.linux["resources"]["memory"] = {"limit": 64 << 20}
    name = runtime.loop()

    assert runtime("pause", name).returncode == 0
    assert runtime.status(name) == "paused"
    assert runtime("exec", name, "true").returncode == 255
    assert runtime("resume", name).returncode == 0
    assert runtime("update", "--memory", "128m", "--pids-limit", "20", name).returncode == 0
    done = runtime("update", "-r", "-", name, input=json.dumps({"pids": {"limit": 30}}))
    assert (done.returncode, done.stderr) == (0, "")
    wrong = runtime("update", "-r", "-", name, input='{"pids": {"limit": "many"}}')
    assert wrong.stderr == "resources.pids.limit: is not an integer\n"


def test_a_terminal_is_sent_over_the_console_socket(runtime):
    path = runtime.directory / "console"
    runtime.process["terminal"] = True
    runtime.process["consoleSize"] = {"height": 30, "width": 90}
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        name = runtime.create("sh", "-c", "tty; read x; echo got $x", flags=["--console-socket", str(path)])
        connection, _ = listener.accept()
    with connection:
        _, (master,), _, _ = socket.recv_fds(connection, 4096, 1)
    runtime("start", name)
    seen = b""
    while b"\n" not in seen:
        seen += os.read(master, 4096)
    os.write(master, b"word\n")
    while b"got word" not in seen:
        seen += os.read(master, 4096)
    os.close(master)

    assert seen.startswith(b"/dev/pts/0")


def test_a_terminal_without_socket_is_refused_when_nobody_would_have_it(runtime):
    runtime.process["terminal"] = True
    runtime.write("true")
    done = runtime("create", "-b", str(runtime.bundle), runtime.name())

    assert done.returncode == 1
    assert "console socket" in done.stderr


def test_hooks_run_at_their_moments_with_the_state(runtime):
    log = runtime.directory / "hooks"
    shell = shutil.which("sh")

    def hook(kind):
        script = f"read -r state; echo {kind} $state >> {log}"
        return [
            {"path": shell, "args": ["sh", "-c", f"cat | {{ {script}; }}"], "env": ["PATH=/usr/bin:/bin"]}
        ]

    kinds = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
    runtime.config["hooks"] = {kind: hook(kind) for kind in kinds}
    runtime.config["hooks"]["startContainer"] = [
        {"path": "/bin/sh", "args": ["sh", "-c", "echo inside > /started"]}
    ]
    for key in ("prestart",):
        runtime.config["hooks"][key][0]["args"][2] = f"s=$(cat); echo {key} $s >> {log}"
    for key in kinds:
        runtime.config["hooks"][key][0]["args"][2] = f"s=$(cat); echo {key} $s >> {log}"
    done = runtime.run("cat", "/started")
    lines = [line.split(" ", 1) for line in log.read_text().splitlines()]

    assert done.stdout == "inside\n"
    assert [kind for kind, _ in lines] == list(kinds)
    assert [json.loads(state)["status"] for _, state in lines] == ["creating"] * 3 + ["running", "stopped"]


@pytest.mark.parametrize("kind", ["createRuntime", "createContainer", "startContainer", "poststart"])
def test_a_hook_that_fails_ends_the_container(runtime, kind):
    inside = kind == "startContainer"
    shell = "/bin/sh" if inside else shutil.which("sh")
    runtime.config["hooks"] = {kind: [{"path": shell, "args": ["sh", "-c", "echo because >&2; exit 1"]}]}
    done = runtime.run("sleep", "60")

    assert done.returncode == 1
    assert kind in done.stderr
    assert "because" in done.stderr
    assert not list(runtime.state.iterdir())


def test_the_hook_of_the_containers_tree_is_confined_as_its_program(runtime):
    runtime.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}],
    }
    (Path(runtime.config["root"]["path"]) / "bin/mkdir").unlink(missing_ok=True)
    (Path(runtime.config["root"]["path"]) / "bin/mkdir").symlink_to("busybox")
    hook = {"path": "/bin/mkdir", "args": ["mkdir", "/made"]}
    runtime.config["hooks"] = {"startContainer": [hook]}

    assert "not permitted" in runtime.run("true").stderr


def test_a_hook_has_its_time(runtime):
    runtime.config["hooks"] = {
        "createRuntime": [{"path": shutil.which("sleep"), "args": ["sleep", "60"], "timeout": 1}]
    }

    assert "timeout" in runtime.run("true").stderr


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["nosuch"], 'exec: "nosuch": executable file not found in $PATH'),
        (["/nosuch"], "no such file or directory"),
        (["/bin"], "is a directory"),
    ],
)
def test_programs_that_cannot_run_are_told_at_create_and_leave_nothing(runtime, args, text):
    log = runtime.directory / "log.json"
    runtime.write(*args)
    done = runtime(
        "--log", str(log), "--log-format", "json", "create", "-b", str(runtime.bundle), runtime.name()
    )
    entry = json.loads(log.read_text().splitlines()[-1])

    assert done.returncode == 1
    assert done.stderr.strip() == entry["msg"]
    assert entry["level"] == "error"
    assert entry["msg"].endswith(text)
    assert not list(runtime.state.iterdir())


def test_a_create_that_is_killed_takes_its_init_along(runtime):
    block = runtime.directory / "block"
    os.mkfifo(block)
    runtime.config["hooks"] = {"createRuntime": [{"path": shutil.which("cat"), "args": ["cat", str(block)]}]}
    runtime.write("sleep", "60")
    name = runtime.name()
    child = subprocess.Popen(
        [*COMMAND, "--root", str(runtime.state), "create", "-b", str(runtime.bundle), name],
        stderr=subprocess.DEVNULL,
    )
    with open(block, "wb"):  # the hook has opened it: init is there and waits
        record = json.loads((runtime.state / name / "state.json").read_text())
        assert runtime.status(name) == "creating"
        child.kill()
        child.wait()
    runtime.wait(lambda: not os.path.exists(f"/proc/{record['pid']}/root/bin"))

    assert runtime.status(name) == "stopped"
    assert runtime("delete", name).returncode == 0


def test_descriptors_are_kept_only_when_asked(runtime):
    read, write = os.pipe()
    high = fcntl.fcntl(write, fcntl.F_DUPFD, 50)
    try:
        done = runtime.run("sh", "-c", "ls /proc/self/fd", pass_fds=(high,))
        assert str(high) not in done.stdout.split()
        done = runtime("run", "-b", str(runtime.bundle), "--preserve-fds", "1", runtime.name())
        assert "descriptor 3 is not open" in done.stderr
    finally:
        for fd in (read, write, high):
            os.close(fd)


def test_the_interpreter_cannot_be_written_through_proc(runtime):
    name = runtime.create("true")
    pid = json.loads(runtime("state", name).stdout)["pid"]

    fd = os.open(f"/proc/{pid}/exe", os.O_RDONLY)
    assert os.fstatvfs(fd).f_flag & os.ST_RDONLY
    os.close(fd)


def test_container_listing_and_force(runtime):
    name = runtime.loop()

    assert runtime("list", "-q").stdout == f"{name}\n"
    (row,) = json.loads(runtime("list", "-f", "json").stdout)
    assert (row["id"], row["status"], row["owner"]) == (name, "running", "root")
    taken = runtime("create", "-b", str(runtime.bundle), name)
    assert "container with given ID already exists" in taken.stderr
    assert runtime("delete", "--force", name).returncode == 0
    assert runtime("delete", "--force", name).returncode == 0
    assert runtime("list", "-f", "json").stdout == "null"


@pytest.mark.parametrize(
    "words",
    [
        ["state", "../x"],
        ["state", ".."],
        ["create", "a/b"],
        ["nosuch"],
        ["--systemd-cgroup", "list"],
        ["state"],
        ["run", "--no-pivot", "x"],
    ],
)
def test_what_is_refused(runtime, words):
    runtime.write("true")
    done = runtime(*words, cwd=runtime.bundle)

    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_a_frozen_cgroup_of_the_caller_is_refused(runtime):
    group = Cgroup(f"orlop-test-{uuid.uuid4().hex[:12]}", detect())
    group.create()
    try:
        group.freeze()
        runtime.linux["cgroupsPath"] = f"/{group.path}/below"
        assert "unexpectedly frozen" in runtime.run("true").stderr
    finally:
        group.thaw()
        group.destroy()


def test_version_and_features(runtime):
    assert runtime("--version").stdout.startswith("orlop-runtime version ")
    assert json.loads(runtime("features").stdout)["ociVersionMax"] == "1.2.0"


def test_spec_writes_a_config_that_runs(runtime):
    assert runtime("spec", "-b", str(runtime.bundle)).returncode == 0
    config = json.loads((runtime.bundle / "config.json").read_text())
    runtime.config = config | {"root": runtime.config["root"]}
    runtime.process["terminal"] = False

    assert runtime.run("echo", "ready").stdout == "ready\n"
    assert runtime("spec", "-b", str(runtime.bundle)).returncode == 1


def test_kill_reaches_every_process_without_a_pid_namespace(runtime):
    runtime.linux["namespaces"] = [{"type": kind} for kind in ("mount", "network", "ipc", "uts")]
    name = runtime.create("sh", "-c", "sleep 99 & sleep 99 & echo up; wait")
    runtime("start", name)
    runtime.wait(lambda: "up" in runtime.output(name))
    pids = json.loads(runtime("ps", "-f", "json", name).stdout)

    assert len(pids) == 3
    assert runtime("kill", "--all", name, "KILL").returncode == 0
    runtime.wait(lambda: runtime.status(name) == "stopped")
    assert runtime("delete", name).returncode == 0
    assert not any(is_alive(pid) for pid in pids)


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[-1].split()[0] not in ("Z", "X")
    except OSError:
        return False


@pytest.mark.parametrize(("number", "code"), [("TERM", 7), ("KILL", 137)])
def test_run_ends_as_its_program_does(runtime, number, code):
    runtime.write("sh", "-c", LOOP)
    name = runtime.name()
    child = subprocess.Popen(
        [*COMMAND, "--root", str(runtime.state), "run", "-b", str(runtime.bundle), name],
        stdout=subprocess.PIPE,
    )
    assert child.stdout.read(3) == b"up\n"
    if number == "TERM":  # passed on
        child.send_signal(signal.SIGTERM)
    else:
        runtime("kill", name, number)

    assert child.wait(timeout=30) == code
    child.stdout.close()
