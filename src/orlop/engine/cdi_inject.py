"""Device requests of a container become edits of its spec: CDI names, and GPUs where CDI has them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import replace

from orlop.base.errors import InvalidInput
from orlop.engine import cdi_registry
from orlop.engine.cdi import CdiMount, CdiNode, Edits
from orlop.engine.cdi_registry import Registry
from orlop.engine.requests import DeviceRequest
from orlop.runtime.spec import ContainerSpec, DeviceSpec, MountSpec

__all__ = ["inject", "requested_names"]

_GPU = "nvidia.com/gpu"
_BIND_WORDS = ("bind", "rbind")


def inject(
    spec: ContainerSpec, requests: Sequence[DeviceRequest], directories: Sequence[str]
) -> ContainerSpec:
    """The spec with what the requested devices need.

    Raises:
        InvalidInput: no driver for a request, an unknown device, a node that is gone.
    """
    if not requests:
        return spec
    registry = cdi_registry.load(directories)
    names: dict[str, None] = {}
    for request in requests:
        names |= dict.fromkeys(requested_names(request, registry, has_cdi=bool(directories)))
    for edits in cdi_registry.resolve(registry, list(names)):
        spec = _edited(spec, edits)
    return spec


def requested_names(request: DeviceRequest, registry: Registry, *, has_cdi: bool = True) -> list[str]:
    """The CDI names that one request stands for.

    Raises:
        InvalidInput: no driver can do it; dockerd's text.
    """
    ids = list(request.device_ids or ())
    if request.driver == "cdi" and has_cdi:
        if request.count:
            raise InvalidInput("cannot specify Count with the cdi driver", hint="name the devices")
        return ids
    if request.driver in ("", "nvidia") and _wants_gpu(request):
        found = _gpus(request, ids, registry)
        if found:
            return found
    groups = (
        _go_list(words if isinstance(words, list | tuple) else ()) for words in request.capabilities or ()
    )
    shown = f"[{' '.join(groups)}]"
    raise InvalidInput(
        f'could not select device driver "{request.driver[:60]}" with capabilities: {shown[:200]}',
        hint=f"GPUs come from CDI spec files with devices of {_GPU}",
    )


def _go_list(words: Iterable[object]) -> str:
    return f"[{' '.join(map(str, words))}]"


def _wants_gpu(request: DeviceRequest) -> bool:
    sets = [words for words in request.capabilities or () if isinstance(words, list | tuple)]
    return any({"gpu", "nvidia"} & {str(word) for word in words} for words in sets)


def _gpus(request: DeviceRequest, ids: list[str], registry: Registry) -> list[str]:
    there = [name for name in registry.names() if name.startswith(f"{_GPU}=")]
    if not there:
        return []
    if ids:
        return [item if "=" in item else f"{_GPU}={item}" for item in ids]
    if request.count < 0 and f"{_GPU}=all" in there:
        return [f"{_GPU}=all"]
    numbered = sorted((name for name in there if name.partition("=")[2].isdecimal()), key=_number)
    if request.count > len(numbered):
        raise InvalidInput(f"{request.count} GPUs are asked for, and there are {len(numbered)}")
    return numbered if request.count < 0 else numbered[: request.count or 1]


def _number(name: str) -> int:
    return int(name.partition("=")[2][:9])


def _edited(spec: ContainerSpec, edits: Edits) -> ContainerSpec:
    process = spec.process
    if edits.env:
        given = {item.partition("=")[0] for item in edits.env}
        kept = (item for item in process.env if item.partition("=")[0] not in given)
        process = replace(process, env=(*kept, *edits.env))
    groups = (str(group) for group in edits.groups)
    process = replace(process, extra_groups=tuple(dict.fromkeys((*process.extra_groups, *groups))))
    nodes = tuple(_device(node) for node in edits.nodes)
    taken = {node.path for node in nodes}
    return replace(
        spec,
        process=process,
        devices=(*(device for device in spec.devices if device.path not in taken), *nodes),
        mounts=(*spec.mounts, *(_mount(item) for item in edits.mounts)),
    )


def _device(node: CdiNode) -> DeviceSpec:
    kind, major, minor = node.kind, node.major, node.minor
    if not kind or major is None or minor is None:
        try:
            info = os.stat(node.host_path)
        except OSError as error:
            raise InvalidInput(
                f"CDI device injection failed: failed to stat CDI host device {node.host_path[:200]!r}: "
                "no such file or directory"
            ) from error
        found = "c" if stat.S_ISCHR(info.st_mode) else "b" if stat.S_ISBLK(info.st_mode) else ""
        if not found or (kind and kind != found):
            raise InvalidInput(
                f"CDI device injection failed: {node.host_path[:200]!r} is not a device of that type"
            )
        kind, major, minor = found, os.major(info.st_rdev), os.minor(info.st_rdev)
    mode = 0o666 if node.mode is None else node.mode & 0o777
    return DeviceSpec(node.path, kind, major, minor, mode, node.uid or 0, node.gid or 0, node.permissions)


def _mount(item: CdiMount) -> MountSpec:
    if item.kind == "tmpfs":
        return MountSpec("tmpfs", item.container_path, "", item.options)
    words = item.options if set(item.options) & set(_BIND_WORDS) else ("rbind", *item.options)
    return MountSpec("bind", item.container_path, item.host_path, words)
