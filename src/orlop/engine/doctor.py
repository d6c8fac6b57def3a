"""`orlop doctor`: what this host can and cannot enforce, what follows from it, what would help.

`read_facts` looks; `diagnose` is pure: facts in, one finding per ability out. A finding is `missing` and
required only where containers cannot run at all without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orlop.kernel import devicefilter, hostfeatures, probe
from orlop.kernel.cgroup import Mode
from orlop.kernel.filesystems import LayerStyle
from orlop.runtime.apparmor import AppArmorHost

if TYPE_CHECKING:
    from orlop.kernel.hostfeatures import FilesystemFacts
    from orlop.kernel.probe import Abilities

__all__ = ["LIMITED", "MISSING", "OK", "Diagnosis", "DoctorFacts", "Finding", "diagnose", "read_facts"]

OK, LIMITED, MISSING = "ok", "limited", "missing"
_WANTED_CONTROLLERS = ("memory", "cpu", "cpuset", "pids", "blkio", "freezer", "devices")
_V2_NAMES = {"blkio": "io", "freezer": "", "devices": ""}  # v2 has the last two without a controller


@dataclass(frozen=True, slots=True)
class DoctorFacts:
    """What was found."""

    release: str
    abilities: Abilities
    filesystem: FilesystemFacts
    layer_mounts: str  # file, loop or unpacked: what the engine has chosen
    has_bpf_devices: bool
    has_apparmor: bool
    selinux: str
    landlock_abi: int
    has_ipv6: bool
    has_nftables: bool


@dataclass(frozen=True, slots=True)
class Finding:
    """One ability of the host. `consequence` and `hint` are empty when it is ok."""

    name: str
    status: str
    detail: str = ""
    consequence: str = ""
    hint: str = ""
    is_required: bool = False


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All findings, and whether containers can run."""

    can_run: bool
    findings: tuple[Finding, ...]


def read_facts(data_root: str, release: str, layer_mounts: str) -> DoctorFacts:
    """Look at the running kernel and the data root: a few milliseconds, without effect."""
    return DoctorFacts(
        release=release,
        abilities=probe.abilities(),
        filesystem=hostfeatures.filesystem_facts(data_root),
        layer_mounts=layer_mounts,
        has_bpf_devices=devicefilter.can_load(),
        has_apparmor=AppArmorHost().is_enabled(),
        selinux=hostfeatures.selinux_mode(),
        landlock_abi=hostfeatures.landlock_abi(),
        has_ipv6=hostfeatures.has_ipv6(),
        has_nftables=hostfeatures.has_nftables(),
    )


def diagnose(facts: DoctorFacts) -> Diagnosis:
    """The findings, from what is required to what is nice to have."""
    findings = tuple(_findings(facts))
    return Diagnosis(not any(item.is_required and item.status == MISSING for item in findings), findings)


def _findings(facts: DoctorFacts) -> Iterator[Finding]:
    yield from _kernel(facts)
    yield from _cgroups(facts)
    yield from _confinement(facts)
    yield from _storage(facts)
    yield from _network(facts)


def _kernel(facts: DoctorFacts) -> Iterable[Finding]:
    able, nothing = facts.abilities, "containers cannot run"
    yield Finding("kernel", OK, facts.release)
    yield _required("openat2", able.openat2, nothing, "Linux 5.6 or newer is needed")
    yield _required("pidfd", able.pidfd, nothing, "Linux 5.3 or newer is needed")
    yield _either(
        "clone into cgroup",
        able.clone_into_cgroup,
        LIMITED,
        "a container's first process joins its cgroup shortly after it is born, by itself",
        "mount the unified cgroup hierarchy (Linux 5.7)",
    )


def _cgroups(facts: DoctorFacts) -> Iterable[Finding]:
    able = facts.abilities
    if able.cgroup_mode is Mode.NONE:
        yield Finding(
            "cgroups",
            MISSING,
            "",
            "containers cannot run",
            "mount cgroup2 at /sys/fs/cgroup",
            is_required=True,
        )
        return
    version = "v2" if able.cgroup_mode is Mode.V2 else "v1"
    yield Finding(
        "cgroups", OK, version if version == "v2" or not able.clone_into_cgroup else "v1 and v2 (hybrid)"
    )
    for wanted in _WANTED_CONTROLLERS:
        name = _V2_NAMES.get(wanted, wanted) if version == "v2" else wanted
        if name and wanted != "devices":
            yield _either(
                f"cgroup {name}",
                name in able.cgroup_controllers,
                MISSING,
                f"limits that need {name} are accepted with a warning and not enforced",
                f"enable the {name} controller",
            )
    filters = facts.has_bpf_devices if version == "v2" else "devices" in able.cgroup_controllers
    detail = "BPF" if version == "v2" else "v1 controller"
    yield (
        Finding("device filter", OK, detail)
        if filters
        else Finding(
            "device filter",
            MISSING,
            "",
            "a container that may make device nodes can open any of the host's devices",
            "enable CONFIG_CGROUP_BPF, or the devices controller; drop MKNOD until then",
        )
    )


def _confinement(facts: DoctorFacts) -> Iterable[Finding]:
    able = facts.abilities
    yield _either(
        "seccomp",
        able.seccomp,
        MISSING,
        "containers start only with --security-opt seccomp=unconfined",
        "enable CONFIG_SECCOMP_FILTER",
    )
    yield _either(
        "AppArmor",
        facts.has_apparmor,
        MISSING,
        "no profile beside capabilities and seccomp; --security-opt apparmor=NAME is refused",
        "boot with security=apparmor where the distribution has it",
    )
    yield Finding("SELinux", LIMITED if facts.selinux else MISSING, facts.selinux, *_SELINUX)
    yield _either(
        "user namespaces",
        able.user_namespaces,
        MISSING,
        "root in a container is root's uid on the host; --userns modes are refused",
        "raise user.max_user_namespaces",
    )
    yield (
        Finding("Landlock", OK, f"ABI {facts.landlock_abi}")
        if facts.landlock_abi
        else Finding(
            "Landlock",
            MISSING,
            "",
            "workers that read hostile archives can open files of the host",
            "enable CONFIG_SECURITY_LANDLOCK (Linux 5.13)",
        )
    )


_SELINUX = (
    "containers get no label of their own; label=disable is the only one taken",
    "AppArmor, seccomp and user namespaces are what this engine confines with",
)


def _storage(facts: DoctorFacts) -> Iterable[Finding]:
    able, system = facts.abilities, facts.filesystem
    ways = {
        LayerStyle.FD: "layers by descriptor",
        LayerStyle.STRING: "layers by name",
        LayerStyle.MOUNT: "mount(2)",
    }
    style = able.overlay_layers
    yield (
        Finding("overlay", OK, ways[style])
        if style is not None
        else Finding(
            "overlay", MISSING, "", "containers cannot run", "load the overlay module", is_required=True
        )
    )
    layers = {
        "file": (OK, "EROFS from files", "", ""),
        "loop": (
            LIMITED,
            "EROFS through loop devices",
            "one loop device per layer",
            "Linux 6.12 mounts files",
        ),
    }
    unpacked = (LIMITED, "unpacked", "layers take longer to pull and more space", "load the erofs module")
    yield Finding("layer mounts", *layers.get(facts.layer_mounts, unpacked))
    yield _on(
        system.kind, "idmapped mounts", system.has_idmapped_mounts, "user namespaces cannot share its files"
    )
    yield _on(
        system.kind, "project quota", system.has_project_quota, "no size limit for one container's files"
    )
    yield _on(
        system.kind, "fs-verity", system.has_verity, "layers are verified when asked, not at every read"
    )


def _on(kind: str, name: str, has_it: bool, consequence: str) -> Finding:
    where = f"on {kind or 'an unknown file system'}"
    hint = "" if has_it else "another file system, or other mount options, below the data root"
    return Finding(name, OK if has_it else LIMITED, where, "" if has_it else consequence, hint)


def _network(facts: DoctorFacts) -> Iterable[Finding]:
    yield _either(
        "nftables", facts.has_nftables, LIMITED, "ports cannot be published", "load the nf_tables module"
    )
    yield _either("IPv6", facts.has_ipv6, LIMITED, "containers have IPv4 only", "boot without ipv6.disable=1")


def _either(name: str, has_it: bool, otherwise: str, consequence: str, hint: str) -> Finding:
    return Finding(name, OK) if has_it else Finding(name, otherwise, "", consequence, hint)


def _required(name: str, has_it: bool, consequence: str, hint: str) -> Finding:
    return Finding(name, OK) if has_it else Finding(name, MISSING, "", consequence, hint, is_required=True)
