"""Against Debian's docker-registry and skopeo, on loopback."""

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "fakes"))

from fake_registry import sha256, tar_of
from stores import stores

from orlop.oci.platform import host_platform
from orlop.oci.reference import parse_reference
from orlop.registry.auth import Credentials
from orlop.registry.client import Registry
from orlop.registry.endpoints import RegistryOptions
from orlop.registry.errors import Unauthorized
from orlop.transfer.pull import PullRequest
from orlop.transfer.push import PushRequest

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(not (shutil.which("docker-registry") and shutil.which("skopeo")), reason="needs docker-registry, skopeo"),
]  # fmt: skip
LAYERS = [tar_of(base=os.urandom(300_000)), tar_of(app=b"x" * 2_000_000, more=os.urandom(10))]


class RealRegistry:
    def __init__(self, root, auth=""):
        self.root, self.auth = root, auth
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.domain = f"127.0.0.1:{probe.getsockname()[1]}"

    def __enter__(self):
        self.root.mkdir()
        settings = self.root / "config.yml"
        settings.write_text(
            f"version: 0.1\nlog: {{level: warn, accesslog: {{disabled: false}}}}\n"
            f"storage: {{filesystem: {{rootdirectory: {self.root}/data}}, delete: {{enabled: true}}}}\n"
            f"http: {{addr: '{self.domain}'}}\n{self.auth}"
        )
        self.log = self.root / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(["docker-registry", "serve", settings], stdout=log, stderr=log)
        host, port = self.domain.split(":")
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1):
                return self
            time.sleep(0.02)
        raise AssertionError(self.log.read_text())

    def __exit__(self, *exc):
        self.process.kill()
        self.process.wait()

    def requests(self, method):
        """Paths of the access log."""
        return [
            line.split(f'"{method} ')[1].split(" ")[0]
            for line in self.log.read_text().splitlines()
            if f'"{method} ' in line
        ]


@pytest.fixture
def registry(tmp_path):
    with RealRegistry(tmp_path / "registry") as running:
        yield running


@pytest.fixture
def other(tmp_path):
    with RealRegistry(tmp_path / "other") as running:
        yield running


def seed(registry, tmp_path, name, layers=LAYERS, form="v2s2"):
    """Put an image into the registry by way of skopeo; returns the manifest's bytes."""
    folder = tmp_path / "archive"
    folder.mkdir()
    config = {"architecture": host_platform().architecture, "os": "linux", "config": {"Cmd": ["/app"]},
              "rootfs": {"type": "layers", "diff_ids": [sha256(layer) for layer in layers]},
              "history": [{"created_by": "test"} for _ in layers]}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    names = [f"{number}.tar" for number in range(len(layers))]
    for file, layer in zip(names, layers, strict=True):
        (folder / file).write_bytes(layer)
    manifest = [{"Config": "config.json", "RepoTags": ["seed:1"], "Layers": names}]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with tarfile.open(tmp_path / "seed.tar", "w") as tar:
        for file in ("manifest.json", "config.json", *names):
            tar.add(folder / file, file)
    skopeo("copy", "-q", f"--format={form}", "--dest-tls-verify=false",
           f"docker-archive:{tmp_path}/seed.tar", f"docker://{registry.domain}/{name}")  # fmt: skip
    return skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{registry.domain}/{name}")


def skopeo(*args):
    return subprocess.run(["skopeo", *args], check=True, capture_output=True).stdout


def reference(registry, name):
    return parse_reference(f"{registry.domain}/{name}")


async def push(here, image, target):
    await here.images.tag(image.id, target)
    return [progress.status async for progress in here.pusher.push(PushRequest(target))]


@pytest.mark.parametrize("form", ["v2s2", "oci"])
def test_pull_and_push_keep_every_digest(registry, other, tmp_path, form):
    raw = seed(registry, tmp_path, "library/app:1", form=form)

    async def main():
        async with stores(tmp_path / "data", registry, other) as here:
            image = await here.puller.fetch(PullRequest(reference(registry, "library/app:1")))
            await push(here, image, reference(other, "copy:2"))
            return image

    (tmp_path / "data").mkdir()
    image = asyncio.run(main())

    assert image.manifest.digest == sha256(raw)
    copied = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{other.domain}/copy:2")
    assert copied == raw
    shown = json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{other.domain}/copy:2"))
    assert shown["Digest"] == sha256(raw)


def test_the_second_push_sends_no_blob_and_skopeo_can_copy_the_result(registry, tmp_path):
    async def main():
        async with stores(tmp_path / "data", registry) as here:
            diff_ids = [sha256(layer) for layer in LAYERS]
            config = {"architecture": host_platform().architecture, "os": "linux", "config": {},
                      "rootfs": {"type": "layers", "diff_ids": diff_ids}}  # fmt: skip
            async with here.leases.hold("test") as lease:
                for layer in LAYERS:
                    async with here.layers.writer(lease) as writer:
                        await writer.write(layer)
                        await writer.commit()
                image = await here.images.put(json.dumps(config).encode(), lease=lease)
            first = await push(here, image, reference(registry, "mine:1"))
            sent = len(registry.requests("PATCH"))
            second = await push(here, await here.images.get(image.id), reference(registry, "mine:1"))
            mounted = await push(here, await here.images.get(image.id), reference(registry, "theirs:1"))
            return first, sent, second, mounted

    (tmp_path / "data").mkdir()
    first, sent, second, mounted = asyncio.run(main())

    assert sent == 3
    assert len(registry.requests("PATCH")) == 4  # the config of the second repository
    assert second.count("Layer already exists") == 2
    assert mounted.count("Mounted from mine") == 2
    assert first[-2] == second[-2] == mounted[-2]
    skopeo(
        "copy", "-q", "--src-tls-verify=false", f"docker://{registry.domain}/mine:1", f"dir:{tmp_path}/out"
    )


def test_a_password_is_asked_for_and_accepted(tmp_path):
    htpasswd = tmp_path / "htpasswd"
    htpasswd.write_text("alice:$2a$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n")  # secret
    auth = f"auth: {{htpasswd: {{realm: test, path: {htpasswd}}}}}\n"
    with RealRegistry(tmp_path / "registry", auth) as registry:

        async def main():
            client = Registry(RegistryOptions(), user_agent="test")
            try:
                await client.login(registry.domain, Credentials("alice", "secret"))
                with pytest.raises(Unauthorized):
                    await client.login(registry.domain, Credentials("alice", "wrong"))
                with pytest.raises(Unauthorized):
                    await client.repository(reference(registry, "app")).tags()
            finally:
                client.close()

        asyncio.run(main())
