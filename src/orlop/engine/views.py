"""What callers see: Docker's response types as frozen values.

Spec: Docker Engine API v1.51: ContainerSummary, ContainerInspectResponse, Volume, ExecInspect.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from orlop.engine.requests import ContainerConfig, EndpointSettings, HostConfig, PortBinding
from orlop.wire.gojson import field

__all__ = [
    "ContainerChange",
    "ContainerInspect",
    "ContainerStateView",
    "ContainerSummary",
    "CreateResult",
    "ExecInspect",
    "GraphDriver",
    "HealthLog",
    "HealthView",
    "MountPoint",
    "NetworkSettings",
    "PathStat",
    "Port",
    "ProcessConfigView",
    "PruneResult",
    "SummaryHost",
    "SummaryNetworks",
    "TopResult",
    "UpdateResult",
    "VolumeList",
    "VolumeUsage",
    "VolumeView",
    "WaitResult",
]


@dataclass(frozen=True, slots=True)
class MountPoint:
    """One mount as inspect and list show it."""

    type: str = field(default="", omit_empty=True)
    name: str = field(default="", omit_empty=True)
    source: str = ""
    destination: str = ""
    driver: str = field(default="", omit_empty=True)
    mode: str = ""
    rw: bool = field("RW", default=True)
    propagation: str = ""


@dataclass(frozen=True, slots=True)
class Port:
    """One port in the list."""

    ip: str = field("IP", default="", omit_empty=True)
    private_port: int = 0
    public_port: int = field(default=0, omit_empty=True)
    type: str = "tcp"


@dataclass(frozen=True, slots=True)
class SummaryHost:
    """The part of HostConfig that the list shows."""

    network_mode: str = field(default="", omit_empty=True)
    annotations: dict[str, str] | None = field(default=None, omit_empty=True)


@dataclass(frozen=True, slots=True)
class SummaryNetworks:
    """The part of NetworkSettings that the list shows."""

    networks: dict[str, EndpointSettings]


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSummary:
    """One row of `GET /containers/json`."""

    id: str
    names: tuple[str, ...]
    image: str
    image_id: str = field("ImageID")
    command: str
    created: int
    ports: tuple[Port, ...]
    size_rw: int | None = field(default=None, omit_empty=True)
    size_root_fs: int | None = field(default=None, omit_empty=True)
    labels: dict[str, str] = field(default_factory=dict)
    state: str = ""
    status: str = ""
    host_config: SummaryHost = SummaryHost()
    network_settings: SummaryNetworks = SummaryNetworks({})
    mounts: tuple[MountPoint, ...] = ()


@dataclass(frozen=True, slots=True)
class HealthLog:
    """One probe of a health check."""

    start: str
    end: str
    exit_code: int
    output: str


@dataclass(frozen=True, slots=True)
class HealthView:
    """What the probes say: starting, healthy or unhealthy."""

    status: str
    failing_streak: int
    log: tuple[HealthLog, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerStateView:
    """`State` of inspect."""

    status: str
    running: bool
    paused: bool
    restarting: bool
    oom_killed: bool = field("OOMKilled")
    dead: bool = False
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    started_at: str = ""
    finished_at: str = ""
    health: HealthView | None = field(default=None, omit_empty=True)


@dataclass(frozen=True, slots=True)
class GraphDriver:
    """Where the container's layers are."""

    data: dict[str, str] | None
    name: str


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """`NetworkSettings` of inspect."""

    bridge: str = ""
    sandbox_id: str = field("SandboxID", default="")
    sandbox_key: str = ""
    ports: dict[str, tuple[PortBinding, ...] | None] = field(default_factory=dict)
    hairpin_mode: bool = False
    link_local_ipv6_address: str = field("LinkLocalIPv6Address", default="")
    link_local_ipv6_prefix_len: int = field("LinkLocalIPv6PrefixLen", default=0)
    secondary_ip_addresses: tuple[Any, ...] | None = field("SecondaryIPAddresses", default=None)
    secondary_ipv6_addresses: tuple[Any, ...] | None = field("SecondaryIPv6Addresses", default=None)
    endpoint_id: str = field("EndpointID", default="")
    gateway: str = ""
    global_ipv6_address: str = field("GlobalIPv6Address", default="")
    global_ipv6_prefix_len: int = field("GlobalIPv6PrefixLen", default=0)
    ip_address: str = field("IPAddress", default="")
    ip_prefix_len: int = field("IPPrefixLen", default=0)
    ipv6_gateway: str = field("IPv6Gateway", default="")
    mac_address: str = ""
    networks: dict[str, EndpointSettings] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerInspect:
    """`GET /containers/{id}/json`."""

    id: str
    created: str
    path: str
    args: tuple[str, ...]
    state: ContainerStateView
    image: str
    resolv_conf_path: str
    hostname_path: str
    hosts_path: str
    log_path: str
    name: str
    restart_count: int
    driver: str
    platform: str
    mount_label: str
    process_label: str
    app_armor_profile: str
    exec_ids: tuple[str, ...] | None = field("ExecIDs")
    host_config: HostConfig
    graph_driver: GraphDriver
    size_rw: int | None = field(default=None, omit_none=True)
    size_root_fs: int | None = field(default=None, omit_none=True)
    mounts: tuple[MountPoint, ...] = ()
    config: ContainerConfig = field(default_factory=ContainerConfig)
    network_settings: NetworkSettings = field(default_factory=NetworkSettings)
    orlop: dict[str, Any] | None = field(default=None, omit_empty=True)  # what other engines do not have


@dataclass(frozen=True, slots=True)
class CreateResult:
    """Answer to create."""

    id: str
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WaitResult:
    """Answer to wait."""

    status_code: int
    error: dict[str, str] | None = field(default=None, omit_empty=True)


@dataclass(frozen=True, slots=True)
class TopResult:
    """Answer to top."""

    titles: tuple[str, ...]
    processes: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class ContainerChange:
    """One line of diff; kind 0 modified, 1 added, 2 deleted."""

    path: str
    kind: int


@dataclass(frozen=True, slots=True)
class UpdateResult:
    """Answer to update."""

    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PruneResult:
    """Answer to container prune."""

    containers_deleted: tuple[str, ...] | None
    space_reclaimed: int


@dataclass(frozen=True, slots=True)
class PathStat:
    """`X-Docker-Container-Path-Stat`; `mode` has Go's os.FileMode bits."""

    name: str = field("name")
    size: int = field("size")
    mode: int = field("mode")
    mtime: str = field("mtime")
    link_target: str = field("linkTarget")


@dataclass(frozen=True, slots=True)
class ProcessConfigView:
    """What an exec runs."""

    tty: bool = field("tty")
    entrypoint: str = field("entrypoint")
    arguments: tuple[str, ...] = field("arguments")
    privileged: bool = field("privileged")
    user: str = field("user", default="", omit_empty=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecInspect:
    """`GET /exec/{id}/json`."""

    id: str = field("ID")
    running: bool
    exit_code: int | None
    process_config: ProcessConfigView
    open_stdin: bool
    open_stderr: bool
    open_stdout: bool
    can_remove: bool
    container_id: str = field("ContainerID")
    detach_keys: str
    pid: int


@dataclass(frozen=True, slots=True)
class VolumeUsage:
    """Size and users of a volume, shown by system df only."""

    size: int
    ref_count: int


@dataclass(frozen=True, slots=True)
class VolumeView:
    """One volume."""

    created_at: str
    driver: str
    labels: dict[str, str] | None
    mountpoint: str
    name: str
    options: dict[str, str] | None
    scope: str
    usage_data: VolumeUsage | None = field(default=None, omit_empty=True)


@dataclass(frozen=True, slots=True)
class VolumeList:
    """`GET /volumes`."""

    volumes: tuple[VolumeView, ...]
    warnings: tuple[str, ...] | None = None
