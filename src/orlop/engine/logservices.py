"""Log services: where they are and how they are spoken to, from the options of a driver.

Pure: nothing is looked up or connected here; the sender does that when the container starts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Protocol

from orlop.base.errors import InvalidInput

__all__ = ["LogServiceOptions", "service_address", "service_settings"]

LogServiceOptions = dict[str, str | float | bool]

JOURNAL_SOCKET = "/run/systemd/journal/socket"
_SCHEMES = {
    "syslog": ("unix", "unixgram", "udp", "tcp"),
    "fluentd": ("unix", "tcp"),
    "gelf": ("udp", "tcp"),
    "journald": ("unixgram",),
}
_PORTS = {"syslog": 514, "fluentd": 24224, "gelf": 12201}
_FORMATS = ("", "rfc3164", "rfc5424", "rfc5424micro")
_FACILITIES = (
    *("kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp"),
    *("", "", "", ""),
    *(f"local{number}" for number in range(8)),
)
_DAEMON = 3
# the sender's own limits hold instead: it has the log on disk for a queue and keeps nobody waiting
_CHECKED_ONLY = ("fluentd-async-reconnect-interval", "fluentd-read-timeout", "fluentd-write-timeout")
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ms|s|m|h)\Z")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_URL = re.compile(r"([a-z0-9+]+)://(.*)\Z", re.DOTALL)
_HOST = re.compile(r"(\[[0-9a-fA-F:.%]{2,60}\]|[A-Za-z0-9._-]{1,253})(?::(\d{1,5}))?\Z")
_MAX_PORT = 65535


class _Size(Protocol):
    def __call__(self, options: Mapping[str, str], name: str, default: int) -> int: ...


class _Bool(Protocol):
    def __call__(self, options: Mapping[str, str], name: str, *, default: bool = False) -> bool: ...


def service_address(kind: str, options: Mapping[str, str]) -> str:
    """`unixgram:///path`, `unix:///path`, `tcp://host:port` or `udp://host:port`; "" = the host's syslog.

    Raises:
        InvalidInput: no such form, or a scheme that this service does not have.
    """
    text = options.get(f"{kind}-address", "")
    if not text:
        if kind == "journald":
            return f"unixgram://{JOURNAL_SOCKET}"
        if kind == "gelf":
            raise InvalidInput("gelf: gelf-address is a required parameter")
        return "tcp://127.0.0.1:24224" if kind == "fluentd" else ""
    if kind == "fluentd" and "://" not in text:
        text = f"tcp://{text}"
    found = _URL.match(text)
    if not found:
        raise InvalidInput(f"{kind}-address should be in form proto://address, got {text[:100]}")
    scheme, rest = found[1], found[2]
    if scheme not in _SCHEMES[kind]:
        raise InvalidInput(
            f"{kind}-address {text[:100]!r}: unsupported scheme: {scheme}",
            hint=f"supported are {', '.join(_SCHEMES[kind])}; let a relay on this host speak TLS",
        )
    if scheme.startswith("unix"):
        if not rest.startswith("/"):
            raise InvalidInput(f"{kind}-address {text[:100]!r}: the path is not absolute")
        return text
    place = _HOST.match(rest.rstrip("/"))
    if not place or int(place[2] or 1) > _MAX_PORT or not int(place[2] or 1):
        raise InvalidInput(f"invalid {kind}-address: {text[:100]!r}")
    return f"{scheme}://{place[1]}:{place[2] or _PORTS[kind]}"


def service_settings(
    kind: str, options: Mapping[str, str], parse_size: _Size, parse_bool: _Bool
) -> LogServiceOptions:
    """The other options of a service, as values.

    Raises:
        InvalidInput: a value that is none.
    """
    if kind == "syslog":
        return {"facility": _facility(options.get("syslog-facility", "")), "format": _format(options)}
    if kind == "fluentd":
        parse_size(options, "fluentd-buffer-limit", 0)
        for name in _CHECKED_ONLY:
            _duration(options, name, 0.0)
        is_async = parse_bool(options, "fluentd-async") or parse_bool(options, "fluentd-async-connect")
        return {
            "is_async": is_async,
            "retry_wait_s": _duration(options, "fluentd-retry-wait", 1.0),
            "max_retries": _number(options, "fluentd-max-retries", 0),
            "has_ack": parse_bool(options, "fluentd-request-ack"),
            "has_nanoseconds": parse_bool(options, "fluentd-sub-second-precision"),
        }
    if kind == "gelf":
        compression = options.get("gelf-compression-type", "gzip")
        if compression not in ("gzip", "zlib", "none"):
            raise InvalidInput("gelf: invalid value for gelf-compression-type")
        level = options.get("gelf-compression-level", "1")
        if not re.fullmatch(r"-1|\d", level):
            raise InvalidInput("gelf: gelf-compression-level must be between -1 and 9")
        return {
            "compression": compression,
            "level": int(level),
            "max_retries": _number(options, "gelf-tcp-max-reconnect", 3),
            "retry_wait_s": _number(options, "gelf-tcp-reconnect-delay", 1),
        }
    return {}


def _facility(text: str) -> int:
    if not text:
        return _DAEMON
    if text in _FACILITIES:
        return _FACILITIES.index(text)
    if text.isascii() and text.isdecimal() and len(text) <= 2 and int(text) < len(_FACILITIES):
        return int(text)
    raise InvalidInput("invalid syslog facility")


def _format(options: Mapping[str, str]) -> str:
    text = options.get("syslog-format", "")
    if text not in _FORMATS:
        raise InvalidInput("Invalid syslog format")
    return text


def _number(options: Mapping[str, str], name: str, default: int) -> int:
    text = options.get(name, "")
    if not text:
        return default
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise InvalidInput(f"{name} must be a positive integer")
    return int(text)


def _duration(options: Mapping[str, str], name: str, default: float) -> float:
    """In seconds."""
    text = options.get(name, "")
    if not text:
        return default
    found = _DURATION.match(text)
    if not found:
        raise InvalidInput(f'invalid {name}: time: invalid duration "{text[:40]}"')
    return float(found[1]) * _SECONDS[found[2]]
