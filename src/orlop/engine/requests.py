"""What callers ask for: Docker's request types as frozen values.

Field names are the Engine API's in snake case; `wire.gojson` maps them to Go's names. `None` is
Go's null. ContainerConfig and HostConfig are also the configuration document that is stored with
a container, so a field may be added but never renamed.

Spec: Docker Engine API v1.51: ContainerConfig, HostConfig, Mount, HealthConfig, ExecConfig.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from orlop.wire.gojson import field

__all__ = [
    "NO_EXTRAS",
    "BindOptions",
    "BlkioThrottle",
    "BlkioWeight",
    "CommitRequest",
    "ContainerConfig",
    "CreateBody",
    "CreateRequest",
    "DeviceMapping",
    "DeviceRequest",
    "EndpointSettings",
    "ExecConfig",
    "ExecStart",
    "HealthConfig",
    "HostConfig",
    "ImageOptions",
    "IpamConfig",
    "LogConfig",
    "Mount",
    "NetworkingConfig",
    "OrlopConfig",
    "PortBinding",
    "RestartPolicy",
    "TmpfsOptions",
    "Ulimit",
    "UpdateRequest",
    "VolumeCreateRequest",
    "VolumeDriver",
    "VolumeOptions",
]

Strings = tuple[str, ...]
Labels = dict[str, str]


@dataclass(frozen=True, slots=True)
class HealthConfig:
    """A health check; times in nanoseconds, 0 = inherit or default."""

    test: Strings | None = field(default=None, omit_empty=True)
    interval: int = field(default=0, omit_empty=True)
    timeout: int = field(default=0, omit_empty=True)
    start_period: int = field(default=0, omit_empty=True)
    start_interval: int = field(default=0, omit_empty=True)
    retries: int = field(default=0, omit_empty=True)


@dataclass(frozen=True, slots=True)
class ContainerConfig:
    """What runs in the container, independent of the host."""

    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    exposed_ports: frozenset[str] | None = field(default=None, omit_empty=True)
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: Strings | None = None
    cmd: Strings | None = field(default=None, or_string=True)
    healthcheck: HealthConfig | None = field(default=None, omit_empty=True)
    args_escaped: bool = field(default=False, omit_empty=True)
    image: str = ""
    volumes: frozenset[str] | None = None
    working_dir: str = ""
    entrypoint: Strings | None = field(default=None, or_string=True)
    network_disabled: bool = field(default=False, omit_empty=True)
    mac_address: str = field(default="", omit_empty=True)
    on_build: Strings | None = None
    labels: Labels | None = None
    stop_signal: str = field(default="", omit_empty=True)
    stop_timeout: int | None = field(default=None, omit_none=True)
    shell: Strings | None = field(default=None, omit_empty=True, or_string=True)


@dataclass(frozen=True, slots=True)
class LogConfig:
    """Log driver and its options."""

    type: str = ""
    config: Labels | None = None


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """`no`, `always`, `unless-stopped`, or `on-failure` with an optional limit."""

    name: str = ""
    maximum_retry_count: int = 0


@dataclass(frozen=True, slots=True)
class PortBinding:
    """A host address that forwards to a container port; empty port = any free one."""

    host_ip: str = ""
    host_port: str = field(default="")


@dataclass(frozen=True, slots=True)
class BindOptions:
    """Options of a bind mount."""

    propagation: str = field(default="", omit_empty=True)
    non_recursive: bool = field(default=False, omit_empty=True)
    create_mountpoint: bool = field(default=False, omit_empty=True)
    read_only_non_recursive: bool = field(default=False, omit_empty=True)
    read_only_force_recursive: bool = field(default=False, omit_empty=True)


@dataclass(frozen=True, slots=True)
class VolumeDriver:
    """Driver of a volume that a mount creates."""

    name: str = field(default="", omit_empty=True)
    options: Labels | None = field(default=None, omit_empty=True)


@dataclass(frozen=True, slots=True)
class VolumeOptions:
    """Options of a volume mount."""

    no_copy: bool = field(default=False, omit_empty=True)
    labels: Labels | None = field(default=None, omit_empty=True)
    driver_config: VolumeDriver | None = field(default=None, omit_empty=True)
    subpath: str = field(default="", omit_empty=True)


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """Options of an image mount."""

    subpath: str = field(default="", omit_empty=True)


@dataclass(frozen=True, slots=True)
class TmpfsOptions:
    """Options of a tmpfs mount; mode is a number, options are pairs or single words."""

    size_bytes: int = field(default=0, omit_empty=True)
    mode: int = field(default=0, omit_empty=True)
    options: tuple[Any, ...] | None = field(default=None, omit_empty=True)


@dataclass(frozen=True, slots=True)
class Mount:
    """One entry of HostConfig.Mounts; `type` is bind, volume, tmpfs or image."""

    type: str = field(default="", omit_empty=True)
    source: str = field(default="", omit_empty=True)
    target: str = field(default="", omit_empty=True)
    read_only: bool = field(default=False, omit_empty=True)
    consistency: str = field(default="", omit_empty=True)
    bind_options: BindOptions | None = field(default=None, omit_empty=True)
    volume_options: VolumeOptions | None = field(default=None, omit_empty=True)
    image_options: ImageOptions | None = field(default=None, omit_empty=True)
    tmpfs_options: TmpfsOptions | None = field(default=None, omit_empty=True)


@dataclass(frozen=True, slots=True)
class DeviceMapping:
    """A host device shown in the container."""

    path_on_host: str = ""
    path_in_container: str = ""
    cgroup_permissions: str = ""


@dataclass(frozen=True, slots=True)
class DeviceRequest:
    """A request to a device driver (GPUs)."""

    driver: str = ""
    count: int = 0
    device_ids: Strings | None = field("DeviceIDs", default=None)
    capabilities: tuple[Any, ...] | None = None
    options: Labels | None = None


@dataclass(frozen=True, slots=True)
class Ulimit:
    """One rlimit; -1 is unlimited."""

    name: str = ""
    hard: int = 0
    soft: int = 0


@dataclass(frozen=True, slots=True)
class BlkioWeight:
    """Relative weight of a block device."""

    path: str = ""
    weight: int = 0


@dataclass(frozen=True, slots=True)
class BlkioThrottle:
    """Rate limit of a block device."""

    path: str = ""
    rate: int = 0


@dataclass(frozen=True, slots=True)
class HostConfig:
    """What the host gives to the container."""

    binds: Strings | None = None
    container_id_file: str = field("ContainerIDFile", default="")
    log_config: LogConfig = LogConfig()
    network_mode: str = ""
    port_bindings: dict[str, tuple[PortBinding, ...] | None] | None = None
    restart_policy: RestartPolicy = RestartPolicy()
    auto_remove: bool = False
    volume_driver: str = ""
    volumes_from: Strings | None = None
    console_size: tuple[int, ...] = (0, 0)
    annotations: Labels | None = field(default=None, omit_empty=True)
    cap_add: Strings | None = field(default=None, or_string=True)
    cap_drop: Strings | None = field(default=None, or_string=True)
    cgroupns_mode: str = ""
    dns: Strings | None = None
    dns_options: Strings | None = None
    dns_search: Strings | None = None
    extra_hosts: Strings | None = None
    group_add: Strings | None = None
    ipc_mode: str = ""
    cgroup: str = ""
    links: Strings | None = None
    oom_score_adj: int = 0
    pid_mode: str = ""
    privileged: bool = False
    publish_all_ports: bool = False
    readonly_rootfs: bool = False
    security_opt: Strings | None = None
    storage_opt: Labels | None = field(default=None, omit_empty=True)
    tmpfs: Labels | None = field(default=None, omit_empty=True)
    uts_mode: str = field("UTSMode", default="")
    userns_mode: str = ""
    shm_size: int = 0
    sysctls: Labels | None = field(default=None, omit_empty=True)
    runtime: str = ""
    isolation: str = ""
    cpu_shares: int = 0
    memory: int = 0
    nano_cpus: int = 0
    cgroup_parent: str = ""
    blkio_weight: int = 0
    blkio_weight_device: tuple[BlkioWeight, ...] | None = None
    blkio_device_read_bps: tuple[BlkioThrottle, ...] | None = None
    blkio_device_write_bps: tuple[BlkioThrottle, ...] | None = None
    blkio_device_read_iops: tuple[BlkioThrottle, ...] | None = field("BlkioDeviceReadIOps", default=None)
    blkio_device_write_iops: tuple[BlkioThrottle, ...] | None = field("BlkioDeviceWriteIOps", default=None)
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_realtime_period: int = 0
    cpu_realtime_runtime: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    devices: tuple[DeviceMapping, ...] | None = None
    device_cgroup_rules: Strings | None = None
    device_requests: tuple[DeviceRequest, ...] | None = None
    kernel_memory: int = field(default=0, omit_empty=True)
    kernel_memory_tcp: int = field("KernelMemoryTCP", default=0, omit_empty=True)
    memory_reservation: int = 0
    memory_swap: int = 0
    memory_swappiness: int | None = None
    oom_kill_disable: bool | None = None
    pids_limit: int | None = None
    ulimits: tuple[Ulimit, ...] | None = None
    cpu_count: int = 0
    cpu_percent: int = 0
    io_maximum_iops: int = field("IOMaximumIOps", default=0)
    io_maximum_bandwidth: int = field("IOMaximumBandwidth", default=0)
    mounts: tuple[Mount, ...] | None = field(default=None, omit_empty=True)
    masked_paths: Strings | None = None
    readonly_paths: Strings | None = None
    init: bool | None = field(default=None, omit_none=True)


@dataclass(frozen=True, slots=True)
class IpamConfig:
    """Addresses asked for on one network."""

    ipv4_address: str = field("IPv4Address", default="", omit_empty=True)
    ipv6_address: str = field("IPv6Address", default="", omit_empty=True)
    link_local_ips: Strings | None = field("LinkLocalIPs", default=None, omit_empty=True)


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    """A container's place on one network, asked for and given."""

    ipam_config: IpamConfig | None = field("IPAMConfig", default=None)
    links: Strings | None = None
    aliases: Strings | None = None
    mac_address: str = ""
    driver_opts: Labels | None = None
    gw_priority: int = 0
    network_id: str = field("NetworkID", default="")
    endpoint_id: str = field("EndpointID", default="")
    gateway: str = ""
    ip_address: str = field("IPAddress", default="")
    ip_prefix_len: int = field("IPPrefixLen", default=0)
    ipv6_gateway: str = field("IPv6Gateway", default="")
    global_ipv6_address: str = field("GlobalIPv6Address", default="")
    global_ipv6_prefix_len: int = field("GlobalIPv6PrefixLen", default=0)
    dns_names: Strings | None = field("DNSNames", default=None)


@dataclass(frozen=True, slots=True)
class NetworkingConfig:
    """Networks to join, by name."""

    endpoints_config: dict[str, EndpointSettings | None] | None = None


@dataclass(frozen=True, slots=True)
class OrlopConfig:
    """What other engines do not have; `Orlop` in the body of a create and in inspect."""

    health_on_failure: str = field(default="", omit_empty=True)
    api_socket: str = field(default="", omit_empty=True)
    parent: str = field(default="", omit_empty=True)  # the container over whose socket it was created


NO_EXTRAS = OrlopConfig()


@dataclass(frozen=True, slots=True)
class CreateRequest:
    """`POST /containers/create`: name and platform come from the query."""

    config: ContainerConfig
    host: HostConfig = HostConfig()
    networking: NetworkingConfig = NetworkingConfig()
    name: str = ""
    platform: str = ""
    orlop: OrlopConfig = NO_EXTRAS


@dataclass(frozen=True, slots=True)
class CreateBody(ContainerConfig):
    """The JSON of a create: the configuration itself, and more keys."""

    host_config: HostConfig | None = None
    runtime: str = ""  # docker-py sends it here
    networking_config: NetworkingConfig | None = None
    orlop: OrlopConfig | None = None

    def request(self, name: str, platform: str) -> CreateRequest:
        """What is asked for."""
        config = ContainerConfig(**{item.name: getattr(self, item.name) for item in fields(ContainerConfig)})
        return CreateRequest(
            config,
            self.host(),
            self.networking_config or NetworkingConfig(),
            name,
            platform,
            self.orlop or NO_EXTRAS,
        )

    def host(self) -> HostConfig:
        """What is asked of the host."""
        host = self.host_config or HostConfig()
        return replace(host, runtime=self.runtime) if self.runtime and not host.runtime else host


@dataclass(frozen=True, slots=True)
class UpdateRequest:
    """`POST /containers/{id}/update`: zero values mean "leave it"."""

    cpu_shares: int = 0
    memory: int = 0
    cgroup_parent: str = ""
    blkio_weight: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_realtime_period: int = 0
    cpu_realtime_runtime: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    memory_reservation: int = 0
    memory_swap: int = 0
    nano_cpus: int = 0
    oom_kill_disable: bool | None = None
    pids_limit: int | None = None
    blkio_weight_device: tuple[BlkioWeight, ...] | None = None
    blkio_device_read_bps: tuple[BlkioThrottle, ...] | None = None
    blkio_device_write_bps: tuple[BlkioThrottle, ...] | None = None
    blkio_device_read_iops: tuple[BlkioThrottle, ...] | None = field("BlkioDeviceReadIOps", default=None)
    blkio_device_write_iops: tuple[BlkioThrottle, ...] | None = field("BlkioDeviceWriteIOps", default=None)
    restart_policy: RestartPolicy = RestartPolicy()


@dataclass(frozen=True, slots=True)
class ExecConfig:
    """`POST /containers/{id}/exec`."""

    user: str = ""
    privileged: bool = False
    tty: bool = False
    console_size: tuple[int, ...] | None = field(default=None, omit_empty=True)
    attach_stdin: bool = False
    attach_stderr: bool = False
    attach_stdout: bool = False
    detach: bool = False
    detach_keys: str = ""
    env: Strings | None = None
    working_dir: str = ""
    cmd: Strings | None = field(default=None, or_string=True)


@dataclass(frozen=True, slots=True)
class ExecStart:
    """`POST /exec/{id}/start`."""

    detach: bool = False
    tty: bool = False
    console_size: tuple[int, ...] | None = field(default=None, omit_empty=True)


@dataclass(frozen=True, slots=True)
class CommitRequest:
    """`POST /commit`; `changes` are Dockerfile instructions, `config` overrides the container's."""

    container: str
    repository: str = ""
    tag: str = ""
    comment: str = ""
    author: str = ""
    is_paused: bool = True
    changes: Strings = ()
    config: ContainerConfig | None = None


@dataclass(frozen=True, slots=True)
class VolumeCreateRequest:
    """`POST /volumes/create`."""

    name: str = ""
    driver: str = ""
    driver_opts: Labels | None = None
    labels: Labels | None = None
