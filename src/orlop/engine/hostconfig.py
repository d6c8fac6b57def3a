"""HostConfig: defaults decided, contradictions refused, what we cannot give said as warnings.

Pure. Limits have a module of their own, `resources`. The texts are dockerd's: its tests, and
the clients' users, know them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from orlop.base.errors import InvalidInput
from orlop.engine.logdrivers import check_log
from orlop.engine.requests import ContainerConfig, HostConfig, LogConfig
from orlop.engine.resources import fix_swap
from orlop.engine.restart import check_policy
from orlop.engine.runtimes import RuntimeCatalog
from orlop.engine.securityopts import apply_preset, has_bare_system_paths
from orlop.engine.signals import parse_signal
from orlop.engine.userns import asked_mode
from orlop.kernel.cgroup_support import Support

__all__ = [
    "MASKED_PATHS",
    "READ_ONLY_PATHS",
    "HostDefaults",
    "apply_defaults",
    "check_config",
    "check_host",
    "check_words",
    "default_pids_limit",
]

_PIDS_LIMIT = 4096
_DEFAULT_SHM = 64 << 20
_NAMESPACED = ("private", "host", "none", "shareable", "")
_MS = 1_000_000

# Docker's lists; what stands in a container's inspect
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
)
READ_ONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


@dataclass(frozen=True, slots=True)
class HostDefaults:
    """The engine's own settings that a container inherits (`orlopd` flags)."""

    cgroupns_mode: str = "private"
    has_init: bool = False
    log_driver: str = "json-file"
    log_options: tuple[tuple[str, str], ...] = ()
    ulimits: tuple[tuple[str, int, int], ...] = ()  # name, soft, hard
    cgroup_parent: str = ""
    dns: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    no_new_privileges: bool = False
    shm_size_bytes: int = _DEFAULT_SHM
    processors: int = 1
    cdi_spec_dirs: tuple[str, ...] = ()
    support: Support = field(default_factory=Support)  # which limits the kernel has
    default_security: str = "docker"  # or "hardened": `engine.securityopts`
    has_seccomp: bool = True
    seccomp_profile: dict[str, Any] | None = None  # None = our own policy
    runtimes: RuntimeCatalog = field(default_factory=RuntimeCatalog)
    apparmor_profile: str = ""  # "" = this host has no AppArmor
    pids_limit: int = _PIDS_LIMIT  # of containers that ask for none; `default_pids_limit`


def default_pids_limit(pid_max: int) -> int:
    """Tasks of a container that asks for no limit: enough for servers, and the host keeps most of its ids.

    Args:
        pid_max: /proc/sys/kernel/pid_max; 0 = unknown.
    """
    return min(_PIDS_LIMIT, pid_max // 4) if pid_max > 0 else _PIDS_LIMIT


def apply_defaults(host: HostConfig, defaults: HostDefaults) -> HostConfig:
    """Every open choice decided, as inspect will show it."""
    host = apply_preset(host, defaults.default_security)
    if has_bare_system_paths(host.security_opt or ()):
        host = replace(host, masked_paths=(), readonly_paths=())
    policy = host.restart_policy
    if not policy.name:
        policy = replace(policy, name="no")
    network = host.network_mode
    return replace(
        host,
        network_mode="bridge" if network in ("", "default") else network,
        ipc_mode=host.ipc_mode or "private",
        cgroupns_mode=host.cgroupns_mode or ("host" if host.privileged else defaults.cgroupns_mode),
        shm_size=host.shm_size or defaults.shm_size_bytes,
        restart_policy=policy,
        log_config=_default_log(host.log_config, defaults),
        memory_swap=fix_swap(host.memory, host.memory_swap),
        oom_kill_disable=bool(host.oom_kill_disable) if defaults.support.oom_kill_disable else None,
        pids_limit=_asked_pids_limit(host.pids_limit),
        masked_paths=_default_paths(host.masked_paths, MASKED_PATHS, is_privileged=host.privileged),
        readonly_paths=_default_paths(host.readonly_paths, READ_ONLY_PATHS, is_privileged=host.privileged),
        runtime=host.runtime or defaults.runtimes.default,
        dns=host.dns if host.dns is not None else (),
        dns_options=host.dns_options if host.dns_options is not None else (),
        dns_search=host.dns_search if host.dns_search is not None else (),
        console_size=host.console_size if len(host.console_size) == 2 else (0, 0),
    )


def _asked_pids_limit(limit: int | None) -> int | None:
    """None = the engine's default at every start, -1 = none at all."""
    # docker's CLI sends 0 for a flag that was not given
    return max(limit, -1) if limit else None


def _default_log(config: LogConfig, defaults: HostDefaults) -> LogConfig:
    kind = config.type or defaults.log_driver
    inherited = dict(defaults.log_options) if kind == defaults.log_driver else {}
    return LogConfig(kind, {**inherited, **(config.config or {})})


def _default_paths(
    paths: tuple[str, ...] | None, default: tuple[str, ...], *, is_privileged: bool
) -> tuple[str, ...] | None:
    if paths is not None:
        return paths
    return None if is_privileged else default


def check_host(host: HostConfig, config: ContainerConfig, *, has_bridge: bool = False) -> list[str]:
    """Refuse contradictions; returns warnings for what has no effect here."""
    check_policy(host.restart_policy)
    if host.auto_remove and host.restart_policy.name not in ("", "no"):
        raise InvalidInput("can't create 'AutoRemove' container with restart policy")
    if host.shm_size < 0:
        raise InvalidInput("SHM size can not be less than 0")
    if not -1000 <= host.oom_score_adj <= 1000:
        raise InvalidInput(f"Invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]")
    if host.isolation not in ("", "default"):
        raise InvalidInput(f"Invalid isolation: \"{host.isolation[:100]}\" - linux only supports 'default'")
    _check_namespaces(host, config)
    check_log(host.log_config)
    return _network_warnings(host, has_bridge=has_bridge)


def _network_warnings(host: HostConfig, *, has_bridge: bool) -> list[str]:
    warnings = []
    is_published = bool(host.port_bindings or host.publish_all_ports)
    if host.network_mode == "host" and is_published:
        warnings.append("Published ports are discarded when using host network mode")
    elif host.network_mode in ("", "default", "bridge") and not has_bridge:
        warnings.append(
            "This engine has no default network (--bridge none): the container has only a loopback "
            "interface. Use --network host for access to the host's network, or a network of your own."
        )
        if is_published:
            warnings.append("Published ports have no effect without a network.")
    return warnings


def _check_namespaces(host: HostConfig, config: ContainerConfig) -> None:
    ipc, pid, uts, net = host.ipc_mode, host.pid_mode, host.uts_mode, host.network_mode
    if ipc not in _NAMESPACED and not ipc.startswith("container:"):
        raise InvalidInput(f"invalid IPC mode: {ipc[:100]}")
    if pid not in ("", "host") and not pid.startswith("container:"):
        raise InvalidInput(f"invalid PID mode: {pid[:100]}")
    if uts not in ("", "host"):
        raise InvalidInput(f"invalid UTS mode: {uts[:100]}")
    asked_mode(host)
    if host.cgroupns_mode not in ("", "private", "host"):
        raise InvalidInput(f"invalid cgroup namespace mode: {host.cgroupns_mode[:100]}")
    if uts == "host" and (config.hostname or config.domainname):
        raise InvalidInput("conflicting options: hostname and the UTS mode")
    if net.startswith("container:"):
        _check_shared_network(host, config)


def _check_shared_network(host: HostConfig, config: ContainerConfig) -> None:
    suffix = "and the container type network mode"
    if not host.network_mode.removeprefix("container:"):
        raise InvalidInput("Container cannot be linked to an empty container name or id")
    for value, word in (
        (config.hostname, "hostname"),
        (host.links, "links"),
        (host.dns, "dns"),
        (host.extra_hosts, "custom host-to-IP mapping"),
        (config.mac_address, "mac-address"),
        (host.port_bindings, "port publishing"),
        (host.publish_all_ports, "port publishing"),
        (config.exposed_ports, "port exposing"),
    ):
        if value:
            mode = "and the network mode" if word == "hostname" else suffix
            raise InvalidInput(f"conflicting options: {word} {mode}")


def check_config(config: ContainerConfig) -> None:
    """Refuse what cannot be in a container's own configuration."""
    if config.working_dir and not config.working_dir.startswith("/"):
        raise InvalidInput(
            f"the working directory '{config.working_dir[:200]}' is invalid, it needs to be an absolute path"
        )
    for item in config.env or ():
        if not item.partition("=")[0]:
            raise InvalidInput(f"invalid environment variable: {item[:100]}")
    check_words(*(config.env or ()), *(config.cmd or ()), *(config.entrypoint or ()), config.working_dir)
    check_words(config.user, config.hostname, config.domainname)
    if config.stop_signal:
        parse_signal(config.stop_signal)
    _check_health(config)


def check_words(*words: str) -> None:
    """Refuse what the kernel cannot take: it ends a word at its first NUL."""
    if any("\0" in word for word in words):
        raise InvalidInput("invalid configuration: a NUL byte in command, environment, directory or name")


def _check_health(config: ContainerConfig) -> None:
    check = config.healthcheck
    if check is None:
        return
    for value, word in (
        (check.interval, "Interval"),
        (check.timeout, "Timeout"),
        (check.start_period, "StartPeriod"),
        (check.start_interval, "StartInterval"),
    ):
        if value and value < _MS:
            raise InvalidInput(f"{word} in Healthcheck cannot be less than 1ms")
    if check.retries < 0:
        raise InvalidInput("Retries in Healthcheck cannot be negative")
    if check.test and check.test[0] not in ("", "NONE", "CMD", "CMD-SHELL"):
        raise InvalidInput(f'Unknown type "{check.test[0][:60]}" in Healthcheck')
