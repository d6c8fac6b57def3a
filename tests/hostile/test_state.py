"""What other users of the host find of the engine: nothing to read, to execute, to write or to talk to."""

import os
import socket
import stat

import pytest

from support.hostile import DIR, FILE, as_user, load

pytestmark = pytest.mark.system
ALLOWED_TO_PASS = 0o711


def reachable(*roots):
    """Everything below the roots that this process can list, read, write, execute or connect to."""
    found = []
    pending = list(roots)
    while pending:
        path = pending.pop()
        try:
            status = os.lstat(path)
        except OSError:
            continue
        if stat.S_ISDIR(status.st_mode):
            if os.access(path, os.W_OK):
                found.append(f"writable {path}")
            try:
                names = os.listdir(path)
            except OSError:
                continue
            found.append(f"listed {path}")
            pending += [os.path.join(path, name) for name in names]
        elif stat.S_ISSOCK(status.st_mode):
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
                try:
                    sock.connect(path)
                except OSError as error:
                    if error.errno in (13, 2):
                        continue
                found.append(f"socket {path}")
        elif not stat.S_ISLNK(status.st_mode):
            found += [f"{word} {path}" for word, mode in WORDS.items() if os.access(path, mode)]
    return found


WORDS = {"readable": os.R_OK, "writable": os.W_OK, "executable": os.X_OK}


def every_path(root):
    """All paths below root: what a user who guesses every name would try."""
    return [os.path.join(parent, name) for parent, names, files in os.walk(root) for name in (*names, *files)]


@pytest.fixture
def in_use(engine, door, started, tmp_path):
    """An engine with an image of set-user-id files, a volume, a log, an exec, a build and a stopped container."""
    load(engine, "setuid:1", ("bin/su-root", FILE, b"#!/bin/sh\n", 0o4777), ("open", DIR, "", 0o777))
    name = started("setuid:1", "sh", "-c", "echo logged; cp /bin/busybox /root-shell; chmod 4755 /root-shell; echo s > /data/f; sleep 1000",
                   host={"Binds": ["kept:/data"]}, Env=["SECRET=canary"], Healthcheck={"Test": ["CMD", "true"], "Interval": 10**9})  # fmt: skip
    door.execute(name, "sh", "-c", "echo x > /open/x; chmod 666 /open/x /data/f")
    (tmp_path / "Dockerfile").write_text("FROM setuid:1\nRUN echo x > /built; chmod 4777 /built\n")
    engine.docker("build", "-t", "setuid:2", tmp_path)
    door.create("setuid:2", "true")
    yield name
    door.ask("DELETE", "/volumes/kept", force=1)


@pytest.mark.parametrize("uid", [1000, 65534])
def test_nothing_is_in_reach_of_another_user(engine, in_use, uid):
    """CVE-2021-41091, CVE-2021-41103, CVE-2024-25621: state directories that others may traverse, with set-user-id
    files of containers in them; CVE-2014-3499, CVE-2018-15514: sockets and pipes."""
    paths = [*every_path(engine.data_root), *every_path(engine.exec_root)]
    assert len(paths) > 50

    told = as_user(
        uid, lambda: reachable(str(engine.data_root), str(engine.exec_root), str(engine.socket), *paths)
    )

    assert told == "[]"


def test_nobody_looks_through_a_container_s_process(engine, door, in_use):
    """CVE-2021-41091 by /proc: root, working directory, environment and memory of a container and its supervisor."""
    pid = door.ask("GET", f"/containers/{in_use}/json").value()["State"]["Pid"]
    with open(f"/proc/{pid}/stat") as file:
        parent = int(file.read().rpartition(")")[2].split()[1])
    names = ("root/etc", "cwd/", "environ", "mem", "fd/0", "exe", "map_files")
    paths = [f"/proc/{number}/{name}" for number in (pid, parent, engine.pid) for name in names]

    told = as_user(1000, lambda: [path for path in paths if os.access(path, os.R_OK)])

    assert told == "[]"


def test_directories_and_secrets_are_born_closed(engine, in_use):
    """CVE-2025-4953, CVE-2021-21284, I15: no moment with wider rights, so none is ever seen with them."""
    wide = []
    for top in (engine.data_root, engine.exec_root):
        wide += [str(top)] if stat.S_IMODE(top.stat().st_mode) & ~ALLOWED_TO_PASS else []
        for name in os.listdir(top):
            status = os.lstat(top / name)
            if stat.S_IMODE(status.st_mode) & 0o077 & ~(0o011 if stat.S_ISDIR(status.st_mode) else 0):
                wide.append(f"{top / name} {stat.S_IMODE(status.st_mode):o}")

    assert wide == []


def test_what_a_build_unpacks_is_closed_while_it_runs(engine, tmp_path):
    """CVE-2025-4953: temporary files of a build, looked at while a step waits."""
    (tmp_path / "context").mkdir()
    (tmp_path / "context" / "secret").write_text("canary")
    (tmp_path / "context" / "Dockerfile").write_text(
        "FROM busybox\nCOPY secret /s\nRUN echo waiting; sleep 3\n"
    )
    process = engine.popen("build", "--no-cache", tmp_path / "context")
    try:
        while b"waiting" not in (line := process.stdout.readline()):
            assert line, process.stderr.read()
        paths = [*every_path(engine.data_root), *every_path(engine.exec_root)]
        told = as_user(1000, lambda: reachable(str(engine.data_root), *paths))
    finally:
        process.communicate()

    assert told == "[]"


def test_no_abstract_socket_and_none_of_the_engine_s_reaches_a_container(engine, door, in_use):
    """CVE-2020-15257: a container in the host's network namespace finds nothing of the engine to connect to."""
    done = door.run("busybox", "cat", "/proc/net/unix", host={"NetworkMode": "host"})

    names = [line.split()[-1] for line in done.output.splitlines() if engine.root.name in line]
    assert [name for name in names if name.startswith("@")] == []
    told = as_user(1000, lambda: [name for name in names if os.access(name, os.W_OK)])
    assert told == "[]"
