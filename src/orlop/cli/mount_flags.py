"""The grammars of `--mount` and `--publish`. Source: docker CLI reference."""

from __future__ import annotations

from typing import Any

from orlop.base.errors import InvalidInput
from orlop.cli.units import parse_size

__all__ = ["parse_mount", "parse_publish"]

_TRUE = {"", "1", "true"}
_PROTOCOLS = {"tcp", "udp", "sctp"}
_MAX_PORT = 65535


def parse_mount(text: str) -> dict[str, Any]:
    """One `--mount type=...,source=...,target=...` as an API Mount.

    Raises:
        InvalidInput: an unknown key, or a missing target.
    """
    mount: dict[str, Any] = {"Type": "volume"}
    for word in filter(None, text.split(",")):
        key, equals, value = word.partition("=")
        _apply(mount, key.lower(), value, text, has_value=bool(equals))
    if not mount.get("Target"):
        raise InvalidInput(f'invalid argument "{text}" for "--mount" flag: target is required')
    return mount


def _apply(mount: dict[str, Any], key: str, value: str, text: str, *, has_value: bool) -> None:
    plain = {"type": "Type", "source": "Source", "src": "Source", "consistency": "Consistency"}
    if key in plain:
        mount[plain[key]] = value
    elif key in {"target", "dst", "destination"}:
        mount["Target"] = value
    elif key in {"readonly", "ro"}:
        mount["ReadOnly"] = not has_value or value.lower() in _TRUE
    elif key == "bind-propagation":
        mount.setdefault("BindOptions", {})["Propagation"] = value
    elif key == "bind-recursive":
        mount.setdefault("BindOptions", {})["NonRecursive"] = value == "disabled"
    elif key == "volume-nocopy":
        mount.setdefault("VolumeOptions", {})["NoCopy"] = not has_value or value.lower() in _TRUE
    elif key == "volume-subpath":
        mount.setdefault("VolumeOptions", {})["Subpath"] = value
    elif key == "volume-driver":
        mount.setdefault("VolumeOptions", {}).setdefault("DriverConfig", {})["Name"] = value
    elif key == "volume-label":
        name, _, content = value.partition("=")
        mount.setdefault("VolumeOptions", {}).setdefault("Labels", {})[name] = content
    elif key == "tmpfs-size":
        mount.setdefault("TmpfsOptions", {})["SizeBytes"] = parse_size(value)
    elif key == "tmpfs-mode":
        mount.setdefault("TmpfsOptions", {})["Mode"] = int(value, 8)
    else:
        raise InvalidInput(f'invalid argument "{text}" for "--mount" flag: unexpected key \'{key}\'')


def _port_range(text: str) -> range:
    low, _, high = text.partition("-")
    try:
        first, last = int(low), int(high or low)
    except ValueError:
        raise InvalidInput(f"invalid containerPort: {text}") from None
    if not 0 < first <= last <= _MAX_PORT:
        raise InvalidInput(f"invalid port range: {text}")
    return range(first, last + 1)


def parse_publish(publish: list[str], expose: list[str]) -> tuple[list[str], dict[str, list[dict[str, str]]]]:
    """`-p` and `--expose` words: the exposed `port/proto` names, and the bindings by name.

    Raises:
        InvalidInput: not a port, an unknown protocol, ranges of different length.
    """
    exposed = {f"{port}/{proto}" for word in expose for proto, ports in [_expose(word)] for port in ports}
    bindings: dict[str, list[dict[str, str]]] = {}
    for word in publish:
        for name, binding in _publish(word):
            exposed.add(name)
            bindings.setdefault(name, []).append(binding)
    return sorted(exposed), bindings


def _protocol(word: str) -> tuple[str, str]:
    rest, _, protocol = word.partition("/")
    protocol = (protocol or "tcp").lower()
    if protocol not in _PROTOCOLS:
        raise InvalidInput(f"invalid proto: {protocol}", hint="tcp, udp or sctp")
    return rest, protocol


def _expose(word: str) -> tuple[str, range]:
    rest, protocol = _protocol(word)
    return protocol, _port_range(rest)


def _publish(word: str) -> list[tuple[str, dict[str, str]]]:
    rest, protocol = _protocol(word)
    head, _, inside = rest.rpartition(":")
    if head.startswith("["):
        address, _, outside = head[1:].partition("]")
        outside = outside.removeprefix(":")
    else:
        address, _, outside = head.rpartition(":")
    ports = _port_range(inside)
    hosts = [str(port) for port in _port_range(outside)] if outside else [""] * len(ports)
    if len(hosts) != len(ports):
        if len(ports) != 1:
            raise InvalidInput(
                f"invalid ranges specified for container and host Ports: {inside} and {outside}"
            )
        hosts = [outside]
    return [
        (f"{port}/{protocol}", {"HostIp": address, "HostPort": host})
        for port, host in zip(ports, hosts, strict=True)
    ]
