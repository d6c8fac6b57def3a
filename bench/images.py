"""Rows about images and builds: trees of real files, a local registry, the same work for both engines."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import socket
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from harness import Engine
from rows import MEBI, MILLI, Row, _median

REGISTRY_CONFIG = """version: 0.1
storage:
  filesystem: {{rootdirectory: {root}}}
http: {{addr: 127.0.0.1:{port}}}
log: {{level: error}}
"""


@contextlib.contextmanager
def registry() -> Iterator[str]:
    """Debian's docker-registry on a free loopback port; yields HOST:PORT."""
    with socket.socket() as probe, tempfile.TemporaryDirectory() as root:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        config = Path(root) / "config.yml"
        config.write_text(REGISTRY_CONFIG.format(root=root, port=port))
        process = subprocess.Popen(
            ["docker-registry", "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                time.sleep(0.05)
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


def busybox_archive() -> bytes:
    """A docker-archive of one image `bench`: Debian's static busybox with its links."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for name in ("bin", "dev", "etc", "proc", "sys", "tmp"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        tar.add("/bin/busybox", "bin/busybox", filter=_root_owned)
        for applet in ("sh", "true", "sleep", "echo", "cat", "ls", "yes", "head", "cp", "mkdir", "dd", "seq"):
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
    return _archive("bench:latest", layer.getvalue())


def tree_archive(tag: str, files: int, size_bytes: int) -> bytes:
    """A docker-archive whose only layer has `files` files of `size_bytes` of incompressible-ish data."""
    layer = io.BytesIO()
    block = os.urandom(size_bytes // 2) + bytes(size_bytes - size_bytes // 2)
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for number in range(files):
            entry = tarfile.TarInfo(f"data/{number % 97:02}/{number:06}")
            entry.size = size_bytes
            tar.addfile(entry, io.BytesIO(number.to_bytes(8, "big") + block[8:]))
    return _archive(tag, layer.getvalue())


def _root_owned(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


def _archive(tag: str, layer: bytes) -> bytes:
    diff_id = hashlib.sha256(layer).hexdigest()
    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine],
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff_id}"]},
    }
    raw = json.dumps(config).encode()
    name = hashlib.sha256(raw).hexdigest()
    manifest = [{"Config": f"{name}.json", "RepoTags": [tag], "Layers": [f"{diff_id}/layer.tar"]}]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path, data in (
            (f"{name}.json", raw),
            (f"{diff_id}/layer.tar", layer),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            entry = tarfile.TarInfo(path)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def load(engine: Engine, archive: bytes) -> None:
    """POST /images/load."""
    engine.call("POST", "/images/load", archive, **{"Content-Type": "application/x-tar"})


def _context(dockerfile: str, files: dict[str, bytes] | None = None) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in {"Dockerfile": dockerfile.encode(), **(files or {})}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def _build(engine: Engine, context: bytes, tag: str) -> None:
    answer = engine.call("POST", f"/build?t={tag}&rm=1", context, **{"Content-Type": "application/x-tar"})
    text = answer.decode() if isinstance(answer, bytes) else json.dumps(answer)
    if "Successfully built" not in text:
        raise RuntimeError(text[-500:])


def cached_build(engine: Engine) -> float:
    """A fully cached build of ten steps."""
    steps = "".join(f"RUN echo {number} > /tmp/{number}\n" for number in range(5))
    context = _context(f"FROM bench\nENV A=b\n{steps}COPY f /f\nLABEL x=y\nCMD true\n", {"f": b"hello"})
    _build(engine, context, "cached")
    return _median(lambda: _build(engine, context, "cached"), 9) / MILLI


def copy_gibibyte(engine: Engine) -> float:
    """COPY of 1 GiB in four files, cold."""
    files = {f"big/{number}": os.urandom(MEBI) * 256 for number in range(4)}
    context = _context("FROM scratch\nCOPY big /big\n", files)
    return _median(lambda: _build(engine, context, "big"), 1)


def copy_many(engine: Engine) -> float:
    """COPY of 61,000 small files, cold."""
    files = {f"many/{number % 211}/{number}": b"%d" % number * 40 for number in range(61_000)}
    context = _context("FROM scratch\nCOPY many /many\n", files)
    return _median(lambda: _build(engine, context, "many"), 1)


def pull_row(name: str, budget: float | None, tag: str, host: str, *, files: int, size_bytes: int) -> Row:
    """Pull of an image that was pushed to the local registry before, cold."""

    def measure(engine: Engine) -> float:
        reference = f"{host}/{tag}"
        if engine.name == "orlop":  # whoever comes first seeds the registry; orlop runs first
            load(engine, tree_archive(reference, files, size_bytes))
            engine.docker("push", reference)
            engine.docker("rmi", reference)
        began = time.perf_counter()
        engine.docker("pull", reference)
        return time.perf_counter() - began

    return Row(name, "s", budget, measure)


def removal_row(tag: str, host: str) -> Row:
    """Removing the pulled image."""

    def measure(engine: Engine) -> float:
        began = time.perf_counter()
        engine.call("DELETE", f"/images/{host}/{tag}")
        return (time.perf_counter() - began) / MILLI

    return Row("removing that image", "ms", 50, measure)


def image_rows(host: str) -> tuple[Row, ...]:
    """All rows about images and builds."""
    return (
        Row("fully cached build of ten steps, API", "ms", 50, cached_build),
        pull_row("pull of 134 MB in 2,100 files", 0.7, "medium:1", host, files=2100, size_bytes=64_000),
        removal_row("medium:1", host),
        pull_row("pull of 60,000 small files", None, "small:1", host, files=60_000, size_bytes=600),
        Row("COPY of 1 GiB, cold", "s", None, copy_gibibyte),
        Row("COPY of 61,000 files, cold", "s", None, copy_many),
    )
