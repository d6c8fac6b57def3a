"""Races at the start of containers and execs, and images that ship what the start relies on."""

import hashlib
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.door import Door
from support.hostile import DIR, FILE, LINK, Exchange, for_a_while, load, pid_of

pytestmark = pytest.mark.system
SRC = Path(__file__).parents[2] / "src"
HOST_SETTINGS = tuple(
    Path("/proc/sys", name)
    for name in "kernel/core_pattern kernel/hostname kernel/sysrq kernel/modprobe vm/overcommit_memory".split()
)
COUNT = "cat /proc/kcore /proc/keys /proc/timer_list /proc/interrupts 2>/dev/null | wc -c"  # masked: 0 bytes
SPY = r"""
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
static dev_t root_dev;
static void look(int pid) {
    char path[300], link[300]; int fd; struct stat st; ssize_t n; DIR *dir; struct dirent *e;
    snprintf(path, sizeof path, "/proc/%d/exe", pid);
    n = readlink(path, link, sizeof link - 1);
    int ours = n > 0 && !strncmp(link, "/bin/busybox", 12 < n ? 12 : n);
    if (n > 0 && !ours && strncmp(link, "/spy", 4)) {
        if ((fd = open(path, O_RDONLY)) >= 0) { printf("exe %.*s\n", (int)n, link); close(fd); }
        if ((fd = open(path, O_WRONLY)) >= 0) { printf("exe-writable %.*s\n", (int)n, link); close(fd); }
    }
    snprintf(path, sizeof path, "/proc/%d/root", pid);
    if (stat(path, &st) == 0 && st.st_dev != root_dev) printf("root of another device\n");
    snprintf(path, sizeof path, "/proc/%d/cwd", pid);
    if (stat(path, &st) == 0 && st.st_dev != root_dev) printf("directory of another device\n");
    snprintf(path, sizeof path, "/proc/%d/fd", pid);
    if ((dir = opendir(path))) {
        while ((e = readdir(dir))) {
            if (e->d_name[0] == '.') continue;
            snprintf(path, sizeof path, "/proc/%d/fd/%s", pid, e->d_name);
            if (stat(path, &st) == 0 && S_ISDIR(st.st_mode) && st.st_dev != root_dev) printf("open directory of another device\n");
        }
        closedir(dir);
    }
    if (!ours && pid != 1 && ptrace(PTRACE_SEIZE, pid, 0, 0) == 0) {
        int status;
        snprintf(path, sizeof path, "/proc/%d/exe", pid);
        n = readlink(path, link, sizeof link - 1);
        if (n > 0 && strncmp(link, "/bin/busybox", 12)) printf("traced %.*s\n", (int)n, link);
        ptrace(PTRACE_INTERRUPT, pid, 0, 0); waitpid(pid, &status, __WALL); ptrace(PTRACE_DETACH, pid, 0, 0);
    }
}
int main(int argc, char **argv) {
    struct stat st; time_t end = time(0) + atoi(argv[1]); int me = getpid(), seen = 0, last = 0;
    stat("/", &st); root_dev = st.st_dev; setvbuf(stdout, 0, _IOLBF, 0);
    while (time(0) <= end) {
        DIR *dir = opendir("/proc"); struct dirent *e;
        while ((e = readdir(dir))) {
            int pid = atoi(e->d_name);
            if (pid <= 1 || pid == me) continue;
            if (pid > last) { last = pid; seen++; }
            look(pid);
        }
        closedir(dir);
    }
    printf("saw %d\n", seen);
    return 0;
}
"""


@pytest.fixture
def host_settings():
    """Settings of the host that an escape through /proc would change."""

    def read():
        return {path: path.read_bytes() for path in HOST_SETTINGS if path.exists()}

    before = read()
    yield
    assert read() == before


@pytest.fixture(scope="module")
def runtime_files():
    """Everything that runs with the host's rights at a start: interpreter, its libraries, our code."""
    binary = Path(os.path.realpath(sys.executable))
    linked = subprocess.run(["ldd", binary], capture_output=True, text=True, check=False).stdout.split()
    files = [binary, *(Path(word) for word in linked if word.startswith("/")), *sorted(SRC.rglob("*.py"))]
    before = digests(files)
    yield
    assert digests(files) == before


def digests(files):
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.exists()}


@pytest.fixture(scope="module")
def spy(tmp_path_factory):
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    place = tmp_path_factory.mktemp("spy")
    (place / "spy.c").write_text(SPY)
    subprocess.run(["gcc", "-static", "-O1", "-w", "-o", place / "spy", place / "spy.c"], check=True)
    return (place / "spy").read_bytes()


def test_a_process_that_enters_is_watched_from_inside(engine, door, started, spy, runtime_files):
    """CVE-2016-9962, CVE-2019-5736, CVE-2024-21626: while execs enter, a program inside opens, reads and traces
    every new process."""
    load(engine, "spy:1", ("spy", FILE, spy))
    name = started("spy:1")
    with ThreadPoolExecutor(1) as pool, Door(str(engine.socket)) as other:
        watching = pool.submit(other.execute, name, "/spy", "2")
        # a long environment makes the last moment before the program long
        long = [f"V{number}={'x' * 100_000}" for number in range(3)]
        codes = {door.execute(name, "true", Env=long).code for _ in for_a_while(1.6)}
        told = watching.result().output

    assert codes == {0}
    assert int(told.split()[-1]) > 1, told  # it did see them come
    assert told.startswith("saw "), told


def test_programs_that_are_the_engine_s_own(engine, door, started, runtime_files):
    """CVE-2019-5736: an entrypoint, a shebang and a link that mean the program that starts the container."""
    load(
        engine, "self:1", ("run", FILE, b"#!/proc/self/exe\n"), ("link", LINK, "/proc/self/exe"),
        ("one", LINK, "/proc/1/exe"), ("three", FILE, b"#!/proc/self/fd/3\n"),
    )  # fmt: skip
    name = started("self:1")
    for program in ("/proc/self/exe", "/run", "/link", "/three", "/proc/self/fd/3", "/proc/thread-self/exe"):
        done, inside = (
            door.run("self:1", program, "-c", "print(41+1)"),
            door.execute(name, program, "-c", "print(41+1)"),
        )
        assert "42" not in done.output + inside.output
        assert done.code != 0


def test_no_directory_outside_and_no_descriptor(engine, door, started):
    """CVE-2024-21626: a working directory of /proc/self/fd/N, by image, by run and by exec."""
    name = started()
    load(engine, "cwd:1", WorkingDir="/proc/self/fd/7")
    show = ("sh", "-c", "ls /proc/self/fd; ls -d ../../../../../../tmp/orlop-test-*; pwd -P")

    for number in range(3, 24):
        done = door.execute(name, *show, WorkingDir=f"/proc/self/fd/{number}")
        assert "orlop-test" not in done.output.replace("ls: ../../../../../../tmp/orlop-test-*: No such", "")
    for number in (3, 5, 7, 8, 9, 11):
        assert door.run("busybox", *show, WorkingDir=f"/proc/self/fd/{number}").code != 0
    assert door.run("cwd:1", *show).code != 0
    plain = door.execute(name, "ls", "/proc/self/fd")
    assert plain.output.split() == ["0", "1", "2", "3"]  # 3: ls reads the directory


def test_links_for_system_directories_and_nodes(engine, door, canary, host_settings):
    """CVE-2026-41579, CVE-2026-47766, CVE-2015-3627, CVE-2025-31133, CVE-2025-52565, CVE-2025-24965: /dev, /proc,
    /sys and what lies in them are links to the host or to settings of the kernel."""
    core = "/proc/sys/kernel/core_pattern"
    for names, target in (
        (("dev",), canary), (("proc",), canary), (("sys",), canary), (("etc",), canary), (("dev", "proc", "sys"), "/"),
        (("dev/null", "dev/console", "dev/pts", "dev/ptmx", "dev/shm", "dev/mqueue"), canary),
        (("dev/null", "dev/console", "dev/pts", "dev/tty", "dev/fd", "dev/stdout"), core),
        (("proc/sys", "proc/self", "sys/fs", "sys/fs/cgroup"), canary),
        (("dev",), "/proc"), (("dev",), "sys"), (("sys",), "proc"), (("proc",), "."),
    ):  # fmt: skip
        load(engine, "evil:1", *((name, LINK, str(target)) for name in names))
        for tty in (True, False):
            script = f"echo evil > /dev/null; {COUNT}; stat -c %t:%T /dev/null"
            done = door.run("evil:1", "sh", "-c", script, Tty=tty)
            if not done.error or {"dev", "proc", "sys"} & set(
                names
            ):  # those are ours, whatever the image has
                assert "0\n1:3" in done.output


def test_a_volume_over_dev_that_another_container_fills_with_links(door, started, canary, host_settings):
    """CVE-2025-31133, CVE-2025-52565: /dev is a volume, whose null, console and pts are exchanged for links while
    containers start with it."""
    name = started(host={"Binds": ["devices:/work"]})
    script = (
        "mkdir /work/pts /work/links /work/files; for n in null console ptmx shm; do touch /work/files/$n; done;"
        f"ln -s /proc/sys/kernel/core_pattern /work/links/null; ln -s {canary}/file /work/links/console;"
        f"ln -s {canary} /work/pts-link; ln -s files /work/now; ln -s links /work/then;"
        "for n in null console ptmx shm; do ln -s now/$n /work/$n; done"
    )
    assert door.execute(name, "sh", "-c", script).code == 0
    root = f"/proc/{pid_of(door, name)}/root"
    seen = set()

    with Exchange(root, "work/now", "work/then"), Exchange(root, "work/pts", "work/pts-link"):
        for turn in for_a_while():
            done = door.run(
                "busybox", "sh", "-c", f"echo x > /dev/null; {COUNT}",
                host={"Binds": ["devices:/dev"]}, Tty=bool(turn % 2),
            )  # fmt: skip
            seen.add(done.error or done.output.strip()[-1:])
    door.ask("DELETE", f"/containers/{name}", force=1)
    door.ask("DELETE", "/volumes/devices")

    assert all(text == "0" or len(text) > 1 for text in seen), seen


def test_containers_that_share_a_volume_race_with_each_other(engine, door, started, canary, host_settings):
    """CVE-2021-30465, CVE-2025-52881, CVE-2023-28642: parallel starts with mounts below a shared volume, in which a
    directory and a link to /proc or to the host change places."""
    name = started(host={"Binds": ["shared:/work"]})
    script = (
        f"mkdir -p /work/dir/in; ln -s /proc /work/link; mkdir -p /work/two/in; ln -s {canary} /work/three"
    )
    assert door.execute(name, "sh", "-c", script).code == 0
    root = f"/proc/{pid_of(door, name)}/root"
    binds = ["shared:/work", "inner:/work/dir/in", "inner:/work/two/in", "inner:/work/dir/self/attr"]
    shown, stop = [], threading.Event()

    def starts():
        words = ("sh", "-c", f"cat /proc/self/mountinfo; {COUNT}")
        with Door(str(engine.socket)) as way:
            while not stop.is_set():
                shown.append(way.run("busybox", *words, host={"Binds": binds}, Tty=False))

    exchanges = Exchange(root, "work/dir", "work/link"), Exchange(root, "work/two", "work/three")
    with exchanges[0], exchanges[1], ThreadPoolExecutor(2) as pool:
        running = [pool.submit(starts) for _ in range(2)]
        for _ in for_a_while(2):
            stop.wait(0.05)
        stop.set()
        [item.result() for item in running]
    door.ask("DELETE", f"/containers/{name}", force=1)
    for volume in ("shared", "inner"):
        door.ask("DELETE", f"/volumes/{volume}")

    assert any(not item.error for item in shown)
    for item in shown:
        inside_proc = [
            line
            for line in item.output.splitlines()
            if "/volumes/" in line and line.split()[4].startswith("/proc")
        ]
        assert inside_proc == []
        assert item.error or item.output.endswith("\n0\n")


@pytest.mark.parametrize("place", ["/proc", "/proc/self", "/proc/self/attr", "/proc/sys", "/proc/1", "/x"])
def test_a_volume_over_proc(engine, door, tmp_path, place):
    """CVE-2019-16884, CVE-2019-18837, CVE-2019-19921, CVE-2023-27561: an image or a caller mounts over the files
    through which a container is labelled."""
    fakes = [(f"proc/self/attr/{name}", FILE, b"") for name in ("exec", "fscreate", "apparmor")]
    load(engine, "evil:1", ("proc/self/attr", DIR, ""), *fakes, ("x", LINK, "/proc"), Volumes={place: {}})

    by_image = door.run("evil:1", "cat", "/proc/self/mounts")
    by_caller = door.run(
        "busybox", "true", host={"Tmpfs": {place: ""}} if place != "/x" else {"Binds": [f"{tmp_path}:/proc"]}
    )

    assert "inside /proc" in by_image.error
    assert "inside /proc" in by_caller.error


def test_long_words_reach_init_whole(door):
    """CVE-2021-43784: lengths that overflow on their way to init become options that nobody asked for."""
    for length in (65535, 65536, 70000):
        env = "A=" + "x" * length
        done = door.run("busybox", "sh", "-c", "echo ${#A}; id -u", Env=[env], User="1000:1000")
        assert done.output.split() == [str(length), "1000"]
    many = {f"/m{number}": "" for number in range(300)} | {
        "/" + "p" * 250 + f"/{number}": "" for number in range(20)
    }
    done = door.run(
        "busybox",
        "sh",
        "-c",
        "grep -c tmpfs /proc/self/mounts; grep Cap /proc/self/status",
        host={"Tmpfs": many},
    )
    assert int(done.output.split()[0]) >= 320
    assert "CapEff:\t00000000a80425fb" in done.output


def test_the_same_walls_in_a_user_namespace(engine, door, canary, host_settings):
    """CVE-2024-21626, CVE-2025-31133, CVE-2022-0185: user namespaces do not open a way that is closed without."""
    core = "/proc/sys/kernel/core_pattern"
    for name, target in (
        ("dev", canary),
        ("dev/null", core),
        ("proc", canary),
        ("etc/hosts", f"{canary}/file"),
        ("x", canary),
    ):
        load(engine, "evil:1", (name, LINK, str(target)), Volumes={"/x": {}})
        host = {"UsernsMode": "private", "SecurityOpt": ["userns=auto"]}
        done = door.run(
            "evil:1",
            "sh",
            "-c",
            "echo x > /etc/hosts; echo x > /dev/null; cat /proc/kcore | wc -c",
            host=host,
        )
        assert done.error or done.output.strip().endswith("0")


def test_a_volume_race_in_a_user_namespace(door, started, canary, host_settings):
    """CVE-2021-30465, CVE-2025-52881: likewise while names change places."""
    host = {"SecurityOpt": ["userns=auto"]}
    name = started(host={"Binds": ["shared:/work"]})
    assert door.execute(name, "sh", "-c", f"mkdir -p /work/dir/in; ln -s {canary} /work/link").code == 0
    root, ends = f"/proc/{pid_of(door, name)}/root", []

    with Exchange(root, "work/dir", "work/link"):
        for _ in for_a_while():
            binds = ["shared:/work", "inner:/work/dir/in", "inner:/work/dir/new"]
            ends.append(door.run("busybox", "true", host=host | {"Binds": binds}))
    door.ask("DELETE", f"/containers/{name}", force=1)
    for volume in ("shared", "inner"):
        door.ask("DELETE", f"/volumes/{volume}")

    assert any(not item.error for item in ends), ends[-1]
