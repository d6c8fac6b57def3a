"""The settings of `orlopd`: dockerd's flags and daemon.json keys, in one table.

Pure: text in, `Settings` out. A setting may be given as a flag or in the file, not both. Whatever launches
dockerd can launch orlopd: flags without effect here are accepted and answered with a note;
unknown ones are an error.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from orlop.aio.proxy import masked_proxy
from orlop.base.errors import InvalidInput
from orlop.daemon_flag_table import BOOL, BY_KEY, BY_NAME, BY_SHORT, FLAGS, Flag
from orlop.engine.network_settings import NetworkSettings, read_network_settings
from orlop.engine.runtimes import configured_runtimes, parse_runtime
from orlop.runtime.spec import RuntimeSpec

__all__ = ["DEFAULT_CONFIG_FILE", "FLAGS", "Flag", "Settings", "ShowHelp", "parse_flags", "resolve"]

DEFAULT_CONFIG_FILE = "/etc/orlop/daemon.json"
DEFAULT_DATA_ROOT = "/var/lib/orlop"
DEFAULT_EXEC_ROOT = "/run/orlop"
DEFAULT_CDI_DIRS = ("/etc/cdi", "/var/run/cdi")

Values = dict[str, Any]  # flag name -> bool, str, int or list of str


@dataclass(frozen=True, slots=True)
class Settings:
    """What the engine is told to be."""

    hosts: tuple[str, ...] = ()
    data_root: str = DEFAULT_DATA_ROOT
    exec_root: str = DEFAULT_EXEC_ROOT
    pidfile: str = ""
    is_debug: bool = False
    log_level: str = "info"
    log_format: str = "text"
    group: str = "docker"
    labels: tuple[str, ...] = ()
    insecure_registries: tuple[str, ...] = ()
    registry_mirrors: tuple[str, ...] = ()
    registry_config_dirs: tuple[str, ...] = ()  # none said: the usual places
    blocked_registries: tuple[str, ...] = ()
    search_index: str = ""
    http_proxy: str | None = None  # None: not said, the environment decides
    https_proxy: str | None = None
    no_proxy: str | None = None
    max_download_attempts: int = 5
    has_init: bool = False
    runtimes: tuple[RuntimeSpec, ...] = ()
    default_runtime: str = ""
    cgroupns_mode: str = "private"
    cgroup_parent: str = ""
    is_experimental: bool = False
    features: Mapping[str, bool] = field(default_factory=dict)
    is_tls: bool | None = None  # None: not said
    is_tls_verify: bool = False
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    log_driver: str = "json-file"
    log_options: Mapping[str, str] = field(default_factory=dict)
    ulimits: tuple[tuple[str, int, int], ...] = ()
    cdi_spec_dirs: tuple[str, ...] = DEFAULT_CDI_DIRS
    shm_size_bytes: int = 64 << 20
    no_new_privileges: bool = False
    default_security: str = "docker"
    userns_mode: str = "host"  # of containers that ask for none: host or auto
    userns_pool: str = ""
    userns_remap: str = ""
    seccomp_profile: str = "builtin"  # or "unconfined", or a file's path
    max_downloads: int = 3
    max_uploads: int = 5
    keeps_containers: bool = True
    dns: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    shutdown_timeout_s: int = 15
    stats_interval_s: int = 60
    image_gc: Mapping[str, str] = field(default_factory=dict)
    metrics_address: str = ""
    networks: NetworkSettings = field(default_factory=NetworkSettings)
    notes: tuple[str, ...] = ()


class ShowHelp(Exception):
    """`--help` or `--version` was asked for; the argument is the text."""


_PROXY_NAMES = ("http-proxy", "https-proxy", "no-proxy")
_TRUE = frozenset({"1", "t", "true"})
_FALSE = frozenset({"0", "f", "false"})


def parse_flags(argv: Sequence[str]) -> Values:
    """The flags of a command line, by name; LIST and MAP flags give lists of strings.

    Raises:
        InvalidInput: unknown flag, missing or wrong value, an argument that is no flag.
        ShowHelp: help or version was asked for.
    """
    values: Values = {}
    pending = list(argv)[::-1]
    while pending:
        word = pending.pop()
        if word in ("--help", "-h"):
            raise ShowHelp(_help_text())
        if word in ("--version", "-v"):
            from orlop.base.version import VERSION

            raise ShowHelp(f"Orlop version {VERSION}\n")
        flag, text = _split(word)
        if text is None:
            if flag.kind == BOOL:
                text = "true"
            elif pending:
                text = pending.pop()
            else:
                raise InvalidInput(f"flag needs an argument: {word}")
        _store(values, flag, text)
    return values


def _split(word: str) -> tuple[Flag, str | None]:
    """`--name=value`, `--name`, `-H value`, `-Hvalue`, `-H=value` -> the flag and its text, if any."""
    if word.startswith("--") and len(word) > 2:
        name, equals, text = word[2:].partition("=")
        flag = BY_NAME.get(name)
        if flag is None:
            raise InvalidInput(f"unknown flag: --{name[:100]}", hint="see orlopd --help")
        return flag, text if equals else None
    if word.startswith("-") and len(word) > 1:
        flag = BY_SHORT.get(word[1])
        if flag is None:
            raise InvalidInput(
                f"unknown shorthand flag: {word[1]!r} in {word[:100]}", hint="see orlopd --help"
            )
        rest = word[2:].removeprefix("=")
        return flag, rest or None
    raise InvalidInput(f'"orlopd" accepts no arguments: {word[:100]!r}', hint="see orlopd --help")


def _store(values: Values, flag: Flag, text: str) -> None:
    match flag.kind:
        case "bool":
            values[flag.name] = _parse_bool(flag.name, text)
        case "int":
            values[flag.name] = _parse_int(flag.name, text)
        case "list" | "map":
            values.setdefault(flag.name, []).append(text)
        case _:
            values[flag.name] = text


def _parse_bool(name: str, text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise InvalidInput(f'invalid argument "{text[:60]}" for "--{name}" flag: true or false is wanted')


def _parse_int(name: str, text: str) -> int:
    if not text.lstrip("-").isdecimal() or len(text) > 12:
        raise InvalidInput(f'invalid argument "{text[:60]}" for "--{name}" flag: a number is wanted')
    return int(text)


def parse_file(text: str, path: str) -> Values:
    """The settings of a daemon.json, in the form of flags.

    Raises:
        InvalidInput: not JSON, an unknown key, or a value of a wrong type.
    """
    prefix = f"unable to configure the Docker daemon with file {path}: "
    try:
        document = json.loads(text) if text.strip() else {}
    except ValueError as error:
        raise InvalidInput(f"{prefix}invalid JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidInput(f"{prefix}not a JSON object")
    unknown = sorted(key for key in document if key not in BY_KEY)
    if unknown:
        keys = ", ".join(unknown)[:300]
        raise InvalidInput(f"{prefix}the following directives don't match any configuration option: {keys}")
    values = {BY_KEY[key].name: _from_json(BY_KEY[key], value, prefix) for key, value in document.items()}
    for item in values.pop("proxies", ()):
        name, _, value = item.partition("=")
        if name not in _PROXY_NAMES:
            raise InvalidInput(f"{prefix}proxies: {name[:60]!r} is none of {', '.join(_PROXY_NAMES)}")
        values[name] = value
    return values


def _from_json(flag: Flag, value: Any, prefix: str) -> Any:
    wrong = InvalidInput(f"{prefix}{flag.key or flag.name}: a {flag.kind} is wanted")
    if not flag.has_effect:
        return value
    match flag.kind:
        case "bool" if isinstance(value, bool):
            return value
        case "int" if isinstance(value, int) and not isinstance(value, bool):
            return value
        case "string" if isinstance(value, str | int):
            return str(value)
        case "list" if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return list(value)
        case "list" if isinstance(value, dict) and flag.name == "default-ulimit":
            return [_ulimit_text(name, item, wrong) for name, item in value.items()]
        case "list" if flag.name in ("add-runtime", "default-address-pool"):
            return configured_runtimes(value) if flag.name == "add-runtime" else _pool_texts(value, wrong)
        case "map" if isinstance(value, dict):
            return [f"{key}={_json_text(item)}" for key, item in value.items()]
        case _:
            raise wrong


def _ulimit_text(name: str, item: Any, wrong: InvalidInput) -> str:
    if not isinstance(item, dict):
        raise wrong
    return f"{item.get('Name', name)}={item.get('Soft', 0)}:{item.get('Hard', 0)}"


def _pool_texts(value: Any, wrong: InvalidInput) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise wrong
    return [f"base={item.get('base', '')},size={item.get('size', '')}" for item in value]


def _json_text(item: Any) -> str:
    return str(item).lower() if isinstance(item, bool) else str(item)


def resolve(flags: Values, file: Values, path: str) -> Settings:
    """Flags and file together.

    Raises:
        InvalidInput: a setting is in both, or has no meaning.
    """
    both = [name for name in flags if name in file and (BY_NAME[name].key or name in _PROXY_NAMES)]
    if both:
        parts = ", ".join(
            f"{BY_NAME[name].key or name}: "
            f"(from flag: {_shown(flags[name])}, from file: {_shown(file[name])})"
            for name in both
        )
        raise InvalidInput(
            f"unable to configure the Docker daemon with file {path}: the following directives are "
            f"specified both as a flag and in the configuration file: {parts}"
        )
    return _settings({**file, **flags})


def _shown(value: Any) -> str:
    if isinstance(value, str) and "@" in value:
        return masked_proxy(value)
    if isinstance(value, list):
        return f"[{' '.join(str(getattr(item, 'name', item)) for item in value)}]"
    return str(value)


def _settings(values: Values) -> Settings:
    if values.get("userns-remap") and values.get("default-userns-mode"):
        raise InvalidInput("--userns-remap and --default-userns-mode exclude one another")
    driver = values.get("log-driver", "json-file")
    _check_log(driver, dict(_pairs(values, "log-opt")))
    mode = values.get("default-cgroupns-mode", "private")
    if mode not in ("private", "host"):
        raise InvalidInput(f"invalid default cgroup namespace: {mode}")
    settings = Settings(
        hosts=tuple(values.get("host", ())),
        data_root=_directory(values.get("data-root") or values.get("graph") or DEFAULT_DATA_ROOT),
        exec_root=_directory(values.get("exec-root") or DEFAULT_EXEC_ROOT),
        pidfile=values.get("pidfile", ""),
        group=values.get("group", "docker"),
        labels=tuple(values.get("label", ())),
        has_init=values.get("init", False),
        runtimes=tuple(_runtime(item) for item in values.get("add-runtime", ())),
        default_runtime=values.get("default-runtime", ""),
        cgroupns_mode=mode,
        cgroup_parent=values.get("cgroup-parent", ""),
        is_experimental=values.get("experimental", False),
        features={name: _parse_bool("feature", text) for name, text in _pairs(values, "feature")},
        is_tls=values.get("tls"),
        is_tls_verify=values.get("tlsverify", False),
        tls_ca=values.get("tlscacert", ""),
        tls_cert=values.get("tlscert", ""),
        tls_key=values.get("tlskey", ""),
        log_driver=driver,
        log_options=dict(_pairs(values, "log-opt")),
        ulimits=tuple(_parse_ulimit(text) for text in values.get("default-ulimit", ())),
        shm_size_bytes=_parse_size(values.get("default-shm-size", "64m")),
        no_new_privileges=values.get("no-new-privileges", False),
        userns_mode=_word(values, "default-userns-mode", ("host", "auto")),
        userns_pool=values.get("userns-pool", ""),
        userns_remap=values.get("userns-remap", ""),
        default_security=_word(values, "default-security", ("docker", "hardened")),
        seccomp_profile=values.get("seccomp-profile") or "builtin",
        keeps_containers=values.get("live-restore", True),
        cdi_spec_dirs=_cdi_spec_dirs(values),
        dns=tuple(values.get("dns", ())),
        dns_options=tuple(values.get("dns-opt", ())),
        dns_search=tuple(values.get("dns-search", ())),
        shutdown_timeout_s=values.get("shutdown-timeout", 15),
        notes=tuple(f"--{name} has no effect" for name in values if not BY_NAME[name].has_effect),
    )
    return _with_registries(_with_telling(settings, values), values)


def _with_telling(settings: Settings, values: Values) -> Settings:
    """What the engine tells of itself."""
    is_debug = bool(values.get("debug", False))
    return replace(
        settings,
        is_debug=is_debug,
        log_level="debug" if is_debug else values.get("log-level", "info"),
        log_format=_word(values, "log-format", ("text", "json")),
        stats_interval_s=max(values.get("stats-interval", 60), 0),
        image_gc=_image_gc(values),
        metrics_address=_metrics_address(values.get("metrics-addr", "")),
        networks=read_network_settings(values),
    )


def _with_registries(settings: Settings, values: Values) -> Settings:
    """How registries are reached."""
    return replace(
        settings,
        insecure_registries=tuple(values.get("insecure-registry", ())),
        registry_mirrors=tuple(values.get("registry-mirror", ())),
        registry_config_dirs=tuple(_directory(path) for path in values.get("registry-config-dir", ())),
        blocked_registries=tuple(values.get("blocked-registry", ())),
        search_index=values.get("search-index", ""),
        http_proxy=values.get("http-proxy"),
        https_proxy=values.get("https-proxy"),
        no_proxy=values.get("no-proxy"),
        max_download_attempts=_download_attempts(values),
        max_downloads=max(values.get("max-concurrent-downloads", 3), 1),
        max_uploads=max(values.get("max-concurrent-uploads", 5), 1),
    )


def _word(values: Values, name: str, known: tuple[str, ...]) -> str:
    """One of a flag's words, the first by default."""
    word = str(values.get(name, known[0]))
    if word not in known:
        raise InvalidInput(
            f'invalid argument "{word[:60]}" for "--{name}" flag: {" or ".join(known)} is wanted'
        )
    return word


def _image_gc(values: Values) -> dict[str, str]:
    options = dict(_pairs(values, "image-gc"))
    if options:
        from orlop.images.budget import parse_budget

        parse_budget(options)
    return options


def _metrics_address(text: str) -> str:
    if text:
        from orlop.engine.telemetry import split_metrics_address

        split_metrics_address(text)
    return text


def _download_attempts(values: Values) -> int:
    attempts: int = values.get("max-download-attempts", 5)
    if attempts < 1:  # dockerd's text
        raise InvalidInput(f"invalid max download attempts: {attempts}")
    return attempts


def _check_log(driver: str, options: dict[str, str]) -> None:
    from orlop.engine.logdrivers import check_log
    from orlop.engine.requests import LogConfig

    try:
        check_log(LogConfig(driver, options))
    except InvalidInput as error:
        raise InvalidInput(f"failed to set log opts: {error}", hint=error.hint) from error


def _cdi_spec_dirs(values: Values) -> tuple[str, ...]:
    """Directories of CDI spec files; an empty text, or the feature switched off, means none."""
    if dict(_pairs(values, "feature")).get("cdi", "true").lower() in _FALSE:
        return ()
    return tuple(_directory(path) for path in values.get("cdi-spec-dir", DEFAULT_CDI_DIRS) if path)


def _runtime(item: RuntimeSpec | str) -> RuntimeSpec:
    return parse_runtime(item) if isinstance(item, str) else item


def _directory(path: str) -> str:
    import posixpath

    if not path.startswith("/"):
        raise InvalidInput(f"directory {path[:100]!r} is not absolute")
    return posixpath.normpath(path)


def _pairs(values: Values, name: str) -> list[tuple[str, str]]:
    out = []
    for text in values.get(name, ()):
        key, equals, value = text.partition("=")
        if not key or (not equals and name != "feature"):
            raise InvalidInput(f'invalid argument "{text[:60]}" for "--{name}" flag: KEY=VALUE is wanted')
        out.append((key, value if equals else "true"))
    return out


def _parse_ulimit(text: str) -> tuple[str, int, int]:
    name, _, limits = text.partition("=")
    soft, _, hard = limits.partition(":")
    try:
        return name, int(soft), int(hard or soft)
    except ValueError:
        raise InvalidInput(f"invalid ulimit argument: {text[:60]}") from None


def _parse_size(text: str) -> int:
    units = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
    number = text.strip().lower().removesuffix("b")
    unit = units.get(number[-1:], 1)
    digits = number[:-1] if unit > 1 else number
    if not digits.isdecimal() or len(digits) > 15:
        raise InvalidInput(f"invalid size: '{text[:40]}'")
    return int(digits) * unit


def _help_text() -> str:
    lines = ["Usage:  orlopd [OPTIONS]", "", "The Orlop engine: containers behind the Docker Engine API.", ""]
    for flag in FLAGS:
        if not flag.has_effect:
            continue
        short = f"-{flag.short}, " if flag.short else "    "
        kind = "" if flag.kind == BOOL else f" {flag.kind}"
        lines.append(f"  {short}--{flag.name}{kind:<8}  {flag.help}")
    others = ", ".join(f"--{flag.name}" for flag in FLAGS if not flag.has_effect)
    return "\n".join([*lines, "", f"Accepted without effect: {others}", ""])
