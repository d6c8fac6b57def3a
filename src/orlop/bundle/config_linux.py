"""The `linux` object of a config.json as values. Pure.

Spec: OCI runtime-spec 1.2, config-linux.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orlop.bundle.reading import Reader, malformed

__all__ = [
    "BlockDeviceLimit",
    "CgroupDeviceRule",
    "Device",
    "IdMapping",
    "LinuxConfig",
    "Namespace",
    "Resources",
    "parse_linux",
    "parse_mappings",
    "parse_resources",
]

MAX_MAPPINGS = 340  # the kernel's own limit, user_namespaces(7)
_MAX_ENTRIES = 4096
_MAX_ID = 2**32 - 2
NAMESPACE_KINDS = ("pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time")
_DEVICE_KINDS = ("c", "u", "b", "p")
_PROPAGATIONS = frozenset(
    {"", *(prefix + word for prefix in ("", "r") for word in ("shared", "slave", "private", "unbindable"))}
)


@dataclass(frozen=True, slots=True)
class Namespace:
    """A namespace to be made, or with a path joined."""

    kind: str
    path: str = ""


@dataclass(frozen=True, slots=True)
class IdMapping:
    """One line of a uid_map or gid_map."""

    container_id: int
    host_id: int
    size: int


@dataclass(frozen=True, slots=True)
class Device:
    """A node to be made; `mode` None leaves it to the runtime."""

    kind: str
    path: str
    major: int = 0
    minor: int = 0
    mode: int | None = None
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True)
class CgroupDeviceRule:
    """A rule of the devices controller, in the order of the document; None means any."""

    is_allowed: bool
    kind: str = "a"
    major: int | None = None
    minor: int | None = None
    access: str = "rwm"


@dataclass(frozen=True, slots=True)
class BlockDeviceLimit:
    """A weight or rate of one block device."""

    major: int
    minor: int
    value: int


@dataclass(frozen=True, slots=True)
class Resources:
    """cgroup limits as the document gives them; None is absent."""

    devices: tuple[CgroupDeviceRule, ...] = ()
    memory_limit: int | None = None
    memory_reservation: int | None = None
    memory_swap: int | None = None
    memory_swappiness: int | None = None
    disable_oom_killer: bool = False
    cpu_shares: int | None = None
    cpu_quota: int | None = None
    cpu_burst: int | None = None
    cpu_period: int | None = None
    cpu_realtime_runtime: int | None = None
    cpu_realtime_period: int | None = None
    cpu_idle: int | None = None
    cpus: str = ""
    mems: str = ""
    pids_limit: int | None = None
    block_io_weight: int | None = None
    block_io_leaf_weight: int | None = None
    block_io_limits: Mapping[str, tuple[BlockDeviceLimit, ...]] = field(default_factory=dict)
    huge_pages: Mapping[str, int] = field(default_factory=dict)
    network_class_id: int | None = None
    network_priorities: Mapping[str, int] = field(default_factory=dict)
    rdma: Mapping[str, tuple[int | None, int | None]] = field(default_factory=dict)
    unified: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LinuxConfig:
    """What the `linux` object says."""

    namespaces: tuple[Namespace, ...] = ()
    uid_mappings: tuple[IdMapping, ...] = ()
    gid_mappings: tuple[IdMapping, ...] = ()
    devices: tuple[Device, ...] = ()
    cgroups_path: str = ""
    resources: Resources = Resources()
    seccomp: Mapping[str, Any] | None = None  # checked by runtime/seccomp_profile.py when compiled
    seccomp_flags: tuple[str, ...] = ()
    seccomp_listener_path: str = ""
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()
    sysctl: Mapping[str, str] = field(default_factory=dict)
    rootfs_propagation: str = ""
    mount_label: str = ""
    personality_domain: str = ""
    personality_flags: tuple[str, ...] = ()
    time_offsets: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    intel_rdt: Mapping[str, Any] | None = None

    def namespace(self, kind: str) -> Namespace | None:
        """The entry of that kind, if there is one."""
        return next((item for item in self.namespaces if item.kind == kind), None)


_THROTTLES = (
    "weightDevice",
    "throttleReadBpsDevice",
    "throttleWriteBpsDevice",
    "throttleReadIOPSDevice",
    "throttleWriteIOPSDevice",
)


def parse_linux(reader: Reader | None) -> LinuxConfig:
    """Read the `linux` object; absent is all defaults."""
    if reader is None:
        return LinuxConfig()
    seccomp = reader.object("seccomp")
    personality = reader.child("personality")
    propagation = reader.text("rootfsPropagation")
    if propagation not in _PROPAGATIONS:
        raise malformed(reader, "rootfsPropagation", f"{propagation!r} is unknown")
    return LinuxConfig(
        namespaces=_namespaces(reader),
        uid_mappings=parse_mappings(reader, "uidMappings"),
        gid_mappings=parse_mappings(reader, "gidMappings"),
        devices=tuple(_device(item) for item in reader.children("devices", _MAX_ENTRIES)),
        cgroups_path=reader.text("cgroupsPath"),
        resources=parse_resources(reader.child("resources")),
        seccomp=seccomp.raw if seccomp else None,
        seccomp_flags=seccomp.texts("flags", 16) if seccomp else (),
        seccomp_listener_path=seccomp.text("listenerPath") if seccomp else "",
        masked_paths=reader.texts("maskedPaths", _MAX_ENTRIES),
        readonly_paths=reader.texts("readonlyPaths", _MAX_ENTRIES),
        sysctl=reader.text_map("sysctl", _MAX_ENTRIES),
        rootfs_propagation=propagation,
        mount_label=reader.text("mountLabel"),
        personality_domain=personality.text("domain") if personality else "",
        personality_flags=personality.texts("flags", 16) if personality else (),
        time_offsets={
            name: (item.integer("secs") or 0, item.integer("nanosecs") or 0)
            for name, item in reader.child_map("timeOffsets", 8)
        },
        intel_rdt=rdt.raw if (rdt := reader.object("intelRdt")) else None,
    )


def _namespaces(reader: Reader) -> tuple[Namespace, ...]:
    found: dict[str, Namespace] = {}
    for item in reader.children("namespaces", 64):
        kind, path = item.text("type"), item.text("path")
        if kind not in NAMESPACE_KINDS:
            raise malformed(item, "type", f"{kind!r} is no kind of namespace")
        if kind in found:
            raise malformed(item, "type", f"a second {kind} namespace")
        if path and not path.startswith("/"):
            raise malformed(item, "path", "is not absolute")
        found[kind] = Namespace(kind, path)
    return tuple(found.values())


def parse_mappings(reader: Reader, key: str) -> tuple[IdMapping, ...]:
    """A list of id mappings: inside, outside, how many."""
    return tuple(
        IdMapping(
            item.required_integer("containerID", 0, _MAX_ID),
            item.required_integer("hostID", 0, _MAX_ID),
            item.required_integer("size", 1, _MAX_ID + 1),
        )
        for item in reader.children(key, MAX_MAPPINGS)
    )


def _device(item: Reader) -> Device:
    kind, path = item.text("type"), item.text("path")
    if kind not in _DEVICE_KINDS:
        raise malformed(item, "type", f"{kind!r} is no kind of device")
    if not path.startswith("/") or path.endswith("/"):
        raise malformed(item, "path", "is not an absolute path of a file")
    is_numbered = kind != "p"
    return Device(
        kind,
        path,
        item.required_integer("major", 0, 0xFFF) if is_numbered else 0,
        item.required_integer("minor", 0, 0xFFFFF) if is_numbered else 0,
        item.integer("fileMode", 0, 0o177777),
        item.integer("uid", 0, _MAX_ID) or 0,
        item.integer("gid", 0, _MAX_ID) or 0,
    )


def parse_resources(reader: Reader | None) -> Resources:
    """Read `linux.resources`, which is also what `update --resources` takes."""
    if reader is None:
        return Resources()
    empty = Reader({}, "")
    memory, cpu = reader.child("memory") or empty, reader.child("cpu") or empty
    block, network = reader.child("blockIO") or empty, reader.child("network") or empty
    pids = reader.child("pids") or empty
    return Resources(
        devices=tuple(_device_rule(item) for item in reader.children("devices", _MAX_ENTRIES)),
        memory_limit=memory.integer("limit"),
        memory_reservation=memory.integer("reservation"),
        memory_swap=memory.integer("swap"),
        memory_swappiness=memory.integer("swappiness", 0, 200),
        disable_oom_killer=memory.flag("disableOOMKiller"),
        cpu_shares=cpu.integer("shares", 0),
        cpu_quota=cpu.integer("quota"),
        cpu_burst=cpu.integer("burst", 0),
        cpu_period=cpu.integer("period", 0),
        cpu_realtime_runtime=cpu.integer("realtimeRuntime"),
        cpu_realtime_period=cpu.integer("realtimePeriod", 0),
        cpu_idle=cpu.integer("idle", 0, 1),
        cpus=_cpu_list(cpu, "cpus"),
        mems=_cpu_list(cpu, "mems"),
        pids_limit=pids.integer("limit"),
        block_io_weight=block.integer("weight", 0, 1000),
        block_io_leaf_weight=block.integer("leafWeight", 0, 1000),
        block_io_limits={key: limits for key in _THROTTLES if (limits := _block_limits(block, key))},
        huge_pages={
            _page_size(item): item.required_integer("limit", 0, 2**64 - 1)
            for item in reader.children("hugepageLimits", 64)
        },
        network_class_id=network.integer("classID", 0, 2**32 - 1),
        network_priorities={
            item.text("name"): item.required_integer("priority", 0, 2**32 - 1)
            for item in network.children("priorities", _MAX_ENTRIES)
        },
        rdma={
            name: (item.integer("hcaHandles", 0), item.integer("hcaObjects", 0))
            for name, item in reader.child_map("rdma", 256)
        },
        unified=_unified(reader),
    )


def _device_rule(item: Reader) -> CgroupDeviceRule:
    kind, access = item.text("type") or "a", item.text("access") or "rwm"
    if kind not in ("a", "b", "c"):
        raise malformed(item, "type", f"{kind!r} is no kind of device")
    if set(access) - set("rwm"):
        raise malformed(item, "access", f"{access!r} has letters other than rwm")
    major, minor = item.integer("major", -1, 2**32 - 1), item.integer("minor", -1, 2**32 - 1)
    return CgroupDeviceRule(
        item.flag("allow"), kind, None if major == -1 else major, None if minor == -1 else minor, access
    )


def _block_limits(block: Reader, key: str) -> tuple[BlockDeviceLimit, ...]:
    value = "weight" if key == "weightDevice" else "rate"
    return tuple(
        BlockDeviceLimit(
            item.required_integer("major", 0, 2**32 - 1),
            item.required_integer("minor", 0, 2**32 - 1),
            item.integer(value, 0, 2**64 - 1) or 0,
        )
        for item in block.children(key, _MAX_ENTRIES)
    )


def _cpu_list(reader: Reader, key: str) -> str:
    text = reader.text(key)
    if set(text) - set("0123456789,-\n "):
        raise malformed(reader, key, f"{text[:80]!r} is no list of numbers")
    return text


def _page_size(item: Reader) -> str:
    size = item.text("pageSize")
    if not (size[:-2].isdecimal() and size[-2:] in ("KB", "MB", "GB")):
        raise malformed(item, "pageSize", f"{size!r} is no size of pages")
    return size


def _unified(reader: Reader) -> dict[str, str]:
    found = reader.text_map("unified", 256)
    for name in found:
        if "/" in name or "." not in name or name.startswith("cgroup."):
            raise malformed(reader, "unified", f"{name!r} is no file of a controller")
    return found
