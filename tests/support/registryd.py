"""Our registry server as a process, and a small client that says exactly what it is told to."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SRC = Path(__file__).parents[2] / "src"
START_TIMEOUT_S = 20
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"


class RegistryServer:
    """A server on a port of its own; a context manager. `flags` are those of orlop-registry."""

    def __init__(self, *flags: str, environ: dict[str, str] | None = None, root: Path | None = None):
        self._directory = tempfile.TemporaryDirectory(prefix="orlop-registryd-")
        self.folder = Path(self._directory.name)
        self.root = root or self.folder / "data"
        self.flags = flags
        self.environ = environ or {}
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.log_path = self.folder / "log"
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *error):
        self.stop()
        self._directory.cleanup()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it listens."""
        words = [sys.executable, "-m", "orlop.registry_daemon", "--data-root", str(self.root)]
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [*words, "--listen", self.address, *self.flags],
                env={**os.environ, "PYTHONPATH": str(SRC), **self.environ},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise AssertionError(f"no registry: {self.log()}")
            time.sleep(0.02)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it; SIGKILL is allowed."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(20)
            self.process = None

    def wait_dead(self) -> int:
        """Wait until it has ended by itself."""
        assert self.process is not None
        code = self.process.wait(20)
        self.process = None
        return code

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def client(self, **headers: str) -> RawClient:
        return RawClient(self.port, headers)


class Answer:
    """Status, headers and body."""

    def __init__(self, response: http.client.HTTPResponse):
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    def json(self):
        return json.loads(self.body)

    @property
    def word(self) -> str:
        """The code of the first error."""
        return self.json()["errors"][0]["code"]


class RawClient:
    """One connection per request."""

    def __init__(self, port: int, headers: dict[str, str]):
        self._port = port
        self._headers = headers

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        fields = {name.replace("_", "-"): value for name, value in (self._headers | headers).items()}
        try:
            connection.request(method, path, body or None, fields)
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def push_blob(self, name: str, data: bytes) -> str:
        digest = digest_of(data)
        began = self.ask("POST", f"/v2/{name}/blobs/uploads/")
        assert began.status == 202, began.body
        done = self.ask("PUT", f"{began.headers['Location']}?digest={digest}", data)
        assert done.status == 201, done.body
        return digest

    def push_image(self, name: str, tag: str, *layers: bytes, config: bytes = b"{}") -> tuple[str, bytes]:
        """Push an image; its digest and manifest."""
        for data in (config, *layers):
            self.push_blob(name, data)
        manifest = manifest_of(config, *layers)
        answer = self.put_manifest(name, tag, manifest)
        assert answer.status == 201, answer.body
        return digest_of(manifest), manifest

    def put_manifest(self, name: str, reference: str, data: bytes, kind: str = OCI_MANIFEST) -> Answer:
        return self.ask("PUT", f"/v2/{name}/manifests/{reference}", data, Content_Type=kind)


def digest_of(data: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def descriptor(data: bytes, kind: str) -> dict[str, object]:
    return {"mediaType": kind, "digest": digest_of(data), "size": len(data)}


def manifest_of(config: bytes, *layers: bytes, **more: object) -> bytes:
    document = {
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": descriptor(config, OCI_CONFIG),
        "layers": [descriptor(layer, OCI_LAYER) for layer in layers], **more,
    }  # fmt: skip
    return json.dumps(document).encode()
