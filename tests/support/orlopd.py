"""A real engine as a process on roots of its own, and the clients that reach it."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import docker

from support import leftovers

SRC = Path(__file__).parents[2] / "src"
START_TIMEOUT_S = 20
_LOG_TAIL_LINES = 60


class Orlopd:
    """One engine; a context manager that fails when the engine leaves something behind.

    Args:
        flags: more of orlopd's flags; every engine also gets those in ORLOP_TEST_FLAGS.
        environ: more environment, for instance failpoints.
        hosts: more addresses to listen on.
    """

    def __init__(self, *flags: str, environ: dict[str, str] | None = None, hosts: tuple[str, ...] = ()):
        self.root = leftovers.new_root()
        self.data_root = self.root / "data"
        self.exec_root = self.root / "exec"
        self.socket = self.root / "s"
        self.log_path = self.root / "log"
        self.home = self.root / "home"
        self.flags = [*shlex.split(os.environ.get("ORLOP_TEST_FLAGS", "")), *flags]
        self.environ = environ or {}
        self.hosts = hosts
        self.passed_fds: tuple[int, ...] = ()  # descriptors that the engine inherits
        self.process: subprocess.Popen[bytes] | None = None
        self._clients: list[docker.DockerClient] = []
        (self.home / ".docker").mkdir(parents=True)
        (self.home / ".docker" / "config.json").write_text("{}")

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            leftovers.sweep(self.root)
            raise
        return self

    def __exit__(self, kind, error, traceback):
        try:
            self.close(is_strict=kind is None)
        finally:
            leftovers.sweep(self.root)

    @property
    def address(self) -> str:
        return f"unix://{self.socket}"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def command(self) -> list[str]:
        """The engine's command line."""
        places = [
            "--data-root",
            self.data_root,
            "--exec-root",
            self.exec_root,
            "--pidfile",
            self.root / "pid",
        ]
        hosts = [word for host in (self.address, *self.hosts) for word in ("-H", host)]
        parent = ["--cgroup-parent", leftovers.cgroup_parent(self.root)]
        bridge = [] if any("bridge" in flag for flag in self.flags) else ["--bridge", "none"]
        return [
            sys.executable,
            "-m",
            "orlop.daemon",
            *map(str, places),
            *hosts,
            *parent,
            *bridge,
            *self.flags,
        ]

    # the process

    def start(self) -> None:
        """Start it and wait until it answers."""
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                env=self._env(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=self.passed_fds,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if self.process.poll() is not None:
                raise AssertionError(f"orlopd ended with {self.process.returncode}\n{self.log_tail()}")
            if time.monotonic() > deadline:
                self.process.kill()
                raise AssertionError(f"orlopd does not answer\n{self.log_tail()}")
            time.sleep(0.01)

    def kill(self) -> None:
        """SIGKILL, the supported emergency exit; returns when it is gone."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; its exit code. Containers go on."""
        return self._end(signal.SIGTERM)

    def restart(self) -> None:
        """Stop it, unless it is gone already, and start it again on the same roots."""
        if self.process is not None:
            self.stop()
        self.start()

    def close(self, *, is_strict: bool = True) -> None:
        """Remove all containers, stop the engine, and see that nothing is left of it.

        Args:
            is_strict: fail on leftovers and on tracebacks in the log.
        """
        for client in self._clients:
            client.close()
        if self.process is None or self.process.poll() is not None:
            if not is_strict:
                return
            self.start()
        self.remove_containers()
        code = self.stop()
        if is_strict:
            assert code == 0, f"orlopd ended with {code}\n{self.log_tail()}"
            left = leftovers.wait_gone(self.root)
            assert left == [], f"left behind: {left}\n{self.log_tail()}"
            assert "Traceback" not in self.log(), self.log_tail(400)

    def remove_containers(self) -> None:
        """Remove every container by force."""
        if ids := self.docker("ps", "-aq", "--no-trunc", check=False).stdout.split():
            self.docker("rm", "-f", "-v", *ids, check=False)

    def log(self) -> str:
        """What the engine wrote so far."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def log_tail(self, lines: int = _LOG_TAIL_LINES) -> str:
        """The end of the log."""
        return "\n".join(self.log().splitlines()[-lines:])

    # clients

    def docker(self, *args, input=None, check=True, timeout=60, cwd=None, env=None):  # noqa: A002
        """Run the docker client; text in and out, bytes when `input` is bytes.

        Raises:
            AssertionError: it failed and `check` is set; with its output and the engine's log.
        """
        return self._run(["docker", *map(str, args)], input, check, timeout, cwd, env)

    def orlop(self, *args, input=None, check=True, timeout=60, cwd=None, env=None):  # noqa: A002
        """Run our own client, likewise."""
        command = [sys.executable, "-m", "orlop.cli.main", "-H", self.address, *map(str, args)]
        return self._run(command, input, check, timeout, cwd, env)

    def orlop_by_environment(self, *args, env, input=None, check=True, timeout=60):  # noqa: A002
        """Run our own client where `env` says which engine it talks to."""
        command = [sys.executable, "-m", "orlop.cli.main", *map(str, args)]
        return self._run(command, input, check, timeout, None, env)

    def popen(self, *args, **options) -> subprocess.Popen:
        """The docker client as a process of its own, with pipes to it."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        return subprocess.Popen(["docker", *map(str, args)], env=self.client_env(), **pipes)

    def api(self, **options) -> docker.DockerClient:
        """A docker-py client; closed with the engine."""
        client = docker.DockerClient(base_url=self.address, timeout=60, **options)
        self._clients.append(client)
        return client

    def client_env(self, extra: dict[str, str] | None = None) -> dict[str, str]:
        """Environment of a client: this engine, its own home, the classic builder."""
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
        own = {
            "HOME": str(self.home),
            "DOCKER_CONFIG": str(self.home / ".docker"),
            "DOCKER_HOST": self.address,
            "DOCKER_BUILDKIT": "0",
            "TERM": "xterm",
            "PYTHONPATH": str(SRC),
        }
        return kept | own | (extra or {})

    def _run(self, command, data, check, timeout, cwd, env):
        is_binary = isinstance(data, bytes)
        done = subprocess.run(
            command,
            input=data,
            stdin=subprocess.DEVNULL if data is None else None,
            capture_output=True,
            text=not is_binary,
            timeout=timeout,
            cwd=cwd,
            env=self.client_env(env),
            check=False,
        )
        if check and done.returncode != 0:
            shown = " ".join(command)
            raise AssertionError(
                f"{shown}: exit code {done.returncode}\n{done.stdout!s}\n{done.stderr!s}\n{self.log_tail()}"
            )
        return done

    def _answers(self) -> bool:
        import socket

        with socket.socket(socket.AF_UNIX) as sock:
            try:
                sock.connect(str(self.socket))
            except OSError:
                return False
        return True

    def _end(self, number: int) -> int:
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGUSR1)  # says in its log what it waits for
            time.sleep(0.5)
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"orlopd does not end\n{self.log_tail()}") from None
        finally:
            self.process = None

    def _env(self) -> dict[str, str]:
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("DOCKER_", "ORLOP_"))
        }
        return kept | {"PYTHONPATH": str(SRC), "PYTHONDONTWRITEBYTECODE": "1"} | self.environ


def missing() -> str:
    """Why no engine can be driven here; "" when one can."""
    if os.geteuid() != 0:
        return "the engine needs root"
    if shutil.which("docker") is None:
        return "the docker client is not installed"
    if shutil.which("busybox") is None:
        return "busybox-static is not installed"
    return ""
