"""Many lives leave nothing: no descriptors, no files, no memory."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fault_api import Api

from support.images import busybox_archive
from support.orlopd import Orlopd

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]
LIVES = int(os.environ.get("ORLOP_LIVES", "60"))
_WARM_UP = 60
_AT_ONCE = 3
_GROWTH_KIB = 2048  # what a heap may gain by chance; a leak of 35 KiB a life is more
_WAIT_S = 20


def test_lives_of_containers_leave_nothing_behind():
    with Orlopd() as engine:
        engine.docker("load", input=busybox_archive("busybox:latest"))
        api = Api(engine.socket, timeout_s=60)
        zygote = zygote_of(engine.pid)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(lambda _: live(api), range(_WARM_UP)))
            settle(engine)
            before, files = [measure(pid) for pid in (engine.pid, zygote)], files_of(engine)

            list(pool.map(lambda _: live(api), range(LIVES)))

        settle(engine)
        after = [measure(pid) for pid in (engine.pid, zygote)]
        print(f"{LIVES} lives: (fds, KiB) of engine and zygote {before} -> {after}")
        assert api.ok("GET", "/containers/json", all=1).json == []
        assert files_of(engine) == files
        assert zygote_of(engine.pid) == zygote
        for (fds, memory), (fds_before, memory_before) in zip(after, before, strict=True):
            assert fds <= fds_before + 2  # threads of a pool come when they are wanted
            assert memory - memory_before < _GROWTH_KIB


def live(api):
    """One of everything that a container has in its life."""
    body = {
        "Image": "busybox",
        "Cmd": ["sh", "-c", "echo word; read x; exit 3"],
        "OpenStdin": True,
        "StdinOnce": True,
        "Volumes": {"/v": {}},
        "HostConfig": {"NetworkMode": "none"},
    }
    name = api.ok("POST", "/containers/create", body).json["Id"]
    upgrade = {"Connection": "Upgrade", "Upgrade": "tcp"}
    attached = api.send("POST", f"/containers/{name}/attach", None, upgrade, stream=1, stdin=1, stdout=1)
    assert attached.getresponse().status == 101
    api.ok("POST", f"/containers/{name}/start")
    made = api.ok("POST", f"/containers/{name}/exec", {"Cmd": ["true"], "AttachStdout": True}).json["Id"]
    api.ok("POST", f"/exec/{made}/start", {"Detach": False})
    follower = api.send("GET", f"/containers/{name}/logs", follow=1, stdout=1)
    api.ok("GET", f"/containers/{name}/stats", **{"stream": 0, "one-shot": 1})
    api.ok("GET", f"/containers/{name}/top")
    api.ok("GET", f"/containers/{name}/changes")
    attached.close()  # the end of its input is the end of the container
    assert api.ok("POST", f"/containers/{name}/wait").json["StatusCode"] == 3
    assert follower.getresponse().read().endswith(b"word\n")
    follower.close()
    api.ok("DELETE", f"/containers/{name}", v=1)
    assert api("GET", f"/exec/{made}/json").status == 404


def settle(engine):
    """Wait until what goes on in the background is done."""
    roots = [root / "containers" for root in (engine.exec_root, engine.data_root)]
    deadline = time.monotonic() + _WAIT_S
    while any(any(root.iterdir()) for root in roots) or descriptors(engine.pid) != descriptors(engine.pid):
        assert time.monotonic() < deadline, "files of removed containers stay"
        time.sleep(0.05)


def descriptors(pid):
    time.sleep(0.1)
    return len(os.listdir(f"/proc/{pid}/fd"))


def measure(pid):
    """(descriptors, resident KiB of its own)"""
    status = Path(f"/proc/{pid}/status").read_text()
    (memory,) = [int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon:")]
    return descriptors(pid), memory


def files_of(engine):
    """Everything below the engine's directories."""
    return sorted(
        os.path.relpath(os.path.join(place, name), engine.root)
        for root in (engine.data_root, engine.exec_root)
        for place, directories, names in os.walk(root)
        for name in (*directories, *names)
    )


def zygote_of(pid):
    (child,) = [
        int(entry)
        for entry in os.listdir("/proc")
        if entry.isdecimal() and parent_of(entry) == pid and b"orlop.zygote" in command_of(entry)
    ]
    return child


def parent_of(pid):
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def command_of(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
