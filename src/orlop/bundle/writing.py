"""From our specs to the documents that OCI runtimes read: config.json and process.json. Pure.

Everything is decided by then: users are numbers, bind sources are places of our own, limits that
the kernel lacks are left out. There are no hooks and no annotations here, so nothing of an image
is ever run on the host. The document is that of runtime-spec 1.0.2, which every runtime reads.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from orlop.bundle.writing_mounts import Mounted, mount_documents
from orlop.bundle.writing_seccomp import seccomp_document
from orlop.kernel import capabilities
from orlop.kernel.cgroup_limits import Limits
from orlop.kernel.devicefilter import DeviceRule, parse_rule
from orlop.runtime import defaults
from orlop.runtime.devices import DEFAULT_DEVICES
from orlop.runtime.identity import Identity
from orlop.runtime.spec import ContainerSpec, DeviceSpec, ProcessSpec, ResourceSpec

__all__ = ["INIT_TARGET", "Facts", "config_document", "process_document"]

SPEC_VERSION = "1.0.2"
INIT_TARGET = "/sbin/docker-init"
_DEFAULT_PATHS = frozenset(device.path for device in DEFAULT_DEVICES)
_UNLIMITED = (1 << 64) - 1
_NAMESPACES = (("network", "none"), ("ipc", "private"), ("uts", "private"))
_OWN = {"none", "private", "shareable"}


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found out about host, image and kernel for one start."""

    who: Identity
    cgroup_path: str  # relative to every hierarchy
    mounts: Sequence[Mounted] = ()
    root_path: str = "rootfs"
    available: int = ~0  # mask of the capabilities that there are to give
    machine: str = "x86_64"
    release: str = "6.1.0"
    cpu_count: int = 1
    host_devices: Sequence[DeviceSpec] = ()
    missing_limits: frozenset[str] = frozenset()
    propagation: str = ""


def config_document(spec: ContainerSpec, facts: Facts) -> dict[str, Any]:
    """config.json of a container."""
    process = process_document(spec.process, facts, is_privileged=spec.is_privileged)
    if spec.has_init:
        process["args"] = [INIT_TARGET, "--", *process["args"]]
    document: dict[str, Any] = {
        "ociVersion": SPEC_VERSION,
        "process": process,
        "root": {"path": facts.root_path, "readonly": spec.root.is_read_only},
        "mounts": mount_documents(spec, facts.mounts),
        "linux": _linux(spec, facts),
    }
    if spec.hostname and spec.uts != "host":
        document["hostname"] = spec.hostname
    return document


def process_document(spec: ProcessSpec, facts: Facts, *, is_privileged: bool) -> dict[str, Any]:
    """process.json of an exec, and the process of a config.json."""
    kept = _kept(spec, facts, is_privileged=is_privileged)
    names = [f"CAP_{name}" for name in capabilities.names_of(kept)]
    active = names if facts.who.uid == 0 else []
    document: dict[str, Any] = {
        "terminal": spec.has_tty,
        # The primary group among them: one that can be left for another is no confinement.
        "user": {"uid": facts.who.uid, "gid": facts.who.gid, "additionalGids": list(facts.who.groups)},
        "args": list(spec.args),
        "env": _environment(spec.env, facts.who.home),
        "cwd": spec.cwd or "/",
        # For others than root the kernel would clear these at execve; with them a runtime may refuse.
        "capabilities": {"bounding": names, "effective": active, "permitted": active},
        "rlimits": [
            {"type": f"RLIMIT_{name.upper()}", "soft": _limit(soft), "hard": _limit(hard)}
            for name, (soft, hard) in sorted(spec.rlimits.items())
        ],
        "noNewPrivileges": spec.no_new_privileges,
    }
    if any(spec.tty_size):
        document["consoleSize"] = {"height": spec.tty_size[0], "width": spec.tty_size[1]}
    if spec.apparmor_profile:
        document["apparmorProfile"] = spec.apparmor_profile
    if spec.oom_score_adj is not None:
        document["oomScoreAdj"] = spec.oom_score_adj
    return document


def _kept(spec: ProcessSpec, facts: Facts, *, is_privileged: bool) -> int:
    names = capabilities.known() if is_privileged and not spec.capabilities else spec.capabilities
    return capabilities.mask_of(names) & facts.available


def _environment(entries: Iterable[str], home: str) -> list[str]:
    """The last of several entries of one name wins; HOME is the user's unless it is given."""
    found: dict[str, str] = {}
    for entry in entries:
        name, equals, value = entry.partition("=")
        if equals and name:
            found[name] = value
    if not found.get("HOME"):
        found["HOME"] = home
    return [f"{name}={value}" for name, value in found.items()]


def _limit(value: int) -> int:
    return _UNLIMITED if value < 0 else value


def _linux(spec: ContainerSpec, facts: Facts) -> dict[str, Any]:
    masked, read_only = spec.masked_paths, spec.read_only_paths
    if spec.is_privileged:
        masked, read_only = masked or (), read_only or ()
    if masked is None:
        masked = (*defaults.MASKED_PATHS, *defaults.thermal_paths(facts.cpu_count))
    document: dict[str, Any] = {
        "namespaces": _namespaces(spec),
        "cgroupsPath": f"/{facts.cgroup_path}",
        "devices": [_device(device) for device in _devices(spec, facts)],
        "resources": {"devices": _device_rules(spec), **_resources(spec.resources, facts.missing_limits)},
        "maskedPaths": list(masked),
        "readonlyPaths": list(defaults.READ_ONLY_PATHS if read_only is None else read_only),
        "sysctl": _sysctls(spec),
    }
    if facts.propagation:
        document["rootfsPropagation"] = facts.propagation
    process = spec.process
    if process.has_seccomp:
        kept = frozenset(capabilities.names_of(_kept(process, facts, is_privileged=spec.is_privileged)))
        filters = seccomp_document(
            process.seccomp_profile,
            kept,
            facts.machine,
            facts.release,
            is_hardened=process.has_hardened_seccomp,
        )
        if filters is not None:
            document["seccomp"] = filters
    return document


def _namespaces(spec: ContainerSpec) -> list[dict[str, str]]:
    found = [{"type": "mount"}]
    for kind, value in (
        ("network", spec.network),
        ("ipc", spec.ipc),
        ("uts", spec.uts),
        ("pid", spec.pid),
        ("cgroup", spec.cgroupns),
    ):
        if value in _OWN:
            found.append({"type": kind})
        elif value != "host":
            found.append({"type": kind, "path": value})
    return found


def _sysctls(spec: ContainerSpec) -> dict[str, str]:
    values = dict(spec.sysctls)
    if spec.domainname and spec.uts != "host":
        values.setdefault("kernel.domainname", spec.domainname)
    return values


def _devices(spec: ContainerSpec, facts: Facts) -> list[DeviceSpec]:
    """What is made beside the nodes that every runtime makes on its own."""
    host = facts.host_devices if spec.is_privileged else ()
    found = {os.path.normpath(device.path): device for device in (*host, *spec.devices)}
    return [device for path, device in found.items() if path not in _DEFAULT_PATHS]


def _device(device: DeviceSpec) -> dict[str, Any]:
    return {
        "path": device.path,
        "type": device.kind,
        "major": device.major,
        "minor": device.minor,
        "fileMode": device.mode,
        "uid": device.uid,
        "gid": device.gid,
    }


def _device_rules(spec: ContainerSpec) -> list[dict[str, Any]]:
    if spec.is_privileged:
        return [{"allow": True, "access": "rwm"}]
    rules = [
        *map(parse_rule, defaults.DEVICE_RULES),
        *(DeviceRule(item.kind, item.major, item.minor, item.access) for item in spec.devices),
        *map(parse_rule, spec.device_rules),
    ]
    return [{"allow": False, "access": "rwm"}, *map(_device_rule, rules)]


def _device_rule(rule: DeviceRule) -> dict[str, Any]:
    document: dict[str, Any] = {"allow": True, "type": rule.kind, "access": rule.access}
    if rule.major is not None:
        document["major"] = rule.major
    if rule.minor is not None:
        document["minor"] = rule.minor
    return document


def _resources(resources: ResourceSpec, missing: frozenset[str]) -> dict[str, Any]:
    """Limits, as far as the kernel has them; they are in force already, and some runtimes build on them."""
    limits = Limits(**asdict(resources))
    quota, period = limits.quota()
    memory: dict[str, tuple[str, int | str]] = {
        "limit": ("memory limit", limits.memory_limit_bytes),
        "reservation": ("memory reservation", limits.memory_reservation_bytes),
        "swap": ("swap limit", limits.memory_and_swap()),
        "disableOOMKiller": ("OOM kill disable", limits.oom_kill_disable),
    }
    cpu: dict[str, tuple[str, int | str]] = {
        "shares": ("CPU shares", limits.cpu_shares),
        "quota": ("CPU quota", quota),
        "period": ("CPU quota", period),
        "cpus": ("cpuset", limits.cpuset_cpus),
        "mems": ("cpuset", limits.cpuset_mems),
    }
    groups: dict[str, dict[str, tuple[str, int | str]]] = {
        "memory": memory,
        "cpu": cpu,
        "pids": {"limit": ("pids limit", limits.pids_limit or 0)},
        "blockIO": {"weight": ("blkio weight", limits.blkio_weight)},
    }
    written = {
        group: {name: value for name, (limit, value) in rows.items() if value and limit not in missing}
        for group, rows in groups.items()
    }
    return {group: rows for group, rows in written.items() if rows}
