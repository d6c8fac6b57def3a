"""Log drivers: their names, their options, and what a supervisor is told of them.

Every driver keeps the log on disk (docs/internals/logs.md), so that it can be read back; the drivers with
a service send a copy there. Options and refusals are Docker's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from orlop.base.errors import InvalidInput
from orlop.engine.logservices import LogServiceOptions, service_address, service_settings
from orlop.engine.model import Record
from orlop.engine.requests import ContainerConfig, LogConfig
from orlop.runtime.spec import LogServiceSpec, LogSpec

__all__ = ["DEFAULT_DRIVER", "DRIVERS", "attributes", "check_log", "is_readable", "log_spec", "render_tag"]

DEFAULT_DRIVER = "json-file"
_ATTRIBUTES = ("env", "env-regex", "labels", "labels-regex", "tag")
_CACHE = ("cache-disabled", "cache-max-size", "cache-max-file", "cache-compress")
_OPTIONS: dict[str, tuple[str, ...]] = {
    "json-file": ("compress", "max-file", "max-size", *_ATTRIBUTES),
    "local": ("compress", "max-file", "max-size"),
    "journald": ("journald-address", *_ATTRIBUTES),
    "syslog": ("syslog-address", "syslog-facility", "syslog-format", *_ATTRIBUTES),
    "fluentd": (
        "fluentd-address",
        "fluentd-async",
        "fluentd-async-connect",
        "fluentd-async-reconnect-interval",
        "fluentd-buffer-limit",
        "fluentd-max-retries",
        "fluentd-read-timeout",
        "fluentd-request-ack",
        "fluentd-retry-wait",
        "fluentd-sub-second-precision",
        "fluentd-write-timeout",
        *_ATTRIBUTES,
    ),
    "gelf": (
        "gelf-address",
        "gelf-compression-level",
        "gelf-compression-type",
        "gelf-tcp-max-reconnect",
        "gelf-tcp-reconnect-delay",
        *_ATTRIBUTES,
    ),
}
DRIVERS = (*sorted(_OPTIONS), "none")
_SERVICES = ("journald", "syslog", "fluentd", "gelf")
_DEFAULT_SIZE = 20 << 20
_DEFAULT_FILES = 5
_SIZE = re.compile(r"(\d{1,15})([bkmg]?)(i?b)?\Z", re.IGNORECASE)
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_FIELD = re.compile(r"\{\{\s*\.(\w+)\s*\}\}")
_TRUE, _FALSE = ("1", "t", "T", "true", "TRUE", "True"), ("0", "f", "F", "false", "FALSE", "False")
_SHORT_ID = 12


def check_log(config: LogConfig) -> None:
    """Refuse what could never be started, as dockerd does at create.

    Raises:
        InvalidInput: an unknown driver or option, a value that is none.
    """
    kind, options = config.type or DEFAULT_DRIVER, config.config or {}
    if kind == "none":
        return
    if kind not in _OPTIONS:
        raise InvalidInput(f"logger: no log driver named '{kind[:100]}' is registered")
    _check_mode(options)
    for name in options:
        if name not in _OPTIONS[kind] and name not in ("mode", "max-buffer-size", *_CACHE):
            driver = "log driver local" if kind == "local" else f"{kind} log driver"
            raise InvalidInput(f"unknown log opt '{name[:100]}' for {driver}")
    _bounds(kind, options)
    for name in ("labels-regex", "env-regex"):
        _pattern(options, name)
    render_tag(options.get("tag", ""), dict.fromkeys(_TAG_FIELDS, ""))
    if kind in _SERVICES:
        service_address(kind, options)
        service_settings(kind, options, parse_size, parse_bool)


def is_readable(config: LogConfig) -> bool:
    """False when there is nothing to read: driver `none`, or a service without the copy kept here."""
    options = config.config or {}
    is_cached = config.type not in _SERVICES or not parse_bool(options, "cache-disabled")
    return config.type != "none" and is_cached


def attributes(record: Record) -> dict[str, str]:
    """Labels, variables and tag that the options select; what `--details` prints."""
    config, options = record.config, record.host.log_config.config or {}
    found = _selected(options, "labels", dict(config.labels or {}))
    found |= _selected(options, "env", _environment(config))
    if options.get("tag"):
        found["tag"] = render_tag(options["tag"], _tag_values(record))
    return found


def log_spec(record: Record, directory: str) -> LogSpec:
    """Where and how much is logged, and who else is told."""
    config = record.host.log_config
    kind, options = config.type or DEFAULT_DRIVER, config.config or {}
    if kind == "none":
        return LogSpec("none", directory)
    size, files, is_compressed = _bounds(kind, options)
    return LogSpec(
        driver=kind,
        directory=directory,
        max_size_bytes=size,
        max_files=files,
        is_compressed=is_compressed,
        service=_service(record, kind, options) if kind in _SERVICES else None,
    )


def parse_size(options: Mapping[str, str], name: str, default: int) -> int:
    """A size with a unit.

    Raises:
        InvalidInput: it is none, or nothing.
    """
    text = options.get(name, "").strip()
    if not text or (text == "-1" and name.endswith("max-size")):
        return default
    found = _SIZE.match(text)
    if not found:
        raise InvalidInput(f"invalid size: '{text[:40]}'")
    value = int(found[1]) * _UNITS[found[2].lower()]
    if value <= 0:
        raise InvalidInput(f"{name} must be a positive number")
    return value


def parse_bool(options: Mapping[str, str], name: str, *, default: bool = False) -> bool:
    """Go's strconv.ParseBool.

    Raises:
        InvalidInput: neither true nor false.
    """
    text = options.get(name, "")
    if not text:
        return default
    if text not in (*_TRUE, *_FALSE):
        raise InvalidInput(
            f'invalid value for {name}: strconv.ParseBool: parsing "{text[:40]}": invalid syntax'
        )
    return text in _TRUE


def render_tag(template: str, values: Mapping[str, str]) -> str:
    """A tag: `{{.ID}}` and its like replaced.

    Raises:
        InvalidInput: more of Go's template language than fields, or an unknown field.
    """

    def value_of(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise InvalidInput(
                f"invalid log tag: there is no field {match[1][:40]!r}", hint=f"known are {', '.join(values)}"
            )
        return values[match[1]]

    rest = _FIELD.sub("", template)
    if "{{" in rest or "}}" in rest:
        raise InvalidInput(
            f"invalid log tag: {template[:100]!r}", hint="only fields such as {{.Name}} are replaced"
        )
    return _FIELD.sub(value_of, template)


_TAG_FIELDS: dict[str, Callable[[Record], str]] = {
    "ID": lambda record: record.id[:_SHORT_ID],
    "FullID": lambda record: record.id,
    "Name": lambda record: record.name,
    "ImageID": lambda record: record.image_id.removeprefix("sha256:")[:_SHORT_ID],
    "ImageFullID": lambda record: record.image_id,
    "ImageName": lambda record: record.image_name,
    "Command": lambda record: " ".join((record.path, *record.args)),
    "ContainerID": lambda record: record.id,
    "ContainerName": lambda record: f"/{record.name}",
    "ContainerImageID": lambda record: record.image_id,
    "ContainerImageName": lambda record: record.image_name,
    "DaemonName": lambda _: "docker",
}


def _tag_values(record: Record) -> dict[str, str]:
    return {name: value_of(record) for name, value_of in _TAG_FIELDS.items()}


def _check_mode(options: Mapping[str, str]) -> None:
    mode = options.get("mode", "")
    if mode not in ("", "blocking", "non-blocking"):
        raise InvalidInput(f"logger: logging mode not supported: {mode[:40]}")
    if "max-buffer-size" in options:
        if mode != "non-blocking":
            raise InvalidInput("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
        parse_size(options, "max-buffer-size", 0)


def _bounds(kind: str, options: Mapping[str, str]) -> tuple[int, int, bool]:
    """Size of a file, number of files, whether older ones are compressed."""
    prefix = "cache-" if kind in _SERVICES else ""
    size = parse_size(options, f"{prefix}max-size", _DEFAULT_SIZE)
    text = options.get(f"{prefix}max-file") or str(_DEFAULT_FILES)
    if not text.isascii() or not text.isdecimal() or int(text[:9]) < 1:
        raise InvalidInput(f"{prefix}max-file cannot be less than 1")
    files = int(text[:9])
    parse_bool(options, "cache-disabled")
    is_asked = bool(options.get(f"{prefix}compress"))
    is_compressed = parse_bool(options, f"{prefix}compress", default=kind != DEFAULT_DRIVER) and files > 1
    if is_asked and files < 2 and parse_bool(options, f"{prefix}compress"):
        raise InvalidInput("compress cannot be true when max-file is less than 2 or max-size is not set")
    return size, files, is_compressed


def _environment(config: ContainerConfig) -> dict[str, str]:
    return {
        name: value
        for name, has_value, value in (item.partition("=") for item in config.env or ())
        if has_value
    }


def _selected(options: Mapping[str, str], name: str, values: Mapping[str, str]) -> dict[str, str]:
    listed = options.get(name, "")
    found = {key: values[key] for key in listed.split(",") if listed and key in values}
    pattern = _pattern(options, f"{name}-regex")
    if pattern is not None:
        found |= {key: value for key, value in values.items() if pattern.search(key)}
    return found


def _pattern(options: Mapping[str, str], name: str) -> re.Pattern[str] | None:
    text = options.get(name, "")
    if not text:
        return None
    try:
        return re.compile(text)
    except re.error as error:
        raise InvalidInput(f"invalid {name} {text[:60]!r}: {error}") from error


def _service(record: Record, kind: str, options: Mapping[str, str]) -> LogServiceSpec:
    settings: LogServiceOptions = service_settings(kind, options, parse_size, parse_bool)
    extra = attributes(record)
    extra.pop("tag", None)
    return LogServiceSpec(
        kind=kind,
        address=service_address(kind, options),
        tag=render_tag(options.get("tag") or "{{.ID}}", _tag_values(record)),
        container_id=record.id,
        container_name=record.name,
        image_id=record.image_id,
        image_name=record.image_name,
        command=" ".join((record.path, *record.args)),
        created_ns=record.created_ns,
        attributes=extra,
        settings=settings,
    )
