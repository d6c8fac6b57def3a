"""What a supervisor is asked to run: fully resolved, no look-ups left but the user's name.

A spec is a value: the engine builds it from a container's configuration and an image,
stores nothing of it, and hands it as JSON to the zygote. Paths that start with the
container's root are bytes to the container and are resolved only through the rooted
resolver, by init, after the root is mounted.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = [
    "AttachSpec",
    "ContainerSpec",
    "DeviceSpec",
    "EndpointSpec",
    "ExecSpec",
    "ExitRecord",
    "IdMapping",
    "LogServiceSpec",
    "LogSpec",
    "MountSpec",
    "NameServerSpec",
    "ProcessSpec",
    "ResourceSpec",
    "RootSpec",
    "RuntimeSpec",
    "UserNamespaceSpec",
    "to_json",
]


@dataclass(frozen=True, slots=True)
class RootSpec:
    """The overlay that becomes `/`: directories of mounted layers, topmost first.

    `upper` and `work` are None for a read-only view. All are host paths inside our own
    state, never influenced by an image.
    """

    lowers: tuple[str, ...]
    upper: str | None
    work: str | None
    is_read_only: bool = False
    is_mapped: bool = False  # the directories hold the container's own ids: mount them idmapped


@dataclass(frozen=True, slots=True)
class MountSpec:
    """One extra mount: `kind` is bind, tmpfs or mqueue; `source` is a host path for bind.

    `options` are fstab words: ro, nosuid, nodev, noexec, rbind, rprivate, size=..., mode=...
    `idmap` (with `rbind`: the mounts below, too) shows a bind's owners as the container's ids.
    `data` mounts that the engine made itself (hosts, hostname, resolv.conf) are plain binds.
    """

    kind: str
    target: str
    source: str = ""
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DeviceSpec:
    """A device node to create in /dev, and what the cgroup allows with it (`rwm`)."""

    path: str
    kind: str  # "c" or "b"
    major: int
    minor: int
    mode: int = 0o666
    uid: int = 0
    gid: int = 0
    access: str = "rwm"


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """A process: argv, environment, directory, user, confinement.

    `user` is Docker's string: `""`, `name`, `uid`, `name:group`, `uid:gid`; looked up in the
    container's passwd and group by init. `extra_groups` are names or ids. Capabilities are
    names without `CAP_`. `seccomp` is None for unconfined, else a policy as in
    `runtime/seccomp.py`. `rlimits` maps `nofile` to (soft, hard). Size is rows, columns.
    """

    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    cwd: str = "/"
    user: str = ""
    extra_groups: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    has_seccomp: bool = True
    seccomp_profile: dict[str, Any] | None = None  # Docker's JSON; None = our default policy
    has_hardened_seccomp: bool = False  # our default policy, narrower
    apparmor_profile: str = ""  # "" = none
    no_new_privileges: bool = False
    rlimits: dict[str, tuple[int, int]] = field(default_factory=dict)
    oom_score_adj: int | None = None
    has_tty: bool = False
    tty_size: tuple[int, int] = (0, 0)
    has_stdin: bool = False
    stdin_once: bool = False


@dataclass(frozen=True, slots=True)
class ResourceSpec:
    """cgroup limits; None or 0 = no limit. Sizes in bytes, cpu in Docker's units."""

    memory_limit_bytes: int = 0
    memory_reservation_bytes: int = 0
    memory_swap_bytes: int = 0  # memory + swap; -1 = unlimited; 0 = twice the memory (v1) as Docker
    nano_cpus: int = 0
    cpu_shares: int = 0
    cpu_period_us: int = 0
    cpu_quota_us: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    blkio_weight: int = 0
    pids_limit: int | None = None  # None = the engine's default, -1 = unlimited
    oom_kill_disable: bool = False
    memory_swappiness: int | None = None
    cpu_rt_period_us: int = 0
    cpu_rt_runtime_us: int = 0
    blkio_weight_devices: tuple[str, ...] = ()  # `major:minor weight`
    blkio_read_bps: tuple[str, ...] = ()  # `major:minor rate`, and so on
    blkio_write_bps: tuple[str, ...] = ()
    blkio_read_iops: tuple[str, ...] = ()
    blkio_write_iops: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LogServiceSpec:
    """Who else is sent the log: syslog, journald, fluentd or gelf; `address` is a URL, "" = /dev/log.

    `settings` are the values of the kind's options (`engine/logservices.py`), `attributes` the labels and
    variables that go with every line.
    """

    kind: str
    address: str
    tag: str
    container_id: str
    container_name: str = ""
    image_id: str = ""
    image_name: str = ""
    command: str = ""
    created_ns: int = 0
    attributes: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LogSpec:
    """Where the supervisor writes the log, and how much of it is kept; driver `none` writes nothing.

    `is_compressed`: files that are full are compressed, later, by a process of its own.
    """

    driver: str
    directory: str
    max_size_bytes: int = 20 << 20
    max_files: int = 5
    is_compressed: bool = False
    service: LogServiceSpec | None = None


@dataclass(frozen=True, slots=True)
class IdMapping:
    """`size` ids of the container from `container_id` on are those of the host from `host_id` on."""

    container_id: int
    host_id: int
    size: int


@dataclass(frozen=True, slots=True)
class UserNamespaceSpec:
    """A user namespace of the container's own, which then owns all its other new namespaces.

    With `path` the one of another container is joined; the mappings say what it has. Which files
    are idmapped is said where they are named: `RootSpec.is_mapped`, `idmap` among a bind's options.
    """

    uids: tuple[IdMapping, ...]
    gids: tuple[IdMapping, ...]
    path: str = ""


@dataclass(frozen=True, slots=True)
class RuntimeSpec:
    """Another OCI runtime, driven in the place of ours: an absolute path and arguments that come first."""

    name: str
    path: str
    args: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EndpointSpec:
    """An interface of a container's own network namespace, wired to a bridge of the host.

    Addresses carry their prefix length; `gateways` are the default routes, of this endpoint only if
    it is the one that leads out. `host_name` is the other end's name, unique on the host. An
    isolated endpoint reaches the gateway, not its neighbours.
    """

    id: str
    name: str
    host_name: str
    bridge: str
    mac: str
    addresses: tuple[str, ...]
    gateways: tuple[str, ...] = ()
    mtu: int = 0
    is_isolated: bool = False


@dataclass(frozen=True, slots=True)
class NameServerSpec:
    """What the container's own name server knows: files of its networks' names, and whom it asks for others.

    `zones` are paths (see `zones.py`); without `upstreams`, as on an internal network, it asks nobody.
    `links` are names that only this container has for others: `db` leads where `postgres` does.
    """

    zones: tuple[str, ...]
    upstreams: tuple[str, ...] = ()
    links: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """Everything a supervisor needs to start and keep one container."""

    id: str
    run_dir: str  # tmpfs directory of this container, mode 0700, made by the engine
    root: RootSpec
    process: ProcessSpec
    log: LogSpec
    hostname: str = ""
    domainname: str = ""
    mounts: tuple[MountSpec, ...] = ()
    devices: tuple[DeviceSpec, ...] = ()
    device_rules: tuple[str, ...] = ()  # `c 1:3 rwm`, Docker's --device-cgroup-rule
    is_privileged: bool = False
    masked_paths: tuple[str, ...] | None = None  # None = the default list
    read_only_paths: tuple[str, ...] | None = None
    has_writable_cgroup: bool = False
    sysctls: dict[str, str] = field(default_factory=dict)
    network: str = "none"  # "none" (own namespace, loopback up), "host", or a namespace's path
    endpoints: tuple[EndpointSpec, ...] = ()  # of a namespace of its own
    name_server: NameServerSpec | None = None  # at 127.0.0.11, on networks with names
    ipc: str = "private"  # private, host, none, shareable, or a namespace's path
    pid: str = "private"  # private, host, or a namespace's path
    uts: str = "private"  # private or host
    cgroupns: str = "private"  # private or host
    cgroup_parent: str = ""
    shm_size_bytes: int = 64 << 20
    resources: ResourceSpec = ResourceSpec()
    has_init: bool = False  # reap zombies and forward signals as pid 1
    user_namespace: UserNamespaceSpec | None = None  # None: the host's
    runtime: RuntimeSpec | None = None  # None = the embedded one


@dataclass(frozen=True, slots=True)
class AttachSpec:
    """What one attached stream carries; its socket travels beside this as an fd.

    The socket is a connected SOCK_STREAM pair end. From the supervisor come Docker stdcopy
    frames (or raw bytes with a TTY); to it go stdin bytes; shutdown(WR) closes stdin.
    """

    has_stdin: bool
    has_stdout: bool
    has_stderr: bool


@dataclass(frozen=True, slots=True)
class ExecSpec:
    """A further process in a running container."""

    id: str
    process: ProcessSpec
    is_privileged: bool = False


@dataclass(frozen=True, slots=True)
class ExitRecord:
    """How a container ended. `error` is set when it never ran (then the code is 126, 127 or 128)."""

    exit_code: int
    finished_at_ns: int
    is_oom_killed: bool = False
    error: str = ""
    started_at_ns: int = 0


def to_json(
    spec: ContainerSpec | ExecSpec | AttachSpec | ExitRecord | ResourceSpec | EndpointSpec | NameServerSpec,
) -> dict[str, Any]:
    """The spec as plain JSON values."""
    return asdict(spec)
