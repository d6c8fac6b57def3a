"""Engines under measurement, each on roots of its own, and a thin HTTP client for both."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=600)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(600)
        self.sock.connect(self._path)


@dataclass
class Engine:
    """A running engine: `name` is orlop or dockerd, `root` holds all its state."""

    name: str
    root: Path
    process: subprocess.Popen[bytes]
    started_s: float
    flags: tuple[str, ...] = ()

    @property
    def socket(self) -> str:
        return str(self.root / "engine.sock")

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """One API call on a connection of its own; JSON in, JSON or bytes out."""
        connection = _UnixConnection(self.socket)
        data = json.dumps(body).encode() if isinstance(body, dict | list) else body
        if isinstance(body, dict | list):
            headers["Content-Type"] = "application/json"
        connection.request(method, f"/v1.41{path}", data, headers)
        response = connection.getresponse()
        payload = response.read()
        connection.close()
        if response.status >= 400:
            raise RuntimeError(f"{self.name}: {method} {path}: {response.status} {payload[:300]!r}")
        with contextlib.suppress(ValueError):
            return json.loads(payload)
        return payload

    def docker(self, *args: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
        """The docker client pointed at this engine."""
        return subprocess.run(
            ["docker", "-H", f"unix://{self.socket}", *args], check=True, capture_output=True, **options
        )

    def processes(self) -> list[int]:
        """Every process that serves this engine; containers' own programs are not among them."""
        mark = str(self.root).encode()
        found = [record["supervisor_pid"] for record in self._records()]
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                with contextlib.suppress(OSError):
                    if mark in (entry / "cmdline").read_bytes() or mark in (entry / "environ").read_bytes():
                        found.append(int(entry.name))
        return sorted(set(found))

    def _records(self) -> list[dict[str, Any]]:
        """What Orlop's supervisors, whose names do not tell the root, say of themselves."""
        paths = (self.root / "exec" / "containers").glob("*/record") if self.name == "orlop" else []
        return [json.loads(path.read_text()) for path in paths]

    def supervisor_pid(self, name: str) -> int:
        """The process that looks after a running container (Orlop only)."""
        record = self.root / "exec" / "containers" / name / "record"
        return int(json.loads(record.read_text())["supervisor_pid"])

    def disk_bytes(self) -> int:
        """Blocks used below the data root."""
        total = subprocess.run(
            ["du", "-s", "-B1", "--one-file-system", str(self.root / "data")], check=True, capture_output=True
        )
        return int(total.stdout.split()[0])


def pss_bytes(pid: int) -> int:
    """Proportional set size of a process: shared pages count by share."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def _wait_for(socket_path: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the engine ended with {process.returncode}")
        with contextlib.suppress(OSError):
            connection = _UnixConnection(str(socket_path))
            connection.request("GET", "/_ping")
            if connection.getresponse().status == 200:
                return
        time.sleep(0.005)
    raise RuntimeError("the engine does not answer")


def launch(name: str, root: Path, *flags: str) -> Engine:
    """Start an engine and wait for its first answer; `started_s` is the time that took."""
    root.mkdir(parents=True, exist_ok=True)
    common = [
        *("--data-root", str(root / "data"), "--exec-root", str(root / "exec")),
        *("--pidfile", str(root / "pid"), "-H", f"unix://{root}/engine.sock"),
    ]
    if name == "orlop":
        command = [str(Path(sys.executable).with_name("orlopd")), *common, "--bridge", "none", *flags]
    else:
        command = ["dockerd", *common, "--iptables=false", "--ip6tables=false", "--bridge=none", *flags]
    with (root / "log").open("ab") as log:
        began = time.monotonic()
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    _wait_for(root / "engine.sock", process)
    return Engine(name, root, process, time.monotonic() - began, flags)


def relaunch(engine: Engine) -> float:
    """Start the engine again on the same roots with the same flags; seconds to the first answer."""
    again = launch(engine.name, engine.root, *engine.flags)
    engine.process = again.process
    return again.started_s


def halt(engine: Engine, how: int = signal.SIGTERM) -> None:
    """Stop the engine's main process and wait for its end."""
    engine.process.send_signal(how)
    engine.process.wait(60)


@contextlib.contextmanager
def running(name: str, *flags: str) -> Iterator[Engine]:
    """An engine on fresh roots; containers, processes and files are gone afterwards."""
    root = Path(tempfile.mkdtemp(prefix=f"bench-{name}-"))
    engine = launch(name, root, *flags)
    try:
        yield engine
    finally:
        with contextlib.suppress(Exception):
            for container in engine.call("GET", "/containers/json?all=1"):
                engine.call("DELETE", f"/containers/{container['Id']}?force=1")
        halt(engine)
        _unmount_below(root)
        shutil.rmtree(root, ignore_errors=True)


def _unmount_below(root: Path) -> None:
    for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
        target = line.split()[1]
        if target.startswith(str(root)):
            subprocess.run(["umount", "-l", target], check=False, capture_output=True)


def peer_available() -> bool:
    """True when Debian's dockerd is installed and this machine can run it."""
    return shutil.which("dockerd") is not None and os.geteuid() == 0
