"""From a container's record to the spec that a supervisor runs.

Pure but for the host's devices (`privileges.devices`). Nothing of the image decides about
privileges here: only HostConfig and the engine's own settings do.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from orlop.engine import privileges, securityopts, userns
from orlop.engine.blockdevices import device_limits
from orlop.engine.cdi_inject import inject
from orlop.engine.hostconfig import MASKED_PATHS, HostDefaults
from orlop.engine.idmaps import IdMap
from orlop.engine.logdrivers import log_spec
from orlop.engine.merge import process_env
from orlop.engine.model import MountRecord, Record
from orlop.engine.requests import HostConfig
from orlop.runtime.spec import (
    ContainerSpec,
    MountSpec,
    ProcessSpec,
    ResourceSpec,
    RootSpec,
)

__all__ = ["MOUNT_STUBS", "Namespaces", "Paths", "build_spec", "process_spec", "resource_spec"]

MOUNT_STUBS = ("dev", "proc", "sys", "etc/hostname", "etc/hosts", "etc/resolv.conf")
"""Where every container has mounts of ours. What an image lacks of these is made: no change of the user's."""


@dataclass(frozen=True, slots=True)
class Paths:
    """Where a container's own files are on the host."""

    run_dir: str
    log_dir: str
    hostname: str
    hosts: str
    resolv_conf: str


@dataclass(frozen=True, slots=True)
class Namespaces:
    """Namespaces to share, resolved: `host`, `private`, `none` or a path below /proc."""

    network: str = "none"
    ipc: str = "private"
    pid: str = "private"
    user: str = ""  # the one to join, of a container that has none of its own


def build_spec(
    record: Record, root: RootSpec, paths: Paths, namespaces: Namespaces, defaults: HostDefaults
) -> ContainerSpec:
    """The spec of one start.

    Raises:
        InvalidInput: a device is gone, a profile is bad: what cannot be known at create.
    """
    host, config = record.host, record.config
    spec = ContainerSpec(
        id=record.id,
        run_dir=paths.run_dir,
        root=replace(root, is_read_only=host.readonly_rootfs, is_mapped=record.id_map is not None),
        process=_process(record, defaults),
        log=log_spec(record, paths.log_dir),
        hostname="" if host.uts_mode == "host" else config.hostname,
        domainname="" if host.uts_mode == "host" else config.domainname,
        mounts=(
            *_own_files(record, paths),
            *(_mount_spec(mount, record.id_map) for mount in _by_depth(record.mounts)),
        ),
        devices=privileges.devices(host),
        device_rules=privileges.check_device_rules(host.device_cgroup_rules or ()),
        is_privileged=host.privileged,
        # None: the runtime's list, which has more than inspect shows
        masked_paths=None if host.masked_paths == MASKED_PATHS else host.masked_paths or (),
        read_only_paths=host.readonly_paths or (),
        has_writable_cgroup=_security(host, defaults).has_writable_cgroup,
        sysctls=userns.fit_sysctls(privileges.sysctls(host), host.sysctls, record.id_map),
        network=namespaces.network,
        ipc=namespaces.ipc,
        pid=namespaces.pid,
        uts="host" if host.uts_mode == "host" else "private",
        cgroupns=host.cgroupns_mode or "private",
        cgroup_parent=host.cgroup_parent or defaults.cgroup_parent,
        shm_size_bytes=host.shm_size or defaults.shm_size_bytes,
        resources=resource_spec(host, defaults),
        has_init=defaults.has_init if host.init is None else host.init,
        runtime=defaults.runtimes.choose(host.runtime),
        user_namespace=userns.namespace_spec(record.id_map, namespaces.user),
    )
    return inject(spec, host.device_requests or (), defaults.cdi_spec_dirs)


def _process(record: Record, defaults: HostDefaults) -> ProcessSpec:
    host, config = record.host, record.config
    plain = process_spec(record, defaults, (record.path, *record.args))
    has_size = config.tty and len(host.console_size) == 2
    return replace(
        plain,
        has_tty=config.tty,
        tty_size=(host.console_size[0], host.console_size[1]) if has_size else (0, 0),
        has_stdin=config.open_stdin,
        stdin_once=config.stdin_once,
    )


def process_spec(
    record: Record, defaults: HostDefaults, args: tuple[str, ...], *, is_privileged: bool = False
) -> ProcessSpec:
    """A process of this container without terminal and input: the first, an exec, a health check.

    Args:
        record: of the container.
        defaults: of the engine.
        args: program and arguments.
        is_privileged: `exec --privileged`: every capability, no seccomp.
    """
    host, config = record.host, record.config
    security = _security(host, defaults, is_privileged=is_privileged)
    allowed = replace(host, privileged=True) if is_privileged else host
    return ProcessSpec(
        args=args,
        env=process_env(config, config.hostname),
        cwd=config.working_dir or "/",
        user=config.user,
        extra_groups=host.group_add or (),
        capabilities=privileges.capabilities(allowed),
        has_seccomp=security.has_seccomp,
        seccomp_profile=security.seccomp_profile,
        has_hardened_seccomp=security.has_hardened_seccomp,
        apparmor_profile=security.apparmor_profile,
        no_new_privileges=security.no_new_privileges,
        rlimits=_rlimits(host, defaults),
        oom_score_adj=host.oom_score_adj or None,
    )


def _security(
    host: HostConfig, defaults: HostDefaults, *, is_privileged: bool = False
) -> securityopts.Security:
    return securityopts.parse_security(
        host.security_opt or (), is_privileged=host.privileged or is_privileged, defaults=defaults
    )


def _rlimits(host: HostConfig, defaults: HostDefaults) -> dict[str, tuple[int, int]]:
    limits = {name: (soft, hard) for name, soft, hard in defaults.ulimits}
    for item in host.ulimits or ():
        limits[item.name.lower().removeprefix("rlimit_")] = (item.soft, item.hard)
    return limits


def resource_spec(host: HostConfig, defaults: HostDefaults) -> ResourceSpec:
    """The cgroup limits of a HostConfig; no container is without a limit of pids unless it asks for that."""
    return ResourceSpec(
        memory_limit_bytes=max(host.memory, 0),
        memory_reservation_bytes=host.memory_reservation,
        memory_swap_bytes=host.memory_swap,
        nano_cpus=host.nano_cpus,
        cpu_shares=host.cpu_shares,
        cpu_period_us=host.cpu_period,
        cpu_quota_us=host.cpu_quota,
        cpuset_cpus=host.cpuset_cpus,
        cpuset_mems=host.cpuset_mems,
        blkio_weight=host.blkio_weight,
        pids_limit=defaults.pids_limit if host.pids_limit is None else host.pids_limit,
        oom_kill_disable=bool(host.oom_kill_disable),
        memory_swappiness=host.memory_swappiness,
        cpu_rt_period_us=host.cpu_realtime_period,
        cpu_rt_runtime_us=host.cpu_realtime_runtime,
        **device_limits(host),
    )


def _own_files(record: Record, paths: Paths) -> Iterable[MountSpec]:
    taken = {mount.point.destination for mount in record.mounts}
    for source, target in (
        (paths.resolv_conf, "/etc/resolv.conf"),
        (paths.hostname, "/etc/hostname"),
        (paths.hosts, "/etc/hosts"),
    ):
        if target not in taken:
            mapped = () if record.id_map is None else ("idmap",)
            yield MountSpec("bind", target, source, ("rbind", "rprivate", *mapped))


def _by_depth(mounts: Iterable[MountRecord]) -> list[MountRecord]:
    """Parents before children; the sort is stable."""
    return sorted(mounts, key=lambda mount: mount.point.destination.count("/"))


def _mount_spec(mount: MountRecord, id_map: IdMap | None) -> MountSpec:
    point = mount.point
    if point.type == "tmpfs":
        return MountSpec("tmpfs", point.destination, "", mount.options)
    mapped = ("idmap",) if userns.is_bind_mapped(mount, id_map) else ()
    return MountSpec("bind", point.destination, point.source, (*mount.options, *mapped))
