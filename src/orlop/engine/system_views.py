"""What `info`, `version`, `system df` and `auth` answer.

Spec: Docker Engine API v1.51: SystemInfo, SystemVersion, SystemDataUsageResponse, SystemAuthResponse.
"""

from __future__ import annotations

from dataclasses import dataclass

from orlop.engine.logdrivers import DRIVERS
from orlop.wire.gojson import field

__all__ = [
    "AuthResult",
    "Commit",
    "Component",
    "DiscoveredDevice",
    "DiskUsage",
    "IndexConfig",
    "PlatformName",
    "Plugins",
    "RegistryConfig",
    "RuntimeInfo",
    "SwarmInfo",
    "SystemInfo",
    "VersionInfo",
]

Pairs = tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Plugins:
    """Names of what can be chosen."""

    volume: tuple[str, ...] = ("local",)
    network: tuple[str, ...] = ("bridge", "host", "null")
    authorization: tuple[str, ...] | None = None
    log: tuple[str, ...] = DRIVERS


@dataclass(frozen=True, slots=True)
class IndexConfig:
    """One registry."""

    name: str
    mirrors: tuple[str, ...]
    secure: bool
    official: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryConfig:
    """How registries are reached."""

    insecure_registry_cidrs: tuple[str, ...] = field("InsecureRegistryCIDRs")
    index_configs: dict[str, IndexConfig]
    mirrors: tuple[str, ...]
    # removed from the API in 1.49, still read by older clients


@dataclass(frozen=True, slots=True)
class RuntimeInfo:
    """One OCI runtime; ours is part of the engine and has no path."""

    path: str = field("path", omit_empty=True, default="")


@dataclass(frozen=True, slots=True)
class SwarmInfo:
    """Swarm is not part of this engine."""

    node_id: str = field("NodeID", default="")
    node_addr: str = ""
    local_node_state: str = "inactive"
    control_available: bool = False
    error: str = ""
    remote_managers: None = None


@dataclass(frozen=True, slots=True)
class Commit:
    """The version of a helper program."""

    id: str = field("ID", default="")


@dataclass(frozen=True, slots=True)
class DiscoveredDevice:
    """A device that `--device` can name."""

    source: str
    id: str = field("ID")


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemInfo:
    """`GET /info`; field order is dockerd's."""

    id: str = field("ID")
    containers: int = 0
    containers_running: int = 0
    containers_paused: int = 0
    containers_stopped: int = 0
    images: int = 0
    driver: str
    driver_status: Pairs
    plugins: Plugins = Plugins()
    memory_limit: bool
    swap_limit: bool
    cpu_cfs_period: bool
    cpu_cfs_quota: bool
    cpu_shares: bool = field("CPUShares")
    cpu_set: bool = field("CPUSet")
    pids_limit: bool
    ipv4_forwarding: bool = field("IPv4Forwarding", default=False)
    debug: bool
    n_fd: int = 0
    oom_kill_disable: bool
    n_goroutines: int = 0
    system_time: str = ""
    logging_driver: str
    cgroup_driver: str = "cgroupfs"
    cgroup_version: str
    n_events_listener: int = 0
    kernel_version: str
    operating_system: str
    os_version: str = field("OSVersion")
    os_type: str = field("OSType", default="linux")
    architecture: str
    index_server_address: str
    registry_config: RegistryConfig
    ncpu: int = field("NCPU")
    mem_total: int
    generic_resources: None = None
    docker_root_dir: str
    http_proxy: str
    https_proxy: str
    no_proxy: str
    name: str
    labels: tuple[str, ...]
    experimental_build: bool
    server_version: str
    runtimes: dict[str, RuntimeInfo]
    default_runtime: str
    swarm: SwarmInfo = SwarmInfo()
    live_restore_enabled: bool = True  # containers always outlive the engine
    isolation: str = ""
    init_binary: str = "built-in"
    containerd_commit: Commit = Commit("none")
    runc_commit: Commit = Commit("none")
    init_commit: Commit = Commit("built-in")
    security_options: tuple[str, ...]
    cdi_spec_dirs: tuple[str, ...] = field("CDISpecDirs", default=())
    discovered_devices: tuple[DiscoveredDevice, ...] = field(default=(), omit_empty=True)
    warnings: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class PlatformName:
    """The product's name."""

    name: str


@dataclass(frozen=True, slots=True)
class Component:
    """One part of the server, as `docker version` lists it."""

    name: str
    version: str
    details: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionInfo:
    """`GET /version`."""

    platform: PlatformName
    components: tuple[Component, ...]
    version: str
    api_version: str
    min_api_version: str = field("MinAPIVersion")
    git_commit: str
    go_version: str
    os: str
    arch: str
    kernel_version: str
    experimental: bool = field(omit_empty=True)
    build_time: str = field(omit_empty=True)


@dataclass(frozen=True, slots=True)
class DiskUsage:
    """`GET /system/df`; None for what was not asked for. Items are the nouns' own summaries."""

    layers_size: int
    images: tuple[object, ...] | None = None
    containers: tuple[object, ...] | None = None
    volumes: tuple[object, ...] | None = None
    build_cache: tuple[object, ...] | None = None


@dataclass(frozen=True, slots=True)
class AuthResult:
    """`POST /auth`."""

    status: str
    identity_token: str = field(omit_empty=True, default="")
