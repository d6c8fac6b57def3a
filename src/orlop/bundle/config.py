"""A bundle's config.json as values: strict about types, open to unknown fields. Pure.

The document comes from whoever calls the command, which may itself have put it together from
hostile parts: a wrong type is refused with the path of its field, sizes are bounded. What a
runtime that lacks a feature must do with it is decided later, in `lowering.py`.

Spec: OCI runtime-spec 1.2, config.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orlop.bundle.config_linux import IdMapping, LinuxConfig, parse_linux, parse_mappings
from orlop.bundle.reading import Reader, malformed
from orlop.oci.strictjson import MalformedDocument, decode

__all__ = [
    "SPEC_VERSION",
    "Capabilities",
    "Config",
    "Hook",
    "Hooks",
    "Mount",
    "Process",
    "Root",
    "User",
    "parse_config",
    "parse_process",
    "read_process",
]

SPEC_VERSION = "1.2.0"
_LIMIT_BYTES = 16 << 20
_MAX_ARGUMENTS = 65536
_MAX_ENTRIES = 4096
_MAX_ID = 2**32 - 2
_MAX_U64 = 2**64 - 1
CAPABILITY_SETS = ("bounding", "effective", "inheritable", "permitted", "ambient")


@dataclass(frozen=True, slots=True)
class User:
    """Who the process is; `umask` None leaves 0022."""

    uid: int = 0
    gid: int = 0
    additional_gids: tuple[int, ...] = ()
    umask: int | None = None


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The five sets, by names as the document writes them (`CAP_CHOWN`)."""

    bounding: tuple[str, ...] = ()
    effective: tuple[str, ...] = ()
    inheritable: tuple[str, ...] = ()
    permitted: tuple[str, ...] = ()
    ambient: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Process:
    """What is executed. `rlimits` maps `RLIMIT_NOFILE` to (soft, hard)."""

    args: tuple[str, ...] = ()
    cwd: str = "/"
    env: tuple[str, ...] = ()
    user: User = User()
    has_terminal: bool = False
    console_size: tuple[int, int] = (0, 0)  # rows, columns
    capabilities: Capabilities | None = None
    rlimits: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    no_new_privileges: bool = False
    oom_score_adj: int | None = None
    apparmor_profile: str = ""
    selinux_label: str = ""
    io_priority: tuple[str, int] | None = None
    scheduler: Mapping[str, Any] | None = None
    exec_cpu_affinity: tuple[str, str] = ("", "")


@dataclass(frozen=True, slots=True)
class Root:
    """The root file system; a relative path starts at the bundle."""

    path: str
    is_readonly: bool = False


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount, in the order of the document."""

    destination: str
    kind: str = ""
    source: str = ""
    options: tuple[str, ...] = ()
    uid_mappings: tuple[IdMapping, ...] = ()
    gid_mappings: tuple[IdMapping, ...] = ()


@dataclass(frozen=True, slots=True)
class Hook:
    """A program of the caller's; `timeout_s` 0 is none."""

    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    timeout_s: int = 0


@dataclass(frozen=True, slots=True)
class Hooks:
    """Hooks by the moment at which they run."""

    prestart: tuple[Hook, ...] = ()
    create_runtime: tuple[Hook, ...] = ()
    create_container: tuple[Hook, ...] = ()
    start_container: tuple[Hook, ...] = ()
    poststart: tuple[Hook, ...] = ()
    poststop: tuple[Hook, ...] = ()


@dataclass(frozen=True, slots=True)
class Config:
    """A whole config.json."""

    version: str
    root: Root
    process: Process | None = None  # may be absent until start (spec: create)
    hostname: str = ""
    domainname: str = ""
    mounts: tuple[Mount, ...] = ()
    hooks: Hooks = Hooks()
    annotations: Mapping[str, str] = field(default_factory=dict)
    linux: LinuxConfig = field(default_factory=LinuxConfig)


def parse_config(data: bytes) -> Config:
    """Read a config.json.

    Raises:
        MalformedDocument: with the path of the field that is wrong.
    """
    top = Reader(decode(data, "config.json", _LIMIT_BYTES, allow_uint64=True))
    version = top.text("ociVersion")
    if version.split(".")[0] != "1" or not version.isascii() or len(version) > 64:
        raise malformed(top, "ociVersion", f"{version[:64]!r} is not a version 1 of the specification")
    for foreign in ("windows", "solaris", "vm", "zos"):
        if top.object(foreign) is not None and "linux" not in top.raw:
            raise malformed(top, foreign, "only linux containers can be run")
    process = top.child("process")
    return Config(
        version=version,
        root=_root(top),
        process=None if process is None else read_process(process),
        hostname=_host_name(top, "hostname"),
        domainname=_host_name(top, "domainname"),
        mounts=tuple(_mount(item) for item in top.children("mounts", _MAX_ENTRIES)),
        hooks=_hooks(top.child("hooks")),
        annotations=_annotations(top),
        linux=parse_linux(top.child("linux")),
    )


def parse_process(data: bytes) -> Process:
    """Read a process document, as `exec --process` takes it."""
    return read_process(Reader(decode(data, "process", _LIMIT_BYTES, allow_uint64=True), "process"))


def read_process(reader: Reader) -> Process:
    """Read the `process` object."""
    cwd = reader.text("cwd")
    if not cwd.startswith("/"):
        raise malformed(reader, "cwd", "Cwd must be an absolute path")
    args = reader.texts("args", _MAX_ARGUMENTS)
    if not args:
        raise malformed(reader, "args", "args must not be empty")
    size, affinity = reader.child("consoleSize"), reader.child("execCPUAffinity")
    priority, scheduler = reader.child("ioPriority"), reader.child("scheduler")
    return Process(
        args=args,
        cwd=cwd,
        env=reader.texts("env", _MAX_ARGUMENTS),
        user=_user(reader.child("user")),
        has_terminal=reader.flag("terminal"),
        console_size=(_cells(size, "height"), _cells(size, "width")) if size else (0, 0),
        capabilities=_capabilities(reader.child("capabilities")),
        rlimits=_rlimits(reader),
        no_new_privileges=reader.flag("noNewPrivileges"),
        oom_score_adj=reader.integer("oomScoreAdj", -1000, 1000),
        apparmor_profile=reader.text("apparmorProfile"),
        selinux_label=reader.text("selinuxLabel"),
        io_priority=(priority.text("class"), priority.required_integer("priority", 0, 7))
        if priority
        else None,
        scheduler=scheduler.raw if scheduler else None,
        exec_cpu_affinity=(affinity.text("initial"), affinity.text("final")) if affinity else ("", ""),
    )


def _root(top: Reader) -> Root:
    root = top.child("root")
    if root is None or not root.text("path"):
        raise malformed(top, "root.path", "is missing")
    return Root(root.text("path"), root.flag("readonly"))


def _user(reader: Reader | None) -> User:
    if reader is None:
        return User()
    return User(
        reader.required_integer("uid", 0, _MAX_ID),
        reader.required_integer("gid", 0, _MAX_ID),
        reader.integers("additionalGids", 65536, _MAX_ID),
        reader.integer("umask", 0, 0o7777),
    )


def _cells(size: Reader, key: str) -> int:
    return size.required_integer(key, 0, 0xFFFF)


def _capabilities(reader: Reader | None) -> Capabilities | None:
    if reader is None:
        return None
    return Capabilities(*(reader.texts(name, 256) for name in CAPABILITY_SETS))


def _rlimits(reader: Reader) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for item in reader.children("rlimits", 64):
        name = item.text("type")
        if not name.startswith("RLIMIT_"):
            raise malformed(item, "type", f"{name!r} is no resource limit")
        if name in found:
            raise malformed(item, "type", f"{name} occurs twice")
        soft, hard = (item.required_integer(key, 0, _MAX_U64) for key in ("soft", "hard"))
        if soft > hard:
            raise malformed(item, "soft", "is above the hard limit")
        found[name] = (soft, hard)
    return found


def _host_name(top: Reader, key: str) -> str:
    name = top.text(key)
    if len(name.encode()) > 64:
        raise malformed(top, key, "has more than 64 bytes")
    return name


def _mount(item: Reader) -> Mount:
    destination = item.text("destination")
    if not destination:
        raise malformed(item, "destination", "is missing")
    return Mount(
        # Relative ones are deprecated, and everybody reads them from the root (spec, "Mounts").
        destination if destination.startswith("/") else f"/{destination}",
        item.text("type"),
        item.text("source"),
        item.texts("options", 256),
        parse_mappings(item, "uidMappings"),
        parse_mappings(item, "gidMappings"),
    )


def _hooks(reader: Reader | None) -> Hooks:
    if reader is None:
        return Hooks()
    names = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
    return Hooks(*(tuple(_hook(item) for item in reader.children(name, 256)) for name in names))


def _hook(item: Reader) -> Hook:
    path = item.text("path")
    if not path.startswith("/"):
        raise malformed(item, "path", "is not absolute")
    timeout = item.integer("timeout", 1, 2**31 - 1)
    return Hook(path, item.texts("args", _MAX_ARGUMENTS), item.texts("env", _MAX_ARGUMENTS), timeout or 0)


def _annotations(top: Reader) -> dict[str, str]:
    found = top.text_map("annotations", 65536)
    if "" in found:
        raise MalformedDocument("annotations: a key is empty")
    return found
