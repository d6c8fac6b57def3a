"""The cgroup of a container of the command: made, limited, filled, removed."""

from __future__ import annotations

import contextlib
import errno
import os

from orlop.base import log
from orlop.bundle.config_linux import Resources
from orlop.bundle.refusal import Refused, Unsupported
from orlop.bundle.resources import device_rules, resource_writes
from orlop.kernel import devicefilter
from orlop.kernel.cgroup import Cgroup, Mode, detect
from orlop.kernel.cgroup_apply import apply_writes

__all__ = ["apply_resources", "create_cgroup", "destroy_cgroup", "restrict_devices"]

# Kernels differ in these, and callers set them wherever they might be there.
_MAY_LACK = frozenset({"memory.memsw.limit_in_bytes", "memory.swap.max", "memory.swappiness"})


def create_cgroup(path: str) -> Cgroup:
    """Make it, or take an empty one that the caller has made.

    Raises:
        Refused: somebody lives there, or the path could lead elsewhere.
    """
    try:
        group = Cgroup(path, detect())
    except ValueError as error:
        raise Refused(f"cgroupsPath: {error}") from error
    if group.host.mode is Mode.NONE:
        return group
    group.create()
    if group.pids():
        raise Refused(f"container's cgroup is not empty: {len(group.pids())} process(es) found in {path}")
    if _is_frozen(group):  # whoever joins it stands still for good
        raise Refused("container's cgroup unexpectedly frozen")
    return group


def _is_frozen(group: Cgroup) -> bool:
    """In either hierarchy, by itself or an ancestor."""
    with contextlib.suppress(FileNotFoundError), open(f"{group.directory('freezer')}/freezer.state") as file:
        if file.read().strip() != "THAWED":
            return True
    with contextlib.suppress(OSError):
        return group.is_frozen()
    return False


def apply_resources(group: Cgroup, resources: Resources) -> None:
    """Set limits; what the host cannot enforce is refused.

    Raises:
        Unsupported: no such control file on this host.
        OSError: the kernel refuses a value.
    """
    writes = resource_writes(resources, is_v2=group.host.mode is Mode.V2)
    if not writes:
        return
    if group.host.mode is Mode.NONE:
        raise Unsupported("resources are limited, but this host has no cgroups")

    def write_file(controller: str, file: str, value: str) -> None:
        path = f"{group.directory(controller)}/{file}"
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        except OSError as error:
            text = f"cannot write {value!r}: {os.strerror(error.errno or 0).lower()}"
            raise OSError(error.errno, text, path) from None
        finally:
            os.close(fd)

    def read_file(controller: str, file: str) -> str:
        with open(f"{group.directory(controller)}/{file}", encoding="utf-8", errors="replace") as opened:
            return opened.read(1 << 16)

    raw = [write for write in writes if write.limit.startswith("unified ")]
    missing = apply_writes([write for write in writes if write not in raw], write_file, read_file)
    for write in raw:
        try:
            write_file(write.controller, write.file, write.value)
        except FileNotFoundError:
            missing.append(write.file)
    hard = [name for name in missing if name not in _MAY_LACK]
    if hard:
        raise Unsupported(f"this host's cgroups have no {', '.join(hard)}")
    if missing:
        log.warning("limits not supported by this kernel", limits=",".join(missing))


def restrict_devices(group: Cgroup, resources: Resources) -> None:
    """The device filter, before the container's first instruction (I20)."""
    if group.host.mode is Mode.NONE:
        return
    rules = device_rules(resources.devices)
    try:
        devicefilter.restrict(group, rules)
    except OSError as error:
        if error.errno != errno.ENOSYS or rules != devicefilter.ALLOW_ALL:
            raise


def destroy_cgroup(group: Cgroup) -> None:
    """Kill what is left and remove it; may be repeated.

    Raises:
        OSError: processes do not end.
    """
    if group.host.mode is Mode.NONE:
        return
    with contextlib.suppress(FileNotFoundError):
        if group.pids():
            group.kill()
    group.destroy()
