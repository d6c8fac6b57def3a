"""Image configs: what a container of the image gets, what its layers are, how it came about.

Specs: OCI image-spec, config; Docker image spec v1.2 (Healthcheck, OnBuild, Shell,
ArgsEscaped). Bytes are kept as received, since their digest is the image id. A derived
config is made by patching the received JSON, so keys that we do not know survive.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orlop.base.clock import format_rfc3339_nano, parse_rfc3339_nano
from orlop.oci.digest import Digest, digest_of, parse_digest
from orlop.oci.manifest import MAX_LAYERS
from orlop.oci.platform import Platform, normalize_arch
from orlop.oci.strictjson import HARD_LIMIT_BYTES, Fields, MalformedDocument, decode

__all__ = ["Healthcheck", "HistoryEntry", "ImageConfig", "RunConfig", "derive_config", "parse_image_config"]

_MAX_ENTRIES = 10_000
_MAX_HISTORY = 4_096
_TOP_KEYS = (
    *("created", "author", "architecture", "os", "os.version", "os.features", "variant"),
    *("config", "rootfs", "history", "comment", "docker_version", "parent"),
)
_RUN_KEYS = (
    *("User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels", "StopSignal"),
    *("Shell", "Healthcheck", "OnBuild", "ArgsEscaped"),
)
_HEALTH_KEYS = ("Test", "Interval", "Timeout", "StartPeriod", "StartInterval", "Retries")
_HISTORY_KEYS = ("created", "created_by", "author", "comment", "empty_layer")
# what the classic builder wrote about the container of the last step: false for a derived image
_STALE_KEYS = ("container", "container_config", "id", "parent")


@dataclass(frozen=True, slots=True)
class Healthcheck:
    """How to probe a container; times in nanoseconds, 0 means inherit or default."""

    test: tuple[str, ...] = ()
    interval_ns: int = 0
    timeout_ns: int = 0
    start_period_ns: int = 0
    start_interval_ns: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True)
class RunConfig:
    """Defaults for containers. None and empty differ for entrypoint, cmd and shell."""

    user: str = ""
    exposed_ports: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    volumes: tuple[str, ...] = ()
    working_dir: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    stop_signal: str = ""
    shell: tuple[str, ...] | None = None
    healthcheck: Healthcheck | None = None
    on_build: tuple[str, ...] = ()
    args_escaped: bool = False


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One step of an image's making; `empty_layer` steps have no layer of their own."""

    created_ns: int | None = None
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """A parsed image config."""

    raw: bytes
    platform: Platform
    run: RunConfig
    diff_ids: tuple[Digest, ...]
    history: tuple[HistoryEntry, ...] = ()
    created_ns: int | None = None
    author: str = ""
    comment: str = ""
    docker_version: str = ""
    parent: str = ""

    @property
    def digest(self) -> Digest:
        """sha256 of the bytes: the image id."""
        return digest_of(self.raw)


def parse_image_config(data: bytes) -> ImageConfig:
    """Parse an image config.

    Raises:
        MalformedDocument, InvalidDigest: breaks the schema, or has more layer-making
            history entries than layers.
    """
    fields = Fields(decode(data, "image config", HARD_LIMIT_BYTES), "image config", _TOP_KEYS)
    rootfs = fields.child("rootfs", ("type", "diff_ids"))
    if rootfs is None or rootfs.text("type") != "layers":
        raise MalformedDocument('image config: rootfs of type "layers" is missing')
    diff_ids = tuple(parse_digest(text) for text in rootfs.texts("diff_ids", MAX_LAYERS) or ())
    history = tuple(_history(entry) for entry in fields.children("history", _MAX_HISTORY, _HISTORY_KEYS))
    if sum(not entry.empty_layer for entry in history) > len(diff_ids):
        raise MalformedDocument("image config: history names more layers than rootfs has")
    run = fields.child("config", _RUN_KEYS)
    arch, variant = normalize_arch(fields.text("architecture"), fields.text("variant"))
    return ImageConfig(
        raw=data,
        platform=Platform(
            fields.text("os").lower(),
            arch,
            variant,
            fields.text("os.version"),
            fields.texts("os.features", 100) or (),
        ),
        run=RunConfig() if run is None else _run_config(run),
        diff_ids=diff_ids,
        history=history,
        created_ns=_time(fields, "created"),
        author=fields.text("author"),
        comment=fields.text("comment"),
        docker_version=fields.text("docker_version"),
        parent=fields.text("parent"),
    )


def derive_config(
    base: ImageConfig | None,
    *,
    run: RunConfig,
    history: HistoryEntry | Sequence[HistoryEntry],
    layer: Digest | None = None,
    layers: Sequence[Digest] = (),
    platform: Platform | None = None,
    author: str | None = None,
    created_ns: int | None = None,
) -> bytes:
    """The bytes of a new config on top of `base` (None: from nothing).

    Args:
        base: its unknown keys, layers and history are kept.
        run: the complete new run config; known keys of the old one are replaced.
        history: the step or steps added.
        layer: diff id of the layer that the steps added, if any.
        layers: diff ids, bottom first, when they added several.
        platform: required without a base.
        author: None keeps the base's.
        created_ns: None takes the time of the last step.

    Returns:
        Compact JSON; equal arguments give equal bytes.
    """
    document: dict[str, Any] = {} if base is None else json.loads(base.raw)
    entries = [history] if isinstance(history, HistoryEntry) else list(history)
    for key in _STALE_KEYS:
        document.pop(key, None)
    chosen = platform or (base.platform if base else None)
    assert chosen is not None, "a config from nothing needs a platform"
    if base is None or platform is not None:
        document |= {"architecture": chosen.architecture, "os": chosen.os}
        document.pop("variant", None)
        if chosen.variant:
            document["variant"] = chosen.variant
    if author is not None:
        document["author"] = author
    created = created_ns if created_ns is not None else entries[-1].created_ns if entries else None
    if created is not None:
        document["created"] = format_rfc3339_nano(created)
    document["config"] = _patched_run(document.get("config") or {}, run)
    old = base.diff_ids if base else ()
    document["rootfs"] = {"type": "layers", "diff_ids": [*old, *([layer] if layer else layers)]}
    document["history"] = [*(document.get("history") or []), *map(_history_json, entries)]
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def _run_config(fields: Fields) -> RunConfig:
    health = fields.child("Healthcheck", _HEALTH_KEYS)
    return RunConfig(
        user=fields.text("User"),
        exposed_ports=fields.names("ExposedPorts", _MAX_ENTRIES),
        env=fields.texts("Env", _MAX_ENTRIES) or (),
        entrypoint=fields.texts("Entrypoint", _MAX_ENTRIES),
        cmd=fields.texts("Cmd", _MAX_ENTRIES),
        volumes=fields.names("Volumes", _MAX_ENTRIES),
        working_dir=fields.text("WorkingDir"),
        labels=fields.text_map("Labels", _MAX_ENTRIES),
        stop_signal=fields.text("StopSignal"),
        shell=fields.texts("Shell", _MAX_ENTRIES),
        healthcheck=None if health is None else _healthcheck(health),
        on_build=fields.texts("OnBuild", _MAX_ENTRIES) or (),
        args_escaped=fields.flag("ArgsEscaped"),
    )


def _healthcheck(fields: Fields) -> Healthcheck:
    return Healthcheck(
        test=fields.texts("Test", _MAX_ENTRIES) or (),
        interval_ns=fields.integer("Interval"),
        timeout_ns=fields.integer("Timeout"),
        start_period_ns=fields.integer("StartPeriod"),
        start_interval_ns=fields.integer("StartInterval"),
        retries=fields.integer("Retries"),
    )


def _history(fields: Fields) -> HistoryEntry:
    return HistoryEntry(
        created_ns=_time(fields, "created"),
        created_by=fields.text("created_by"),
        author=fields.text("author"),
        comment=fields.text("comment"),
        empty_layer=fields.flag("empty_layer"),
    )


def _time(fields: Fields, key: str) -> int | None:
    text = fields.text(key)
    if not text:
        return None
    try:
        return parse_rfc3339_nano(text)
    except (ValueError, OverflowError) as error:
        raise MalformedDocument(f"{fields.where}: {key} is not an RFC 3339 time: {text[:60]!r}") from error


def _history_json(entry: HistoryEntry) -> dict[str, object]:
    value: dict[str, object] = {}
    if entry.created_ns is not None:
        value["created"] = format_rfc3339_nano(entry.created_ns)
    value |= {key: text for key in ("created_by", "author", "comment") if (text := getattr(entry, key))}
    if entry.empty_layer:
        value["empty_layer"] = True
    return value


def _patched_run(old: Mapping[str, Any], run: RunConfig) -> dict[str, Any]:
    health = run.healthcheck
    values: dict[str, object] = {
        "User": run.user,
        "ExposedPorts": {name: {} for name in run.exposed_ports},
        "Env": list(run.env),
        "Entrypoint": None if run.entrypoint is None else list(run.entrypoint),
        "Cmd": None if run.cmd is None else list(run.cmd),
        "Volumes": {name: {} for name in run.volumes},
        "WorkingDir": run.working_dir,
        "Labels": dict(run.labels),
        "StopSignal": run.stop_signal,
        "Shell": None if run.shell is None else list(run.shell),
        "Healthcheck": None if health is None else _healthcheck_json(health),
        "OnBuild": list(run.on_build),
        "ArgsEscaped": run.args_escaped,
    }
    listed = {"Entrypoint", "Cmd", "Shell"}  # an empty list says "nothing", which is not "unset"
    merged = {key: value for key, value in old.items() if key not in values}
    merged |= {key: value for key, value in values.items() if value or (key in listed and value is not None)}
    order = [key for key in old if key in merged]
    return {key: merged[key] for key in [*order, *(key for key in merged if key not in order)]}


def _healthcheck_json(health: Healthcheck) -> dict[str, object]:
    values: dict[str, object] = {
        "Test": list(health.test),
        "Interval": health.interval_ns,
        "Timeout": health.timeout_ns,
        "StartPeriod": health.start_period_ns,
        "StartInterval": health.start_interval_ns,
        "Retries": health.retries,
    }
    return {key: value for key, value in values.items() if value}
