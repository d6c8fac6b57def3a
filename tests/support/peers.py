"""Other engines on roots of their own: Debian's dockerd and podman."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path


class Unavailable(Exception):
    """The peer is not installed or cannot run here; the argument says which and why."""


class Dockerd:
    """dockerd without networks; a context manager."""

    def __enter__(self):
        if shutil.which("dockerd") is None:
            raise Unavailable("dockerd is not installed")
        self.root = Path(tempfile.mkdtemp(prefix="orlop-peer-"))
        self.address = f"unix://{self.root}/s"
        command = [
            "dockerd", "--iptables=false", "--ip6tables=false", "--bridge=none", "--data-root", f"{self.root}/data",
            "--exec-root", f"{self.root}/exec", "--pidfile", f"{self.root}/pid", "-H", self.address,
        ]  # fmt: skip
        with open(self.root / "log", "wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while self.docker("version", check=False).returncode != 0:
            if self._process.poll() is not None or time.monotonic() > deadline:
                text = (self.root / "log").read_text(errors="replace")
                self.__exit__(None, None, None)
                raise Unavailable(f"dockerd does not run here: {text[-300:]}")
            time.sleep(0.1)
        return self

    def __exit__(self, *error):
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(20)
        self._process.kill()
        self._process.wait()
        _remove(self.root)

    def docker(self, *args, input=None, check=True):  # noqa: A002
        """Run the docker client against it."""
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.root),
            "DOCKER_HOST": self.address,
            "DOCKER_BUILDKIT": "0",
        }
        return _run(["docker", *args], env, input, check)


class Podman:
    """podman with a store of its own; a context manager."""

    def __enter__(self):
        if shutil.which("podman") is None:
            raise Unavailable("podman is not installed")
        self.root = Path(tempfile.mkdtemp(prefix="orlop-peer-"))
        return self

    def __exit__(self, *error):
        self.podman("rm", "-f", "-a", check=False)
        self.podman("rmi", "-f", "-a", check=False)
        _remove(self.root)

    def run(self, image):
        """What `image` prints. The limits are those of an engine that may not raise its own."""
        limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]
        return self.podman("run", "--rm", "--network", "none", *limits, image, check=False)

    def podman(self, *args, input=None, check=True):  # noqa: A002
        """Run podman."""
        places = [
            "--root",
            f"{self.root}/root",
            "--runroot",
            f"{self.root}/run",
            "--tmpdir",
            f"{self.root}/tmp",
        ]
        how = ["--cgroup-manager", "cgroupfs", "--events-backend", "none"]
        if shutil.which("runc"):  # crun refuses hosts with both versions of cgroups
            how += ["--runtime", "runc"]
        env = {"PATH": os.environ["PATH"], "HOME": str(self.root)}
        return _run(["podman", *places, *how, *args], env, input, check)


def _remove(root):
    """The directory, with what an engine that ended in a hurry left mounted in it."""
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        if (target := line.split()[4]).startswith(f"{root}/"):
            subprocess.run(["umount", "-l", target], check=False, capture_output=True)
    shutil.rmtree(root, ignore_errors=True)


def _run(command, env, data, check):
    done = subprocess.run(
        command, input=data, stdin=subprocess.DEVNULL if data is None else None, env=env,
        capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    if check and done.returncode != 0:
        raise AssertionError(
            f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout!r}\n{done.stderr!r}"
        )
    return done
