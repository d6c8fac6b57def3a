"""What a container gets when nobody says otherwise, as Docker has it. Pure data."""

from __future__ import annotations

__all__ = ["CAPABILITIES", "DEVICE_RULES", "MASKED_PATHS", "NAMESPACED_SYSCTLS", "READ_ONLY_PATHS"]

CAPABILITIES = (
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
)
"""Docker's fourteen, in Docker's order."""

MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/fs/selinux",  # Podman's addition
)
"""Covered, where they exist: they tell about the host or let it be measured (side channels).

Every CPU's thermal_throttle belongs here too: see `thermal_paths`.
"""

READ_ONLY_PATHS = (
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
)

DEVICE_RULES = (
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",  # null
    "c 1:5 rwm",  # zero
    "c 1:7 rwm",  # full
    "c 1:8 rwm",  # random
    "c 1:9 rwm",  # urandom
    "c 5:0 rwm",  # tty
    "c 5:1 rwm",  # console
    "c 5:2 rwm",  # ptmx
    "c 136:* rwm",  # pts
)
"""Everything else is denied. A node may be made, not opened: images unpack with their device nodes."""

NAMESPACED_SYSCTLS = (
    "fs.mqueue.",
    "kernel.domainname",
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
    "net.",
)
"""Names, or prefixes ending in a dot, of the settings that belong to a namespace (runc's list)."""


def thermal_paths(cpu_count: int) -> tuple[str, ...]:
    """The thermal counters of each CPU, to be masked as well."""
    return tuple(f"/sys/devices/system/cpu/cpu{n}/thermal_throttle" for n in range(cpu_count))
