"""Images made from this machine's busybox, as docker-archive tars; same input, same digests."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

PASSWD = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\nuser:x:1000:1000::/home/user:/bin/sh\n"
GROUP = b"root:x:0:\nnogroup:x:65534:\nuser:x:1000:\nextra:x:2000:user\n"
HELLO = "Hello from a program without a system.\n"
_CREATED = "2026-01-01T00:00:00Z"
_HELLO_SOURCE = """
static long call(long number, long a, long b, long c) {
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
}
void _start(void) {
    static const char text[] = %s;
    call(1, 1, (long)text, sizeof text - 1);
    call(60, 0, 0, 0);
}
"""


def busybox_path() -> str:
    """The static busybox of this machine."""
    found = shutil.which("busybox")
    assert found is not None
    return found


@functools.cache
def busybox_layer(marker: str = "") -> bytes:
    """A tar with busybox, its links, users and the usual directories.

    Args:
        marker: text of a file, so that two images differ.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, mode, owner in (
            ("bin", 0o755, 0), ("dev", 0o755, 0), ("etc", 0o755, 0), ("home", 0o755, 0), ("home/user", 0o755, 1000),
            ("proc", 0o555, 0), ("root", 0o700, 0), ("sys", 0o555, 0), ("tmp", 0o1777, 0), ("usr", 0o755, 0),
            ("usr/bin", 0o755, 0), ("var", 0o755, 0),
        ):  # fmt: skip
            _add(tar, name, kind=tarfile.DIRTYPE, mode=mode, owner=owner)
        _add(tar, "bin/busybox", Path(busybox_path()).read_bytes(), mode=0o755)
        for applet in _applets():
            _add(tar, f"bin/{applet}", kind=tarfile.SYMTYPE, link="busybox")
        _add(tar, "etc/passwd", PASSWD)
        _add(tar, "etc/group", GROUP)
        if marker:
            _add(tar, "etc/marker", marker.encode())
    return buffer.getvalue()


def busybox_archive(*tags: str, marker: str = "", config: dict | None = None) -> bytes:
    """`docker save` of a busybox image."""
    run = {"Cmd": ["sh"], "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]}
    return archive([busybox_layer(marker)], tags, run | (config or {}))


def archive(layers: list[bytes], tags: tuple[str, ...], run: dict) -> bytes:
    """A docker-archive of these layer tars."""
    digests = [hashlib.sha256(layer).hexdigest() for layer in layers]
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": _CREATED,
            "config": run,
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
            "history": [
                {"created": _CREATED, "created_by": f"layer {number}"} for number in range(len(layers))
            ],
        }
    ).encode()
    name = hashlib.sha256(config).hexdigest()
    manifest = [
        {"Config": f"{name}.json", "RepoTags": list(tags), "Layers": [f"{d}/layer.tar" for d in digests]}
    ]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for digest, layer in dict(zip(digests, layers, strict=True)).items():
            _add(tar, f"{digest}/layer.tar", layer)
        _add(tar, f"{name}.json", config)
        _add(tar, "manifest.json", json.dumps(manifest).encode())
    return buffer.getvalue()


@functools.cache
def hello_program() -> bytes | None:
    """A static program of a few hundred bytes that prints `HELLO`; None without a C compiler."""
    if shutil.which("gcc") is None:
        return None
    with tempfile.TemporaryDirectory() as directory:
        source, program = Path(directory, "hello.c"), Path(directory, "hello")
        source.write_text(_HELLO_SOURCE % json.dumps(HELLO))
        flags = ["-static", "-nostdlib", "-Os", "-s", "-fno-stack-protector", "-fno-pie", "-no-pie"]
        subprocess.run(["gcc", *flags, "-o", str(program), str(source)], check=True, capture_output=True)
        return program.read_bytes()


@functools.cache
def _applets() -> list[str]:
    listed = subprocess.run(
        [busybox_path(), "--list"], capture_output=True, text=True, check=True
    ).stdout.split()
    return sorted(set(listed) - {"busybox"})


def _add(tar, name, data=b"", *, kind=tarfile.REGTYPE, mode=0o644, owner=0, link=""):
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.linkname, entry.size = kind, mode, link, len(data)
    entry.uid = entry.gid = owner
    tar.addfile(entry, io.BytesIO(data))
