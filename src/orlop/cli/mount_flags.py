"""The grammars of `--mount` and `--publish`. Source: docker CLI reference."""

from __future__ import annotations

import csv
from typing import Any

from orlop.base.errors import InvalidInput
from orlop.cli.units import parse_size

__all__ = ["parse_mount", "parse_publish"]

_TRUE = {"1", "t", "true"}
_FALSE = {"0", "f", "false"}
_PROTOCOLS = {"tcp", "udp", "sctp"}
_MAX_PORT = 65535


def parse_mount(text: str) -> dict[str, Any]:
    """One `--mount type=...,source=...,target=...` as an API Mount; words with commas go in double quotes.

    Raises:
        InvalidInput: an unknown key, a bad value, or a missing target.
    """
    mount: dict[str, Any] = {"Type": "volume"}
    try:
        for word in filter(None, next(csv.reader([text], strict=True), [])):
            key, equals, value = word.partition("=")
            _apply(mount, key.lower(), value, has_value=bool(equals))
        _put(mount, ("Target",), _need(mount))
    except (InvalidInput, csv.Error, ValueError) as error:
        raise InvalidInput(f'invalid argument "{text}" for "--mount" flag: {error}') from error
    return mount


def _need(mount: dict[str, Any]) -> str:
    target: str = mount.get("Target", "")
    if not target:
        raise InvalidInput("target is required")
    return target


_PLAIN = {
    "type": ("Type",),
    "source": ("Source",),
    "src": ("Source",),
    "target": ("Target",),
    "dst": ("Target",),
    "destination": ("Target",),
    "consistency": ("Consistency",),
    "bind-propagation": ("BindOptions", "Propagation"),
    "volume-subpath": ("VolumeOptions", "Subpath"),
    "volume-driver": ("VolumeOptions", "DriverConfig", "Name"),
    "image-subpath": ("ImageOptions", "Subpath"),
}
_SWITCHES = {
    "readonly": ("ReadOnly",),
    "ro": ("ReadOnly",),
    "bind-nonrecursive": ("BindOptions", "NonRecursive"),
    "bind-create-src": ("BindOptions", "CreateMountpoint"),
    "volume-nocopy": ("VolumeOptions", "NoCopy"),
}
_PAIRS = {
    "volume-label": ("VolumeOptions", "Labels"),
    "volume-opt": ("VolumeOptions", "DriverConfig", "Options"),
}
_RECURSION = {
    "enabled": None,
    "disabled": "NonRecursive",
    "writable": "ReadOnlyNonRecursive",
    "readonly": "ReadOnlyForceRecursive",
}


def _apply(mount: dict[str, Any], key: str, value: str, *, has_value: bool) -> None:
    if key in _SWITCHES:
        _put(mount, _SWITCHES[key], _truth(key, value, has_value=has_value))
        return
    if not has_value:
        raise InvalidInput(f"invalid field '{key}' must be a key=value pair")
    if key in _PLAIN:
        _put(mount, _PLAIN[key], value)
    elif key in _PAIRS:
        name, _, content = value.partition("=")
        _put(mount, (*_PAIRS[key], name), content)
    elif key == "bind-recursive":
        if value not in _RECURSION:
            raise InvalidInput(
                f'invalid value for bind-recursive: {value} (must be "enabled", "disabled", "writable", '
                'or "readonly")'
            )
        if word := _RECURSION[value]:
            _put(mount, ("BindOptions", word), True)
    elif key == "tmpfs-size":
        _put(mount, ("TmpfsOptions", "SizeBytes"), parse_size(value))
    elif key == "tmpfs-mode":
        _put(mount, ("TmpfsOptions", "Mode"), int(value, 8))
    else:
        raise InvalidInput(f"unexpected key '{key}' in '{key}={value}'")


def _put(mount: dict[str, Any], path: tuple[str, ...], value: object) -> None:
    for name in path[:-1]:
        mount = mount.setdefault(name, {})
    mount[path[-1]] = value


def _truth(key: str, value: str, *, has_value: bool) -> bool:
    if not has_value or value.lower() in _TRUE:
        return True
    if value.lower() in _FALSE:
        return False
    raise InvalidInput(f"invalid value for {key}: {value}")


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
