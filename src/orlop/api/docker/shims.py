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


def _container_config_macs(container: dict[str, Any]) -> None:
    config = container.get("Config")
    if isinstance(config, dict):
        config.setdefault("MacAddress", container.get("NetworkSettings", {}).get("MacAddress", ""))


SHIMS: tuple[Shim, ...] = (
    Shim("SystemInfo", (1, 49), _each(_bridge_netfilter), "BridgeNfIptables was removed in 1.50"),
    Shim("ImageInspect", (1, 49), _each(_image_config), "fields of containers left Config in 1.50"),
    Shim("ImageInspect", (1, 44), _each(_image_container), "Container and ContainerConfig went away in 1.45"),
    Shim("ImageInspect", (1, 43), _each(_virtual_size), "VirtualSize was removed in 1.44"),
    Shim("ImageList", (1, 43), _each(_virtual_size), "VirtualSize was removed in 1.44"),
    Shim("ContainerInspect", (1, 43), _each(_container_config_macs), "Config.MacAddress was moved in 1.44"),
)


def shims_for(operation: str, version: Version) -> list[Shim]:
    """The rows that apply, newest first."""
    return [row for row in SHIMS if row.operation == operation and version <= row.until]
