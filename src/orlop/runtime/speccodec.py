"""Specs back from JSON, as the zygote and the supervisor's protocol carry them.

Both ends are ours but may be of different versions: unknown keys are passed over, missing
ones take their default.
"""

from __future__ import annotations

from typing import Any, TypeVar

from orlop.runtime.spec import (
    AttachSpec,
    ContainerSpec,
    DeviceSpec,
    EndpointSpec,
    ExecSpec,
    ExitRecord,
    IdMapping,
    LogServiceSpec,
    LogSpec,
    MountSpec,
    NameServerSpec,
    ProcessSpec,
    ResourceSpec,
    RootSpec,
    RuntimeSpec,
    UserNamespaceSpec,
)

__all__ = [
    "attach_spec_from_json",
    "container_spec_from_json",
    "endpoint_spec_from_json",
    "exec_spec_from_json",
    "exit_record_from_json",
    "mount_spec_from_json",
    "name_server_spec_from_json",
    "resource_spec_from_json",
]

T = TypeVar("T")


def container_spec_from_json(data: dict[str, Any]) -> ContainerSpec:
    """The inverse of `spec.to_json`."""
    values = _known(ContainerSpec, data)
    values["root"] = _build(RootSpec, data["root"])
    values["process"] = _process(data["process"])
    values["log"] = _log(data["log"])
    values["mounts"] = tuple(_build(MountSpec, item) for item in data.get("mounts", ()))
    values["devices"] = tuple(_build(DeviceSpec, item) for item in data.get("devices", ()))
    values["endpoints"] = tuple(_build(EndpointSpec, item) for item in data.get("endpoints", ()))
    values["name_server"] = _build(NameServerSpec, data["name_server"]) if data.get("name_server") else None
    values["resources"] = resource_spec_from_json(data.get("resources", {}))
    values["user_namespace"] = _user_namespace(data.get("user_namespace"))
    values["runtime"] = _build(RuntimeSpec, data["runtime"]) if data.get("runtime") else None
    return ContainerSpec(**values)


def mount_spec_from_json(data: dict[str, Any]) -> MountSpec:
    """The inverse of `dataclasses.asdict`."""
    return _build(MountSpec, data)


def endpoint_spec_from_json(data: dict[str, Any]) -> EndpointSpec:
    """The inverse of `spec.to_json`."""
    return _build(EndpointSpec, data)


def name_server_spec_from_json(data: dict[str, Any]) -> NameServerSpec:
    """The inverse of `spec.to_json`."""
    return _build(NameServerSpec, data)


def exec_spec_from_json(data: dict[str, Any]) -> ExecSpec:
    """The inverse of `spec.to_json`."""
    values = _known(ExecSpec, data)
    values["process"] = _process(data["process"])
    return ExecSpec(**values)


def attach_spec_from_json(data: dict[str, Any]) -> AttachSpec:
    """The inverse of `spec.to_json`."""
    return _build(AttachSpec, data)


def resource_spec_from_json(data: dict[str, Any]) -> ResourceSpec:
    """The inverse of `dataclasses.asdict`."""
    return _build(ResourceSpec, data)


def exit_record_from_json(data: dict[str, Any]) -> ExitRecord:
    """The inverse of `spec.to_json`."""
    return _build(ExitRecord, data)


def _log(data: dict[str, Any]) -> LogSpec:
    values = _known(LogSpec, data)
    service = data.get("service")
    values["service"] = None if service is None else _build(LogServiceSpec, service)
    return LogSpec(**values)


def _process(data: dict[str, Any]) -> ProcessSpec:
    values = _known(ProcessSpec, data)
    limits = data.get("rlimits", {})
    values["rlimits"] = {name: (int(pair[0]), int(pair[1])) for name, pair in limits.items()}
    return ProcessSpec(**values)


def _user_namespace(data: dict[str, Any] | None) -> UserNamespaceSpec | None:
    if data is None:
        return None
    uids, gids = (tuple(_build(IdMapping, item) for item in data[name]) for name in ("uids", "gids"))
    return UserNamespaceSpec(uids, gids, data.get("path", ""))


def _build(kind: type[T], data: dict[str, Any]) -> T:
    return kind(**_known(kind, data))


def _known(kind: type, data: dict[str, Any]) -> dict[str, Any]:
    """The entries that are fields of `kind`, lists as the tuples that values are made of."""
    names: tuple[str, ...] = kind.__match_args__  # type: ignore[attr-defined]
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in data.items()
        if name in names
    }
