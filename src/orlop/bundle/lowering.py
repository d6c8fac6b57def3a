"""A config.json made into what the runtime executes, or refused with a reason. Pure but for the host's facts.

Nothing is passed over in silence that would leave the container less confined than its document
says: what this runtime lacks is refused before anything is made.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass

from orlop.bundle.config import Config
from orlop.bundle.config_linux import Device, IdMapping, LinuxConfig
from orlop.bundle.mountwords import MountPlan, plan_mount
from orlop.bundle.refusal import Refused, Unsupported
from orlop.kernel.namespaces import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
)
from orlop.runtime import defaults
from orlop.runtime.devices import DEFAULT_DEVICES

__all__ = ["ContainerPlan", "MapTriple", "lower"]

MapTriple = tuple[int, int, int]

_FLAGS = {
    "pid": CLONE_NEWPID,
    "network": CLONE_NEWNET,
    "mount": CLONE_NEWNS,
    "ipc": CLONE_NEWIPC,
    "uts": CLONE_NEWUTS,
    "user": CLONE_NEWUSER,
    "cgroup": CLONE_NEWCGROUP,
}
# Nothing is less confined without them: all threads have the filter, mitigations stay on, nothing is logged.
_SECCOMP_FLAGS = frozenset(
    {"SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"}
)
_DEFAULT_NODES = tuple(
    Device(item.kind, item.path, item.major, item.minor, item.mode) for item in DEFAULT_DEVICES
)


@dataclass(frozen=True, slots=True)
class ContainerPlan:
    """What create does: everything but the process, which `processes.py` lowers."""

    id: str
    bundle: str
    rootfs: str
    config: Config
    new_namespaces: int  # CLONE_* flags for clone3; the cgroup one is init's own, once it is in its cgroup
    has_own_cgroup_namespace: bool
    joins: tuple[tuple[str, int], ...]  # paths and flags; a user namespace last
    uid_map: tuple[MapTriple, ...]
    gid_map: tuple[MapTriple, ...]
    mounts: tuple[MountPlan, ...]
    devices: tuple[Device, ...]
    makes_dev: bool
    cgroup_path: str

    @property
    def has_user_namespace(self) -> bool:
        """Whether init is not root of the host."""
        return self.config.linux.namespace("user") is not None


def lower(config: Config, container_id: str, bundle: str) -> ContainerPlan:
    """Decide what create will do.

    Raises:
        Refused: the document contradicts itself, or asks for what is not here.
    """
    linux = config.linux
    _check_supported(linux)
    _check_sysctls(linux)
    _check_names(config)
    new, joins = _namespaces(linux)
    mounts = tuple(plan_mount(item) for item in config.mounts)
    makes_dev = not any(item.is_bind and posixpath.normpath(item.destination) == "/dev" for item in mounts)
    return ContainerPlan(
        id=container_id,
        bundle=bundle,
        rootfs=os.path.normpath(os.path.join(bundle, config.root.path)),
        config=config,
        new_namespaces=new & ~CLONE_NEWCGROUP,
        has_own_cgroup_namespace=bool(new & CLONE_NEWCGROUP),
        joins=joins,
        uid_map=_map(linux.uid_mappings),
        gid_map=_map(linux.gid_mappings),
        mounts=mounts,
        devices=_devices(linux.devices) if makes_dev else (),
        makes_dev=makes_dev,
        cgroup_path=_cgroup_path(linux.cgroups_path, container_id),
    )


def _check_supported(linux: LinuxConfig) -> None:
    mount = linux.namespace("mount")
    if mount is None:
        raise Unsupported("a container without a mount namespace of its own is not supported")
    if mount.path:
        raise Unsupported("joining an existing mount namespace is not supported")
    if linux.namespace("time") is not None or linux.time_offsets:
        raise Unsupported("time namespaces are not supported")
    if linux.intel_rdt is not None:
        raise Unsupported("intelRdt is not supported")
    if linux.seccomp_listener_path:
        raise Unsupported("seccomp.listenerPath (notification) is not supported")
    if unknown := [flag for flag in linux.seccomp_flags if flag not in _SECCOMP_FLAGS]:
        raise Unsupported(f"seccomp.flags: {unknown[0]} is not supported")
    if linux.personality_flags:
        raise Unsupported("linux.personality.flags are not supported")
    if linux.personality_domain not in ("", "LINUX", "LINUX32"):
        raise Refused(f"linux.personality.domain {linux.personality_domain!r} is unknown")
    user = linux.namespace("user")
    if user is None and (linux.uid_mappings or linux.gid_mappings):
        raise Refused("linux.uidMappings: id mappings need a user namespace")
    if user is not None and not user.path and not (linux.uid_mappings and linux.gid_mappings):
        raise Refused("linux.uidMappings and linux.gidMappings must be given for a new user namespace")


def _check_sysctls(linux: LinuxConfig) -> None:
    """Init writes them with the host's privileges: only those of a namespace of the container's own."""
    for name in linux.sysctl:
        dotted = name.replace("/", ".")
        is_known = dotted == "kernel.hostname" or any(
            dotted == item or (item.endswith(".") and dotted.startswith(item))
            for item in defaults.NAMESPACED_SYSCTLS
        )
        if dotted.startswith("net."):
            kind = "network"
        else:
            kind = "uts" if dotted in ("kernel.domainname", "kernel.hostname") else "ipc"
        if not is_known or linux.namespace(kind) is None or not all(dotted.split(".")):
            raise Refused(f'sysctl "{name}" is not in a separate kernel namespace')
        if dotted == "kernel.hostname":
            raise Refused(f'sysctl "{name}": use hostname instead')


def _check_names(config: Config) -> None:
    if (config.hostname or config.domainname) and config.linux.namespace("uts") is None:
        name = "hostname" if config.hostname else "domainname"
        raise Refused(f"unable to set {name} without a private UTS namespace")


def _namespaces(linux: LinuxConfig) -> tuple[int, tuple[tuple[str, int], ...]]:
    new, joins = 0, []
    for item in linux.namespaces:
        if item.path:
            joins.append((item.path, _FLAGS[item.kind]))
        else:
            new |= _FLAGS[item.kind]
    # With the host's privileges everything can be joined; in another user namespace they are gone.
    joins.sort(key=lambda join: join[1] == CLONE_NEWUSER)
    return new, tuple(joins)


def _map(mappings: Sequence[IdMapping]) -> tuple[MapTriple, ...]:
    return tuple((item.container_id, item.host_id, item.size) for item in mappings)


def _devices(listed: Sequence[Device]) -> tuple[Device, ...]:
    """The default nodes, unless the document has its own of that name, and then its own."""
    # The link to the container's own terminals is never a node; runc passes over it, too.
    own = [item for item in listed if posixpath.normpath(item.path) != "/dev/ptmx"]
    named = {posixpath.normpath(item.path) for item in own}
    return (*(item for item in _DEFAULT_NODES if item.path not in named), *own)


def _cgroup_path(path: str, container_id: str) -> str:
    if ":" in path and "/" not in path:
        raise Unsupported(
            f"cgroupsPath {path!r} names a systemd unit", hint="use the cgroupfs manager of the caller"
        )
    return path.strip("/") or f"orlop-runtime/{container_id}"
