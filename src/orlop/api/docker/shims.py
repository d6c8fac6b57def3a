"""Differences between API versions, one row each: pure functions on the JSON of a response.

A row says which operation, the last version that still has the old form, and what makes the old
form out of the current one. Rows are applied newest first. Handlers know only the current form.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from orlop.api.versions import Version

__all__ = ["SHIMS", "Shim", "shims_for"]


_BUILT_IN_NETWORKS = frozenset({"bridge", "host", "none", "default"})


@dataclass(frozen=True, slots=True)
class Shim:
    """Rewrite the response of `operation` for clients of version `until` or older."""

    operation: str
    until: Version
    rewrite: Callable[[Any], Any]
    note: str


def _each(rewrite: Callable[[dict[str, Any]], None]) -> Callable[[Any], Any]:
    """Apply to the object, or to every object of a list."""

    def run(value: Any) -> Any:
        for item in value if isinstance(value, list) else [value]:
            rewrite(item)
        return value

    return run


def _virtual_size(image: dict[str, Any]) -> None:
    image["VirtualSize"] = image.get("Size", 0)


def _no_descriptor(image: dict[str, Any]) -> None:
    image.pop("Descriptor", None)


def _image_container(image: dict[str, Any]) -> None:
    image.setdefault("Container", "")
    image.setdefault("ContainerConfig", None)


def _image_config(image: dict[str, Any]) -> None:
    """All keys of a container's config, as clients of then expect them."""
    empty = {
        **dict.fromkeys(("Hostname", "Domainname", "User"), ""),
        **dict.fromkeys(("AttachStdin", "AttachStdout", "AttachStderr"), False),
        **dict.fromkeys(("Tty", "OpenStdin", "StdinOnce"), False),
        **dict.fromkeys(("Env", "Cmd"), None),
        "Image": "",
        "Volumes": None,
        "WorkingDir": "",
        **dict.fromkeys(("Entrypoint", "OnBuild", "Labels"), None),
    }
    image["Config"] = empty | (image.get("Config") or {})


def _bridge_netfilter(info: dict[str, Any]) -> None:
    info.setdefault("BridgeNfIptables", True)
    info.setdefault("BridgeNfIp6tables", True)


def _no_devices(info: dict[str, Any]) -> None:
    info.pop("DiscoveredDevices", None)


def _expected_commits(info: dict[str, Any]) -> None:
    for name in ("ContainerdCommit", "RuncCommit", "InitCommit"):
        if isinstance(commit := info.get(name), dict):
            commit.setdefault("Expected", commit.get("ID", ""))


def _nondistributable(info: dict[str, Any]) -> None:
    if isinstance(registries := info.get("RegistryConfig"), dict):
        registries.setdefault("AllowNondistributableArtifactsCIDRs", [])
        registries.setdefault("AllowNondistributableArtifactsHostnames", [])


def _kernel_memory_support(info: dict[str, Any]) -> None:
    info.setdefault("KernelMemory", False)
    info.setdefault("KernelMemoryTCP", False)


def _unknown_host(info: dict[str, Any]) -> None:
    for name in ("KernelVersion", "OperatingSystem"):
        info[name] = info.get(name) or "<unknown>"


def _plain_security(info: dict[str, Any]) -> None:
    """`name=seccomp,profile=default` was `seccomp`, and there was an execution driver."""
    options = info.get("SecurityOptions") or []
    info["SecurityOptions"] = [text.partition(",")[0].removeprefix("name=") for text in options]
    info["ExecutionDriver"] = "<not supported>"


def _builder_size(usage: dict[str, Any]) -> None:
    records = usage.get("BuildCache") or []
    usage["BuilderSize"] = sum(record.get("Size", 0) for record in records)
    for record in records:
        record.setdefault("Parent", next(iter(record.get("Parents") or ()), ""))


def _virtual_sizes(usage: dict[str, Any]) -> None:
    for image in usage.get("Images") or []:
        _virtual_size(image)


def _short_id_aliases(container: dict[str, Any]) -> None:
    """On networks of users the short id was among the aliases."""
    short = str(container.get("Id", ""))[:12]
    for name, endpoint in ((container.get("NetworkSettings") or {}).get("Networks") or {}).items():
        if name not in _BUILT_IN_NETWORKS and isinstance(endpoint, dict):
            aliases = endpoint.get("Aliases") or []
            endpoint["Aliases"] = aliases if short in aliases else [*aliases, short]


def _kernel_memory(container: dict[str, Any]) -> None:
    if isinstance(host := container.get("HostConfig"), dict):
        host.setdefault("KernelMemory", 0)
        host.setdefault("KernelMemoryTCP", 0)


def _removing(container: dict[str, Any]) -> None:
    """A container that is being removed was shown as ended."""
    state = container.get("State")
    if isinstance(state, dict) and state.get("Status") == "removing":
        state["Status"] = "exited"
    elif state == "removing":
        container["State"] = "exited"


def _container_config_macs(container: dict[str, Any]) -> None:
    config = container.get("Config")
    if isinstance(config, dict):
        config.setdefault("MacAddress", container.get("NetworkSettings", {}).get("MacAddress", ""))


SHIMS: tuple[Shim, ...] = (
    Shim("SystemInfo", (1, 49), _each(_bridge_netfilter), "BridgeNfIptables was removed in 1.50"),
    Shim("SystemInfo", (1, 49), _each(_no_devices), "DiscoveredDevices came with 1.50"),
    Shim("SystemInfo", (1, 48), _each(_expected_commits), "Expected was removed in 1.49"),
    Shim("SystemInfo", (1, 48), _each(_nondistributable), "AllowNondistributable... was removed in 1.49"),
    Shim("ImageInspect", (1, 49), _each(_image_config), "fields of containers left Config in 1.50"),
    Shim("ImageInspect", (1, 47), _each(_no_descriptor), "Descriptor came with 1.48"),
    Shim("ImageList", (1, 47), _each(_no_descriptor), "Descriptor came with 1.48"),
    Shim("ImageInspect", (1, 44), _each(_image_container), "Container and ContainerConfig went away in 1.45"),
    Shim("ImageInspect", (1, 43), _each(_virtual_size), "VirtualSize was removed in 1.44"),
    Shim("ImageList", (1, 43), _each(_virtual_size), "VirtualSize was removed in 1.44"),
    Shim("ContainerInspect", (1, 44), _each(_short_id_aliases), "the short id is no alias since 1.45"),
    Shim("ContainerInspect", (1, 43), _each(_container_config_macs), "Config.MacAddress was moved in 1.44"),
    Shim("SystemDataUsage", (1, 43), _each(_virtual_sizes), "VirtualSize was removed in 1.44"),
    Shim("SystemDataUsage", (1, 41), _each(_builder_size), "BuilderSize and Parent were removed in 1.42"),
    Shim("SystemInfo", (1, 41), _each(_kernel_memory_support), "KernelMemory is left out since 1.42"),
    Shim("ContainerInspect", (1, 41), _each(_kernel_memory), "KernelMemory is left out since 1.42"),
    Shim("SystemInfo", (1, 38), _each(_unknown_host), "unknown facts are empty since 1.39"),
    Shim("SystemInfo", (1, 24), _each(_plain_security), "security options have properties since 1.25"),
    Shim("ContainerInspect", (1, 24), _each(_removing), "the status removing came with 1.25"),
    Shim("ContainerList", (1, 24), _each(_removing), "the status removing came with 1.25"),
)


def shims_for(operation: str, version: Version) -> list[Shim]:
    """The rows that apply, newest first."""
    return [row for row in SHIMS if row.operation == operation and version <= row.until]
