"""`inspect`: everything about one container, from memory. Pure."""

from __future__ import annotations

from typing import Any

from orlop.base.clock import format_rfc3339_nano
from orlop.engine.launch import Paths
from orlop.engine.lifecycle import Status, is_active
from orlop.engine.model import Container, MountRecord, Record, Settings, State
from orlop.engine.network_model import BRIDGE
from orlop.engine.network_wishes import endpoint_settings, port_bindings
from orlop.engine.requests import EndpointSettings
from orlop.engine.securityopts import named_apparmor_profile
from orlop.engine.views import (
    ContainerInspect,
    ContainerStateView,
    GraphDriver,
    HealthView,
    MountPoint,
    NetworkSettings,
)

__all__ = ["STORAGE_DRIVER", "inspect", "state_view"]

STORAGE_DRIVER = "erofs"
_ZERO_TIME = "0001-01-01T00:00:00Z"  # Go's zero time, which clients compare with


def inspect(container: Container, paths: Paths) -> ContainerInspect:
    """The view of one container, without sizes; `paths` are those of its files."""
    record, state = container.record, container.state
    log = record.host.log_config.type
    has_run = state.started_ns > 0
    return ContainerInspect(
        id=record.id,
        created=format_rfc3339_nano(record.created_ns),
        path=record.path,
        args=record.args,
        state=state_view(container),
        image=record.image_id,
        resolv_conf_path=paths.resolv_conf if has_run else "",
        hostname_path=paths.hostname if has_run else "",
        hosts_path=paths.hosts if has_run else "",
        log_path=paths.log_dir if has_run and log == "json-file" else "",
        name=f"/{record.name}",
        restart_count=state.restart_count,
        driver=STORAGE_DRIVER,
        platform=record.platform,
        mount_label="",
        process_label="",
        app_armor_profile=named_apparmor_profile(record.host.security_opt or ()),
        exec_ids=tuple(sorted(container.exec_ids)) or None,
        host_config=record.host,
        graph_driver=GraphDriver(_graph_data(container), STORAGE_DRIVER),
        mounts=tuple(mount.point for mount in record.mounts if mount.point.type != "tmpfs"),
        config=record.config,
        network_settings=_network(container),
        orlop=orlop_view(record),
    )


def orlop_view(record: Record) -> dict[str, Any] | None:
    """What was asked for and other engines do not have; None when there is nothing of it."""
    found: dict[str, Any] = {
        "Parent": record.orlop.parent,
        "HealthOnFailure": record.orlop.health_on_failure,
        "ApiSocket": record.orlop.api_socket,
    }
    if record.pending is not None:
        found["Pending"] = _pending(record, record.pending)
    return {key: value for key, value in found.items() if value} or None


def _pending(record: Record, new: Settings) -> dict[str, Any]:
    """What the next start will change."""
    config, host = record.config, record.host
    values = {
        "Env": (config.env, new.config.env),
        "Labels": (config.labels, new.config.labels),
        "Healthcheck": (config.healthcheck, new.config.healthcheck),
        "HealthOnFailure": (record.orlop.health_on_failure, new.orlop.health_on_failure),
        "Mounts": (_points(record.mounts), _points(new.points)),
        "PortBindings": (host.port_bindings, new.port_bindings),
    }
    return {key: after for key, (before, after) in values.items() if before != after}


def _points(mounts: tuple[MountRecord, ...]) -> list[MountPoint]:
    return [mount.point for mount in mounts]


def _graph_data(container: Container) -> dict[str, str]:
    workspace = container.workspace
    if workspace is None:
        return {"ID": container.id}
    return {
        "ID": container.id,
        "LowerDir": ":".join(workspace.lowers),
        "UpperDir": workspace.upper or "",
        "WorkDir": workspace.work or "",
    }


def state_view(container: Container) -> ContainerStateView:
    """`State`, with the health log."""
    state = container.state
    return ContainerStateView(
        status=state.status.value,
        running=is_active(state.status),
        paused=state.status is Status.PAUSED,
        restarting=state.status is Status.RESTARTING,
        oom_killed=state.is_oom_killed,
        dead=state.status is Status.DEAD,
        pid=state.pid,
        exit_code=state.exit_code,
        error=state.error,
        started_at=_time(state.started_ns),
        finished_at=_time(state.finished_ns),
        health=_health(container, state),
    )


def _health(container: Container, state: State) -> HealthView | None:
    if not state.health:
        return None
    return HealthView(state.health, state.failing_streak, tuple(container.health_log))


def _time(value_ns: int) -> str:
    return format_rfc3339_nano(value_ns) if value_ns else _ZERO_TIME


def _network(container: Container) -> NetworkSettings:
    record = container.record
    mode = record.host.network_mode
    if mode.startswith("container:"):
        return NetworkSettings()
    is_up = container.status in (Status.RUNNING, Status.PAUSED)
    networks = endpoint_settings(container)
    default = networks.get(BRIDGE, EndpointSettings())
    return NetworkSettings(
        sandbox_id=container.id if container.network is not None else "",
        sandbox_key=f"/proc/{container.state.pid}/ns/net" if is_up and container.state.pid else "",
        ports=port_bindings(record, container.network) if is_up and mode != "host" else {},
        endpoint_id=default.endpoint_id,
        gateway=default.gateway,
        global_ipv6_address=default.global_ipv6_address,
        global_ipv6_prefix_len=default.global_ipv6_prefix_len,
        ip_address=default.ip_address,
        ip_prefix_len=default.ip_prefix_len,
        ipv6_gateway=default.ipv6_gateway,
        mac_address=default.mac_address,
        networks=networks,
    )
