"""Debian's docker-registry on a loopback port."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ACCEPT = (
    "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json"
)
_CONFIG = """\
version: 0.1
log: {{level: error}}
storage:
  filesystem: {{rootdirectory: {root}}}
  delete: {{enabled: true}}
http: {{addr: "127.0.0.1:{port}"}}
"""


def missing() -> str:
    """Why there is no registry here; "" when there is one."""
    return "" if shutil.which("docker-registry") else "docker-registry is not installed"


USER, PASSWORD = "alice", "secret"
_HTPASSWD = f"{USER}:$2a$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n"
_AUTH = "auth: {{htpasswd: {{realm: test, path: {path}}}}}\n"


class DockerRegistry:
    """A registry without TLS; a context manager.

    Args:
        has_accounts: only `USER` with `PASSWORD` may come in.
    """

    def __init__(self, *, has_accounts=False):
        self._has_accounts = has_accounts

    def __enter__(self):
        self._directory = tempfile.TemporaryDirectory(prefix="orlop-registry-")
        root = Path(self._directory.name)
        self.port = free_port()
        config = _CONFIG.format(root=root / "data", port=self.port)
        if self._has_accounts:
            (root / "htpasswd").write_text(_HTPASSWD)
            config += _AUTH.format(path=root / "htpasswd")
        (root / "config.yml").write_text(self._configured(config))
        self.log_path = root / "log"
        with open(self.log_path, "wb") as log:
            self._process = subprocess.Popen(
                ["docker-registry", "serve", str(root / "config.yml")],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        self._wait_answers()
        return self

    def __exit__(self, *error):
        self._process.terminate()
        self._process.wait(10)
        self._directory.cleanup()

    def _configured(self, config: str) -> str:
        return config

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def digest(self, repository: str, reference: str) -> str:
        """What the registry itself calls this manifest."""
        with self._ask("HEAD", repository, reference) as response:
            return response.headers["Docker-Content-Digest"]

    def manifest(self, repository: str, reference: str) -> bytes:
        """The manifest as it is stored."""
        with self._ask("GET", repository, reference) as response:
            return response.read()

    def _ask(self, method, repository, reference):
        url = f"http://{self.address}/v2/{repository}/manifests/{reference}"
        request = urllib.request.Request(url, method=method, headers={"Accept": ACCEPT})
        return urllib.request.urlopen(request, timeout=10)

    def _wait_answers(self):
        deadline = time.monotonic() + 10
        while True:
            try:
                with urllib.request.urlopen(f"http://{self.address}/v2/", timeout=5):
                    return
            except urllib.error.HTTPError:
                return
            except (urllib.error.URLError, ConnectionError):
                assert self._process.poll() is None, self.log_path.read_text()
                assert time.monotonic() < deadline, "docker-registry does not answer"
                time.sleep(0.02)


class TlsRegistry(DockerRegistry):
    """One that speaks TLS only and wants a client's certificate.

    Args:
        certificates: a folder with `server.crt`, `server.key` and `ca.crt`.
    """

    def __init__(self, certificates: Path):
        super().__init__()
        self._certificates = certificates

    def _configured(self, config: str) -> str:
        folder = self._certificates
        tls = f"certificate: {folder}/server.crt, key: {folder}/server.key, clientcas: [{folder}/ca.crt]"
        return config.rstrip().removesuffix("}") + f", tls: {{{tls}}}}}\n"

    def _wait_answers(self):
        deadline = time.monotonic() + 10
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1):
                    return
            except OSError:
                assert self._process.poll() is None, self.log_path.read_text()
                assert time.monotonic() < deadline, "docker-registry does not answer"
                time.sleep(0.02)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]
