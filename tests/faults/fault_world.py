"""An engine with things in it that no fault may take away, and the checks that they are all there."""

from __future__ import annotations

import atexit
import contextlib
import functools
import gzip
import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
import time
import urllib.request
from pathlib import Path

import pytest
from fault_api import Api

from orlop.store import fsck
from support import images, leftovers, registry
from support.orlopd import Orlopd

__all__ = ["World", "archive_of", "push_directly", "tar_of"]

BASE = "busybox:latest"
_SETTLE_S = 10.0
_PROCESSES = 4  # engine, zygote, the runner and its supervisor
_SPARE = "orlop-supervisor"  # forked ahead, without a container yet


class World:
    """One engine; a context manager. `keeper` has exited, `runner` runs: both outlive every fault.

    Args:
        data_root: where the engine stores things, if not below its own root.
    """

    def __init__(self, data_root=None):
        self.port = registry.free_port()
        self.engine = Orlopd(hosts=(f"tcp://127.0.0.1:{self.port}",))
        self.engine.data_root = data_root or self.engine.data_root
        self._setting = self.engine.root / "failpoints"
        self._record = self.engine.root / "hits"
        self.engine.environ = {
            "ORLOP_FAILPOINTS": f"@{self._setting}",
            "ORLOP_FAILPOINTS_RECORD": str(self._record),
            # engines start by the hundred: they share what is compiled, outside of the tree
            "PYTHONDONTWRITEBYTECODE": "",
            "PYTHONPYCACHEPREFIX": _pycache(),
        }
        self.api = Api(self.engine.socket)
        self._unanswered = []

    def __enter__(self):
        self.engine.__enter__()
        try:
            self.api.ok("POST", "/images/load", images.busybox_archive(BASE))
            self.keeper = self.create("keeper", "echo kept; exit 7")
            self.start_and_wait(self.keeper)
            self.runner = self.create("runner", "exec sleep 1000000")
            self.api.ok("POST", f"/containers/{self.runner}/start")
            self._runner_pid = self.inspect(self.runner)["State"]["Pid"]
            self._base = self._document_of_base()
        except BaseException as error:
            self.engine.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(self, kind, error, traceback):
        self.disarm()
        for connection in self._unanswered:
            connection.close()
        self.engine.__exit__(kind, error, traceback)

    # failpoints

    def arm(self, setting: str) -> None:
        """From now on failpoints act as `setting` says."""
        fresh = self._setting.with_suffix(".new")
        fresh.write_text(setting)
        fresh.rename(self._setting)

    def disarm(self) -> None:
        """No failpoint acts any more."""
        self._setting.unlink(missing_ok=True)

    def hits_of(self, work) -> dict[str, int]:
        """How often each failpoint is hit by `work`."""
        self.forget_hits()
        work()
        counts: dict[str, int] = {}
        for name in self._record.read_text().split():
            counts[name] = counts.get(name, 0) + 1
        return counts

    def wait_hit(self, name: str, count: int = 1) -> None:
        """Return when a failpoint has been hit so often since `forget_hits`, or after a while."""
        deadline = time.monotonic() + 2.0
        while self._record.read_text().split().count(name) < count and time.monotonic() < deadline:
            time.sleep(0.002)

    def forget_hits(self) -> None:
        """Count from now on."""
        self._record.write_bytes(b"")

    # the engine

    def is_dead(self, timeout_s: float = 0.0) -> bool:
        """Whether the engine's process has ended, if need be after a while."""
        deadline = time.monotonic() + timeout_s
        while self.engine.process.poll() is None:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.005)
        return True

    def restart(self) -> None:
        """Kill what is left of the engine and start it without failpoints."""
        self.disarm()
        if self.engine.process is not None and not self.is_dead():
            self.engine.kill()
        self.engine.process = None
        self.engine.start()

    def start_expecting_death(self) -> None:
        """Start the engine; a failpoint ends it before it answers."""
        with pytest.raises(AssertionError, match="orlopd ended with 137"):
            self.engine.start()
        self.engine.process = None

    def send_only(self, method, path) -> None:
        """Send a request and do not wait for its answer."""
        self._unanswered.append(self.api.send(method, path))

    # containers

    def create(self, name, script, image=BASE, **host) -> str:
        """A container that runs a line of shell."""
        body = {"Image": image, "Cmd": ["sh", "-c", script], "HostConfig": {"NetworkMode": "none", **host}}
        return self.api.ok("POST", "/containers/create", body, name=name).json["Id"]

    def start_and_wait(self, container) -> int:
        """Start a container; its exit code."""
        self.api.ok("POST", f"/containers/{container}/start")
        return self.api.ok("POST", f"/containers/{container}/wait").json["StatusCode"]

    def inspect(self, container):
        """The document of a container."""
        return self.api.ok("GET", f"/containers/{container}/json").json

    def logs(self, container) -> bytes:
        """What a container without a terminal wrote to its standard output."""
        data, out = self.api.ok("GET", f"/containers/{container}/logs", stdout=1).body, b""
        while data:
            size = int.from_bytes(data[4:8], "big")
            out, data = out + data[8 : 8 + size], data[8 + size :]
        return out

    def container_names(self) -> list[str]:
        """The names of all containers."""
        found = self.api.ok("GET", "/containers/json", all=1).json
        return sorted(item["Names"][0].removeprefix("/") for item in found)

    # what must hold

    def check(self, *, may_be_running=(), allowed=(), is_full=False) -> None:
        """Everything that was there is there, works, and nothing else is left.

        Args:
            may_be_running: containers of the operation under test.
            allowed: beginnings of harmless findings that may be there.
            is_full: the disk has no room for another container.
        """
        assert self.api("GET", "/_ping").status == 200
        assert self._document_of_base() == self._base
        kept = self.inspect(self.keeper)["State"]
        assert (kept["Status"], kept["ExitCode"]) == ("exited", 7)
        assert self.logs(self.keeper) == b"kept\n"
        runs = self.inspect(self.runner)["State"]
        assert (runs["Status"], runs["Pid"]) == ("running", self._runner_pid)
        os.kill(self._runner_pid, 0)
        if not is_full:
            self.check_runs(BASE)
        self.wait_clean(allowed)
        self.wait_processes(may_be_running)

    def _document_of_base(self) -> dict:
        """Without what operations may change: when it was used, which compressed bytes are kept."""
        document = self.api.ok("GET", f"/images/{BASE}/json").json
        del document["Metadata"], document["Orlop"]
        return document

    def check_runs(self, image: str) -> None:
        """A container of the image runs and goes."""
        container = self.create("probe", "exit 3", image)
        assert self.start_and_wait(container) == 3
        self.api.ok("DELETE", f"/containers/{container}")

    def findings(self) -> list[str]:
        """What the checker finds now. The engine runs: what it is doing may show."""
        return [str(finding) for finding in fsck.check(str(self.engine.data_root))]

    def wait_clean(self, allowed=()) -> None:
        """The checker finds nothing, once the engine has done what it does in the background."""
        deadline = time.monotonic() + _SETTLE_S
        while found := [line for line in self.findings() if not line.startswith(tuple(allowed))]:
            assert time.monotonic() < deadline, "\n".join(found)
            time.sleep(0.05)

    def wait_processes(self, running=()) -> None:
        """No process is left but the engine's own and those of running containers."""
        wanted = _PROCESSES + 2 * len(running)
        deadline = time.monotonic() + _SETTLE_S
        while len(left := self._engine_processes()) != wanted:
            assert time.monotonic() < deadline, f"{wanted} processes expected: " + "\n".join(left)
            time.sleep(0.05)
        alive = {self.runner, *running}
        while left := [path for path in self._cgroups() if not alive & set(path.parts)]:
            assert time.monotonic() < deadline, f"cgroups of containers that are gone: {left}"
            time.sleep(0.05)
        mounted = {path.name for path in self._layer_mounts()}
        stored = {path.name for path in (self.engine.data_root / "layers").iterdir()}
        assert mounted <= stored, f"mounts of layers that are gone: {mounted - stored}"

    def _engine_processes(self) -> list[str]:
        found = sorted(leftovers._processes(self.engine.root).items())
        return [
            f"{pid} (of {_parent(pid)}): {command}" for pid, command in found if command.strip() != _SPARE
        ]

    def _cgroups(self) -> list[Path]:
        return [Path(path) for path in leftovers._cgroups(self.engine.root)]

    def _layer_mounts(self) -> list[Path]:
        text = Path(f"/proc/{self.engine.pid}/mountinfo").read_text()
        targets = [Path(line.split()[4]) for line in text.splitlines()]
        return [path for path in targets if path.parent == self.engine.exec_root / "layers"]


def _parent(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
    return "?"


@functools.cache
def _pycache() -> str:
    path = tempfile.mkdtemp(prefix="orlop-pycache-")
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def tar_of(**files: bytes) -> bytes:
    """A tar; `_` in the names stands for `/`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name.replace("_", "/"))
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def layers_of(marker: str, size: int = 0) -> list[bytes]:
    """Two layers that no other marker has: a small one and one of `size` random bytes."""
    noise = hashlib.shake_128(marker.encode()).digest(size)
    return [tar_of(etc_marker=marker.encode()), tar_of(big=noise, small=marker.encode())]


def archive_of(tag: str, marker: str, size: int = 0) -> bytes:
    """A docker-archive of busybox and `layers_of`."""
    return images.archive(
        [images.busybox_layer(), *layers_of(marker, size)],
        (tag if ":" in tag.rpartition("/")[2] else f"{tag}:latest",),
        {"Cmd": ["sh"]},
    )


def push_directly(registry: str, repository: str, tag: str, layers: list[bytes]) -> str:
    """Store an image in a registry without an engine; the digest of its manifest."""

    def ask(method, url, data=None, content_type="application/octet-stream"):
        request = urllib.request.Request(url, data, {"Content-Type": content_type}, method=method)
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.headers

    def blob(data, media_type):
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        location = ask("POST", f"http://{registry}/v2/{repository}/blobs/uploads/", b"")["Location"]
        ask("PUT", f"{location}{'&' if '?' in location else '?'}digest={digest}", data)
        return {"mediaType": media_type, "size": len(data), "digest": digest}

    prefix = "application/vnd.docker"
    diff_ids = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{prefix}.distribution.manifest.v2+json",
        "config": blob(json.dumps(config).encode(), f"{prefix}.container.image.v1+json"),
        "layers": [
            blob(gzip.compress(layer, 1, mtime=0), f"{prefix}.image.rootfs.diff.tar.gzip") for layer in layers
        ],
    }
    data = json.dumps(manifest).encode()
    ask("PUT", f"http://{registry}/v2/{repository}/manifests/{tag}", data, manifest["mediaType"])
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
