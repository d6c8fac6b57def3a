"""What a client of an older API version may ask, one row each: the other half of `shims`.

Fields and parameters that its version does not have are left out before the handler sees them, as
dockerd leaves them out: an old client that sends one by accident gets what it always got. Two
defaults of old versions are not taken over, because they are weaker: the host's cgroup namespace
(before 1.41) and read-only binds that are not recursive (before 1.44).

Spec: moby, "Engine API version history".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from orlop.api.versions import Version

__all__ = ["REQUEST_SHIMS", "RequestShim", "request_shims_for"]

Body = dict[str, Any]


def _unchanged(_body: Body) -> None:
    """The row is about parameters."""


@dataclass(frozen=True, slots=True)
class RequestShim:
    """Applies to `operation` for clients of version `until` or older: `drops` are parameters to ignore."""

    operation: str
    until: Version
    note: str
    rewrite: Callable[[Body], None] = _unchanged
    drops: tuple[str, ...] = ()


def _without(*path: str) -> Callable[[Body], None]:
    """Leave out one field, by its keys from the top; names are compared as Go does, in any case."""

    def rewrite(body: Body) -> None:
        *parents, last = path
        for name in parents:
            found = _find(body, name)
            if not isinstance(found, dict):
                return
            body = found
        for key in [key for key in body if key.lower() == last.lower()]:
            del body[key]

    return rewrite


def _find(body: Body, name: str) -> object:
    return next((value for key, value in body.items() if key.lower() == name.lower()), None)


def _each_mount(*paths: tuple[str, ...]) -> Callable[[Body], None]:
    def rewrite(body: Body) -> None:
        host = _find(body, "HostConfig")
        mounts = _find(host, "Mounts") if isinstance(host, dict) else None
        for mount in mounts if isinstance(mounts, list) else ():
            if isinstance(mount, dict):
                for path in paths:
                    _without(*path)(mount)

    return rewrite


def _shareable(body: Body) -> None:
    host = body.setdefault("HostConfig", {})
    if isinstance(host, dict) and not _find(host, "IpcMode"):
        _without("IpcMode")(host)
        host["IpcMode"] = "shareable"


_CREATE, _UPDATE = "ContainerCreate", "ContainerUpdate"

REQUEST_SHIMS: tuple[RequestShim, ...] = (
    RequestShim("ImageDelete", (1, 49), "platforms came with 1.50", drops=("platforms",)),
    RequestShim("ImageInspect", (1, 48), "the platform came with 1.49", drops=("platform",)),
    RequestShim("ImageInspect", (1, 47), "manifests came with 1.48", drops=("manifests",)),
    *(
        RequestShim(name, (1, 47), "the platform came with 1.48", drops=("platform",))
        for name in ("ImageHistory", "ImageLoad", "ImageGet", "ImageGetAll")
    ),
    RequestShim("ImageList", (1, 46), "manifests came with 1.47", drops=("manifests",)),
    RequestShim("ImagePush", (1, 45), "the platform came with 1.46", drops=("platform",)),
    RequestShim(
        _CREATE,
        (1, 45),
        "options of tmpfs mounts came with 1.46",
        _each_mount(("TmpfsOptions", "Options")),
    ),
    RequestShim(
        _CREATE, (1, 44), "parts of volumes came with 1.45", _each_mount(("VolumeOptions", "Subpath"))
    ),
    RequestShim(_CREATE, (1, 43), "StartInterval came with 1.44", _without("Healthcheck", "StartInterval")),
    RequestShim(
        _CREATE,
        (1, 43),
        "the choice of recursion came with 1.44",
        _each_mount(("BindOptions", "ReadOnlyNonRecursive"), ("BindOptions", "ReadOnlyForceRecursive")),
    ),
    RequestShim(_CREATE, (1, 42), "Annotations came with 1.43", _without("HostConfig", "Annotations")),
    RequestShim(
        _CREATE,
        (1, 41),
        "CreateMountpoint came with 1.42",
        _each_mount(("BindOptions", "CreateMountpoint")),
    ),
    RequestShim(_CREATE, (1, 41), "ConsoleSize is heard since 1.42", _without("HostConfig", "ConsoleSize")),
    RequestShim("ContainerExec", (1, 41), "ConsoleSize came with 1.42", _without("ConsoleSize")),
    RequestShim("ExecStart", (1, 41), "ConsoleSize came with 1.42", _without("ConsoleSize")),
    RequestShim("ContainerStop", (1, 41), "the signal came with 1.42", drops=("signal",)),
    RequestShim("ContainerRestart", (1, 41), "the signal came with 1.42", drops=("signal",)),
    RequestShim("SystemDataUsage", (1, 41), "types came with 1.42", drops=("type",)),
    RequestShim("ContainerStats", (1, 40), "one-shot came with 1.41", drops=("one-shot",)),
    RequestShim(_CREATE, (1, 40), "the platform came with 1.41", drops=("platform",)),
    RequestShim(_CREATE, (1, 40), "CgroupnsMode came with 1.41", _without("HostConfig", "CgroupnsMode")),
    RequestShim(_CREATE, (1, 39), "private IPC is the default since 1.40", _shareable),
    RequestShim(
        _CREATE,
        (1, 39),
        "NonRecursive came with 1.40",
        _each_mount(("BindOptions", "NonRecursive")),
    ),
    RequestShim(_CREATE, (1, 39), "DeviceRequests came with 1.40", _without("HostConfig", "DeviceRequests")),
    RequestShim(
        _CREATE, (1, 39), "KernelMemoryTCP came with 1.40", _without("HostConfig", "KernelMemoryTCP")
    ),
    RequestShim(_UPDATE, (1, 39), "PidsLimit came with 1.40", _without("PidsLimit")),
    RequestShim("ContainerExec", (1, 34), "WorkingDir came with 1.35", _without("WorkingDir")),
    RequestShim("ContainerLogs", (1, 34), "until came with 1.35", drops=("until",)),
    RequestShim("ContainerWait", (1, 29), "conditions came with 1.30", drops=("condition",)),
    RequestShim("PutContainerArchive", (1, 29), "copyUIDGID came with 1.30", drops=("copyUIDGID",)),
    RequestShim(_CREATE, (1, 28), "StartPeriod came with 1.29", _without("Healthcheck", "StartPeriod")),
    RequestShim(
        _CREATE, (1, 27), "DeviceCgroupRules came with 1.28", _without("HostConfig", "DeviceCgroupRules")
    ),
    RequestShim(_UPDATE, (1, 27), "NanoCpus is updated since 1.28", _without("NanoCpus")),
    RequestShim("ContainerExec", (1, 24), "Env came with 1.25", _without("Env")),
    *(
        RequestShim(_CREATE, (1, 24), f"{name} came with 1.25", _without("HostConfig", name))
        for name in ("AutoRemove", "Init", "Mounts", "NanoCpus", "CpuRealtimePeriod", "CpuRealtimeRuntime")
    ),
    RequestShim(_CREATE, (1, 24), "StopTimeout came with 1.25", _without("StopTimeout")),
)


def request_shims_for(operation: str, version: Version) -> list[RequestShim]:
    """The rows that apply."""
    return [row for row in REQUEST_SHIMS if row.operation == operation and version <= row.until]
