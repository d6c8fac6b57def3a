"""The `process` object as a plan of the runtime: encoded, compiled, labels checked against the host."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from orlop.base import log
from orlop.bundle.config import Capabilities, Process
from orlop.bundle.config_linux import LinuxConfig
from orlop.bundle.refusal import Refused, Unsupported
from orlop.kernel import capabilities, scheduling
from orlop.kernel.capabilities import CapabilitySets
from orlop.runtime import seccomp
from orlop.runtime.confine import LIMITS, ProcessPlan

__all__ = ["Extras", "plan_extras", "plan_process"]

_APPARMOR = "/sys/module/apparmor/parameters/enabled"
_SELINUX = "/sys/fs/selinux/enforce"


@dataclass(frozen=True, slots=True)
class Extras:
    """What a process takes on beside its plan, before it changes its ids."""

    exec_label: bytes = b""  # SELinux, for /proc/self/attr/exec
    personality: int | None = None
    io_priority: tuple[int, int] | None = None
    scheduling: scheduling.Scheduling | None = None
    cpus: frozenset[int] = frozenset()


def plan_process(process: Process, linux: LinuxConfig) -> ProcessPlan:
    """Encode and compile.

    Raises:
        Refused: an unknown capability or limit.
        InvalidInput: the seccomp profile is malformed or beyond what we do.
    """
    sets = _sets(process.capabilities or Capabilities())
    names = frozenset(capabilities.names_of(sets.bounding))
    unknown = [name for name in process.rlimits if name.removeprefix("RLIMIT_").lower() not in LIMITS]
    if unknown:
        raise Refused(f"invalid rlimit type {unknown[0]}")
    return ProcessPlan(
        args=tuple(os.fsencode(arg) for arg in process.args),
        env=_environment(process.env),
        cwd=process.cwd,
        user=f"{process.user.uid}:{process.user.gid}",
        extra_groups=tuple(str(gid) for gid in process.user.additional_gids),
        capabilities=sets.bounding,
        filter=None if linux.seccomp is None else seccomp.compile_profile(linux.seccomp, names),
        apparmor_profile=process.apparmor_profile,
        no_new_privileges=process.no_new_privileges,
        rlimits=tuple(
            (name.removeprefix("RLIMIT_").lower(), _limit(soft), _limit(hard))
            for name, (soft, hard) in process.rlimits.items()
        ),
        has_tty=process.has_terminal,
        sets=sets,
        umask=0o022 if process.user.umask is None else process.user.umask,
        dies_with_parent=False,
    )


def plan_extras(process: Process, linux: LinuxConfig) -> Extras:
    """Labels, scheduling, personality.

    Raises:
        Unsupported: the host has no such security module: running without is not what was asked.
    """
    domain = {"LINUX": scheduling.PER_LINUX, "LINUX32": scheduling.PER_LINUX32}.get(linux.personality_domain)
    io_priority = None
    if process.io_priority is not None:
        io_class, priority = process.io_priority
        if io_class not in scheduling.IO_CLASSES:
            raise Refused(f"invalid ioPriority.class {io_class!r}")
        io_priority = (scheduling.IO_CLASSES[io_class], priority)
    return Extras(
        exec_label=_label(process, linux),
        personality=domain,
        io_priority=io_priority,
        scheduling=_scheduling(process.scheduler),
        cpus=_cpus(process.exec_cpu_affinity[1]),
    )


def _sets(given: Capabilities) -> CapabilitySets:
    """What the host has taken from us we cannot give; runc passes over such capabilities, too."""
    available = capabilities.current().permitted
    wanted = {name for item in fields(given) for name in getattr(given, item.name)}
    refused = [
        name for name in sorted(wanted) if not _is_known(name) or not 1 << capabilities.bit(name) & available
    ]
    if refused:  # config.md, "Linux Process": a warning, no failure
        log.warning("capabilities that cannot be given", capabilities=",".join(refused)[:1024])

    def mask(names: Sequence[str]) -> int:
        return capabilities.mask_of(name for name in names if _is_known(name)) & available

    permitted, inheritable = mask(given.permitted), mask(given.inheritable)
    for name in capabilities.names_of(mask(given.ambient) & ~(permitted & inheritable)):
        log.warning(f"can't raise ambient capability CAP_{name}: it is not permitted and inheritable")
    return CapabilitySets(
        effective=mask(given.effective) & permitted,
        permitted=permitted,
        inheritable=inheritable,
        bounding=mask(given.bounding),
        ambient=mask(given.ambient) & permitted & inheritable,
    )


def _is_known(name: str) -> bool:
    """Unknown names are passed over, as the spec now asks (config.md, "Linux Process")."""
    return name.upper().removeprefix("CAP_") in capabilities.ALL_NAMES


def _environment(entries: Sequence[str]) -> dict[bytes, bytes]:
    found = {}
    for entry in entries:
        name, equals, value = os.fsencode(entry).partition(b"=")
        if not equals or not name:
            raise Refused(f"invalid environment variable {entry[:80]!r}")
        found[name] = value
    return found


def _limit(value: int) -> int:
    return -1 if value >= 2**63 else value  # RLIM_INFINITY is all ones


def _label(process: Process, linux: LinuxConfig) -> bytes:
    if process.apparmor_profile and _read(_APPARMOR) != "Y":
        raise Unsupported("apparmor is not enabled on this host, but process.apparmorProfile is set")
    if (process.selinux_label or linux.mount_label) and not _read(_SELINUX):
        raise Unsupported("selinux label is specified in config, but selinux is disabled or not supported")
    return os.fsencode(process.selinux_label)


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read(16).strip()
    except OSError:
        return ""


def _scheduling(document: Mapping[str, Any] | None) -> scheduling.Scheduling | None:
    if not document:
        return None
    numbers = {}
    for key in ("nice", "priority", "runtime", "deadline", "period"):
        value = document.get(key) or 0
        if type(value) is not int or not -(2**31) <= value < 2**64:
            raise Refused(f"process.scheduler.{key}: is not a number")
        numbers[key] = value
    policy, flags = document.get("policy"), document.get("flags") or []
    if policy not in scheduling.POLICIES:
        raise Refused(f"invalid scheduler policy {str(policy)[:40]!r}")
    if not isinstance(flags, list) or any(flag not in scheduling.FLAGS for flag in flags):
        raise Refused("process.scheduler.flags: a flag is unknown")
    return scheduling.Scheduling(
        scheduling.POLICIES[policy],
        numbers["nice"],
        numbers["priority"],
        sum(scheduling.FLAGS[flag] for flag in set(flags)),
        numbers["runtime"],
        numbers["deadline"],
        numbers["period"],
    )


def _cpus(text: str) -> frozenset[int]:
    """`0-2,4` as numbers."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or int(last or first) > 8191:
            raise Refused(f"invalid CPU list {text[:80]!r}")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)
