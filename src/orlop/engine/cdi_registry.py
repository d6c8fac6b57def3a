"""The CDI devices of this host: the spec files of the given directories, read anew whenever somebody asks.

A directory later in the list counts more: its devices hide those of the same name. Two files of one
directory that both describe a device are in conflict: then nobody can have it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field

from orlop.base import log
from orlop.base.errors import InvalidInput
from orlop.engine.cdi import CdiDevice, CdiSpec, Edits, parse_spec

__all__ = ["Registry", "load", "resolve"]

_SUFFIXES = (".json", ".yaml", ".yml")
_MAX_FILES = 1000
_MAX_FILE_BYTES = 4 << 20


@dataclass(slots=True)
class Registry:
    """Devices by their qualified names; `problems` say which files and names are out, and why."""

    devices: dict[str, tuple[CdiSpec, CdiDevice]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def names(self) -> tuple[str, ...]:
        """Every device, sorted."""
        return tuple(sorted(self.devices))


def load(directories: Sequence[str]) -> Registry:
    """Read all spec files; a bad file is a problem, never a failure."""
    registry = Registry()
    for directory in directories:
        _add(registry, _read_directory(directory, registry.problems))
    return registry


def resolve(registry: Registry, names: Sequence[str]) -> list[Edits]:
    """The edits for devices, in order; those of a file come once, before its first device.

    Raises:
        InvalidInput: names that no (good) file has, with dockerd's text; or edits that we do not do.
    """
    unknown = [name for name in names if name not in registry.devices]
    if unknown:
        raise InvalidInput(
            f"CDI device injection failed: unresolvable CDI devices {', '.join(unknown)[:500]}",
            hint="; ".join(registry.problems)[:600] or "docker info lists the devices that there are",
        )
    edits: list[Edits] = []
    seen: set[str] = set()
    for name in names:
        spec, device = registry.devices[name]
        if spec.path not in seen:
            seen.add(spec.path)
            edits.append(spec.edits)
        edits.append(device.edits)
    refused = sorted({word for item in edits for word in item.refused})
    if refused:
        raise InvalidInput(
            f"CDI device injection failed: {', '.join(names)[:300]} needs what is not available here: "
            f"{', '.join(refused)[:500]}",
            hint="leave it out of the spec file; host programs are not run for a container",
        )
    return edits


def _add(registry: Registry, specs: list[CdiSpec]) -> None:
    """Add the devices of one directory."""
    owners: dict[str, list[tuple[CdiSpec, CdiDevice]]] = {}
    for spec in specs:
        for device in spec.devices:
            owners.setdefault(f"{spec.kind}={device.name}", []).append((spec, device))
    for name, found in owners.items():
        if len(found) == 1:
            registry.devices[name] = found[0]
        else:
            registry.devices.pop(name, None)
            paths = ", ".join(spec.path for spec, _ in found)
            registry.problems.append(f"conflicting CDI device {name} in {paths}")


def _read_directory(directory: str, problems: list[str]) -> list[CdiSpec]:
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return []
    except OSError as error:
        problems.append(f"cannot read {directory}: {error.strerror}")
        return []
    specs = []
    for name in [name for name in names if name.endswith(_SUFFIXES)][:_MAX_FILES]:
        path = os.path.join(directory, name)
        try:
            data = _read(path)
            if data is not None:
                specs.append(parse_spec(data, path))
        except InvalidInput as error:
            problems.append(error.message)
        except OSError as error:
            problems.append(f"cannot read {path}: {error.strerror}")
    for problem in problems:
        log.debug("CDI", problem=problem)
    return specs


def _read(path: str) -> bytes | None:
    """The content of a plain file; None for anything else. A pipe must not hold us up."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            return None
        if info.st_size > _MAX_FILE_BYTES:
            raise InvalidInput(f"invalid CDI spec {path}: larger than {_MAX_FILE_BYTES} bytes")
        with open(fd, "rb", closefd=False) as file:
            return file.read(_MAX_FILE_BYTES + 1)
    finally:
        os.close(fd)
