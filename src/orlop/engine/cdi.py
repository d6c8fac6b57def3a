"""Container Device Interface: what a spec file says, checked; pure.

A spec file describes the devices of one vendor and class and what a container needs to use them. It
is written by an administrator or a driver's installer, and its every word counts: a file with one
wrong field gives no device at all.

Spec: CNCF Container Device Interface 1.1.0, SPEC.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from orlop.base.errors import InvalidInput
from orlop.wire import gojson

__all__ = ["CdiDevice", "CdiNode", "CdiSpec", "Edits", "is_qualified_name", "parse_spec"]

_VERSIONS = frozenset("0.1.0 0.2.0 0.3.0 0.4.0 0.5.0 0.6.0 0.7.0 0.8.0 1.0.0 1.1.0".split())
_VENDOR = re.compile(r"[A-Za-z]([A-Za-z0-9_.-]*[A-Za-z0-9])?\Z", re.ASCII)
_CLASS = _VENDOR
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.:-]*[A-Za-z0-9])?\Z", re.ASCII)
_HOOKS = frozenset("prestart createRuntime createContainer startContainer poststart poststop".split())
_KINDS = ("", "b", "c", "u", "p")
_MAX_FILE_BYTES = 4 << 20
_MAX_ITEMS = 4096
_MAX_TEXT = 4096


@dataclass(frozen=True, slots=True)
class CdiNode:
    """A device node; what is None is looked up at the host's node when a container starts."""

    path: str
    host_path: str
    kind: str = ""  # b or c, "" = as on the host
    major: int | None = None
    minor: int | None = None
    mode: int | None = None
    permissions: str = "rwm"
    uid: int | None = None
    gid: int | None = None


@dataclass(frozen=True, slots=True)
class CdiMount:
    """A mount; `kind` is "" for a bind mount."""

    host_path: str
    container_path: str
    options: tuple[str, ...] = ()
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Edits:
    """What changes in a container. `refused` names what we do not do, as `hook createContainer (/bin/x)`."""

    env: tuple[str, ...] = ()
    nodes: tuple[CdiNode, ...] = ()
    mounts: tuple[CdiMount, ...] = ()
    groups: tuple[int, ...] = ()
    refused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CdiDevice:
    """One device by its name within the kind."""

    name: str
    edits: Edits


@dataclass(frozen=True, slots=True)
class CdiSpec:
    """One file: `kind` is `vendor/class`; `edits` are for whoever uses any of its devices."""

    path: str
    kind: str
    devices: tuple[CdiDevice, ...]
    edits: Edits


def is_qualified_name(text: str) -> bool:
    """`vendor.com/class=name`, as clients tell it from a path."""
    kind, equals, name = text.partition("=")
    return bool(equals) and _is_kind(kind) and bool(_NAME.match(name))


def parse_spec(data: bytes, path: str) -> CdiSpec:
    """A spec file.

    Raises:
        InvalidInput: not JSON, or not as the specification wants it.
    """
    if path.endswith((".yaml", ".yml")) and not data.lstrip().startswith(b"{"):
        raise InvalidInput(
            f"CDI spec {path} is YAML, which is not read here",
            hint="write it as JSON, for instance with nvidia-ctk cdi generate --format=json",
        )
    reader = _Reader(path)
    try:
        document = reader.mapping(gojson.parse(data, limit=_MAX_FILE_BYTES), "the document")
    except gojson.InvalidJson as error:
        raise reader.wrong(error.message) from error
    version = reader.text(document, "cdiVersion")
    if version.removeprefix("v") not in _VERSIONS:
        raise reader.wrong(f"unknown cdiVersion {version[:40]!r}")
    kind = reader.text(document, "kind")
    if not _is_kind(kind):
        raise reader.wrong(f"invalid kind {kind[:100]!r}")
    devices = tuple(reader.device(item) for item in reader.items(document, "devices"))
    names = [device.name for device in devices]
    if not names:
        raise reader.wrong("no devices")
    if len(set(names)) != len(names):
        raise reader.wrong("two devices have the same name")
    return CdiSpec(path, kind, devices, reader.edits(document))


def _is_kind(text: str) -> bool:
    vendor, slash, class_ = text.partition("/")
    return bool(slash) and len(text) <= 255 and bool(_VENDOR.match(vendor)) and bool(_CLASS.match(class_))


class _Reader:
    """Typed access to the JSON of one file; whatever is not as expected is told with the file's name."""

    def __init__(self, path: str) -> None:
        self._path = path

    def wrong(self, what: str) -> InvalidInput:
        return InvalidInput(f"invalid CDI spec {self._path}: {what}")

    def mapping(self, value: Any, what: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self.wrong(f"{what} is no object")
        return value

    def items(self, parent: dict[str, Any], key: str) -> list[dict[str, Any]]:
        values = parent.get(key)
        if values is None:
            return []
        if not isinstance(values, list) or len(values) > _MAX_ITEMS:
            raise self.wrong(f"{key} is no list")
        return [self.mapping(value, f"an item of {key}") for value in values]

    def text(self, parent: dict[str, Any], key: str, default: str | None = None) -> str:
        value = parent.get(key, default)
        if not isinstance(value, str) or "\0" in value or len(value) > _MAX_TEXT:
            raise self.wrong(f"{key} is missing or no text")
        return value

    def texts(self, parent: dict[str, Any], key: str) -> tuple[str, ...]:
        values = parent.get(key)
        if values is None:
            return ()
        if not isinstance(values, list) or len(values) > _MAX_ITEMS:
            raise self.wrong(f"{key} is no list")
        return tuple(self.text({key: value}, key) for value in values)

    def number(self, parent: dict[str, Any], key: str, limit: int = (1 << 32) - 1) -> int | None:
        value = parent.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= limit:
            raise self.wrong(f"{key} is out of range")
        return value

    def inner_path(self, parent: dict[str, Any], key: str) -> str:
        path = self.text(parent, key)
        if not path.startswith("/") or ".." in path.split("/") or path.strip("/") == "":
            raise self.wrong(f"{key} {path[:100]!r} is no path in a container")
        return path

    def device(self, item: dict[str, Any]) -> CdiDevice:
        name = self.text(item, "name")
        if not _NAME.match(name) or len(name) > 255:
            raise self.wrong(f"invalid device name {name[:100]!r}")
        if "containerEdits" not in item:
            raise self.wrong(f"device {name!r} has no containerEdits")
        return CdiDevice(name, self.edits(item))

    def edits(self, parent: dict[str, Any]) -> Edits:
        found = parent.get("containerEdits")
        if found is None:
            return Edits()
        edits = self.mapping(found, "containerEdits")
        env = self.texts(edits, "env")
        if any(not item.partition("=")[0] or "=" not in item for item in env):
            raise self.wrong("an item of env is not NAME=VALUE")
        groups = edits.get("additionalGids", edits.get("additionalGIDs")) or []
        if not isinstance(groups, list) or len(groups) > _MAX_ITEMS:
            raise self.wrong("additionalGids is no list")
        return Edits(
            env=env,
            nodes=tuple(self.node(item) for item in self.items(edits, "deviceNodes")),
            mounts=tuple(self.mount(item) for item in self.items(edits, "mounts")),
            groups=tuple(self.number({"gid": item}, "gid") or 0 for item in groups if item != 0),
            refused=self.refused(edits),
        )

    def node(self, item: dict[str, Any]) -> CdiNode:
        path = self.inner_path(item, "path")
        kind = self.text(item, "type", "")
        permissions = self.text(item, "permissions", "") or "rwm"
        host_path = self.text(item, "hostPath", "") or path
        if kind not in _KINDS or set(permissions) - set("rwm") or not host_path.startswith("/"):
            raise self.wrong(f"invalid device node {path[:100]!r}")
        if kind == "p":
            raise self.wrong(f"device node {path[:100]!r} is a pipe, which is no device")
        return CdiNode(
            path=path,
            host_path=host_path,
            kind="c" if kind == "u" else kind,
            major=self.number(item, "major"),
            minor=self.number(item, "minor"),
            mode=self.number(item, "fileMode", 0o7777),
            permissions=permissions,
            uid=self.number(item, "uid"),
            gid=self.number(item, "gid"),
        )

    def mount(self, item: dict[str, Any]) -> CdiMount:
        kind = self.text(item, "type", "")
        host_path = self.text(item, "hostPath", "")
        is_tmpfs = kind == "tmpfs"
        if kind not in ("", "bind", "none", "tmpfs") or not (is_tmpfs or host_path.startswith("/")):
            raise self.wrong(f"invalid mount of {host_path[:100]!r}")
        options = self.texts(item, "options")
        return CdiMount(
            host_path, self.inner_path(item, "containerPath"), options, "tmpfs" if is_tmpfs else ""
        )

    def refused(self, edits: dict[str, Any]) -> tuple[str, ...]:
        found = []
        for hook in self.items(edits, "hooks"):
            name = self.text(hook, "hookName")
            if name not in _HOOKS:
                raise self.wrong(f"invalid hook name {name[:60]!r}")
            found.append(f"hook {name} ({self.text(hook, 'path')[:200]})")
        found += [word for word in ("intelRdt", "netDevices") if edits.get(word)]
        return tuple(found)
