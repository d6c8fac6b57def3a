"""What this machine is, read once at start: the facts of `docker info` and `docker version`."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass

from orlop.kernel import cgroup
from orlop.kernel.cgroup_support import Support, read_support
from orlop.oci.platform import host_platform
from orlop.runtime.apparmor import AppArmorHost

__all__ = ["HostFacts", "is_forwarding", "read_host_facts", "read_pid_max"]


@dataclass(frozen=True, slots=True)
class HostFacts:
    """Facts that do not change while the engine runs; sizes in bytes."""

    hostname: str
    kernel_version: str
    machine: str  # uname's: x86_64
    architecture: str  # Go's: amd64
    operating_system: str
    os_version: str
    cpu_count: int
    memory_bytes: int
    cgroup_version: int
    support: Support
    has_seccomp: bool
    has_apparmor: bool = False


def read_host_facts() -> HostFacts:
    """Look at the running kernel. Missing files are facts, too: nothing here fails."""
    uname = os.uname()
    host = cgroup.detect()
    release = _os_release(_read("/etc/os-release") or _read("/usr/lib/os-release"))
    return HostFacts(
        hostname=uname.nodename,
        kernel_version=uname.release,
        machine=uname.machine,
        architecture=host_platform().architecture,
        operating_system=release.get("PRETTY_NAME") or release.get("NAME") or "Linux",
        os_version=release.get("VERSION_ID", ""),
        cpu_count=len(os.sched_getaffinity(0)),
        memory_bytes=_memory_bytes(_read("/proc/meminfo")),
        cgroup_version=host.version,
        support=read_support(host),
        has_seccomp="\nSeccomp:" in _read("/proc/self/status"),
        has_apparmor=AppArmorHost().is_enabled(),
    )


def is_forwarding() -> bool:
    """IPv4 forwarding now: it may be switched while we run."""
    return _read("/proc/sys/net/ipv4/ip_forward").strip() == "1"


def read_pid_max() -> int:
    """How many process ids there are; 0 = unknown."""
    text = _read("/proc/sys/kernel/pid_max").strip()
    return int(text) if text.isdecimal() else 0


def _os_release(text: str) -> dict[str, str]:
    """Spec: os-release(5)."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if not equals or name.startswith("#"):
            continue
        try:
            values[name.strip()] = "".join(shlex.split(value)[:1])
        except ValueError:
            continue
    return values


def _memory_bytes(meminfo: str) -> int:
    for line in meminfo.splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return 0


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(1 << 20)
    except OSError:
        return ""
