"""The mounts of a config.json: those that every container has, then those that were asked for. Pure."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orlop.runtime.mountopts import parse_options
from orlop.runtime.spec import ContainerSpec, MountSpec

__all__ = ["Mounted", "mount_documents", "propagation_of"]

_SAFE = ("nosuid", "noexec", "nodev")
_PROPAGATION = frozenset(
    {f"{reach}{kind}" for reach in ("", "r") for kind in ("private", "slave", "shared", "unbindable")}
)
_FLAGS = frozenset(
    "ro rw nosuid suid nodev dev noexec exec noatime atime nodiratime diratime strictatime".split()
)


@dataclass(frozen=True, slots=True)
class Mounted:
    """A requested mount and where its host side is to be found by the runtime ("" for a file system)."""

    spec: MountSpec
    source: str = ""
    mode: int | None = None  # of the directory that a tmpfs covers


def mount_documents(spec: ContainerSpec, mounts: Sequence[Mounted]) -> list[dict[str, Any]]:
    """All of them, parents before what is mounted inside them."""
    covered = {os.path.normpath(item.spec.target) for item in mounts}
    ordered = sorted(mounts, key=lambda item: item.spec.target.rstrip("/").count("/"))
    return [*_standard(spec, covered), *(_requested(item) for item in ordered)]


def propagation_of(mounts: Sequence[MountSpec]) -> str:
    """What the container's root must propagate, so that a bind can be shared or a slave."""
    words = {word.removeprefix("r") for item in mounts if item.kind == "bind" for word in item.options}
    if "shared" in words:
        return "shared"
    return "slave" if "slave" in words else ""


def _standard(spec: ContainerSpec, covered: set[str]) -> list[dict[str, Any]]:
    write = "rw" if spec.is_privileged else "ro"
    found = [_mount("/proc", "proc", _SAFE)]
    if "/dev" not in covered:  # the user brings a whole /dev: it stays as it is
        found += _device_mounts(spec, covered)
    found.append(_mount("/sys", "sysfs", (*_SAFE, write)))
    write = "rw" if spec.is_privileged or spec.has_writable_cgroup else "ro"
    found.append(_mount("/sys/fs/cgroup", "cgroup", (*_SAFE, "relatime", write)))
    return [item for item in found if item["destination"] not in covered]


def _device_mounts(spec: ContainerSpec, covered: set[str]) -> list[dict[str, Any]]:
    terminals = ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5")
    found = [
        _mount("/dev", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
        _mount("/dev/pts", "devpts", terminals),
    ]
    if spec.ipc == "host":
        return found
    found.append(_mount("/dev/mqueue", "mqueue", _SAFE))
    if spec.ipc != "none" and "/dev/shm" not in covered:
        size = f"size={spec.shm_size_bytes}"
        found.append(_mount("/dev/shm", "tmpfs", (*_SAFE, "mode=1777", size), source="shm"))
    return found


def _mount(target: str, kind: str, options: Sequence[str], source: str = "") -> dict[str, Any]:
    return {"destination": target, "type": kind, "source": source or kind, "options": list(options)}


def _requested(item: Mounted) -> dict[str, Any]:
    spec = item.spec
    given_words = ["ro" if word == "ro-top" else word for word in spec.options]
    words = [word for word in given_words if word in _FLAGS]
    if spec.kind == "bind":
        is_recursive = parse_options(spec.options).is_recursive
        moves = [word for word in spec.options if word in _PROPAGATION] or ["rprivate"]
        options = ["rbind" if is_recursive else "bind", *words, *moves]
        return _mount(spec.target, "bind", options, source=item.source)
    data = parse_options(spec.options, takes_data=True).data
    if spec.kind == "tmpfs" and item.mode is not None:
        data.setdefault("mode", f"{item.mode:o}")
    given = [name if value is None else f"{name}={value}" for name, value in data.items()]
    safe = [word for word in _SAFE if word.removeprefix("no") not in words and word not in words]
    return _mount(spec.target, spec.kind, [*safe, *words, *given])
