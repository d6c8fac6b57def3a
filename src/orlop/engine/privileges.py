"""What a container's processes may do: capabilities, devices, sysctls.

Pure except for `devices`, which looks at the host's /dev. The image never has a say here (only
HostConfig does).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable

from orlop.base.errors import InvalidInput
from orlop.engine.requests import DeviceMapping, HostConfig
from orlop.kernel.capabilities import ALL_NAMES
from orlop.runtime.spec import DeviceSpec

__all__ = ["capabilities", "capability_name", "check_device_rules", "devices", "sysctls"]

DEFAULT_CAPABILITIES = (
    "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE "
    "SYS_CHROOT KILL AUDIT_WRITE"
).split()
_IPC_SYSCTLS = frozenset(
    "kernel.msgmax kernel.msgmnb kernel.msgmni kernel.sem kernel.shmall kernel.shmmax kernel.shmmni "
    "kernel.shm_rmid_forced".split()
)
_SYSCTL = re.compile(r"[a-z0-9_]+(\.[a-zA-Z0-9_\-/@:]+)+\Z")
_DEVICE_RULE = re.compile(r"[acb] ([0-9]+|\*):([0-9]+|\*) [rwm]{1,3}\Z")
_MAX_DEVICES = 4096


def capability_name(word: str, option: str) -> str:
    """A word of CapAdd or CapDrop as one of our names, or `ALL`; dockerd's text for what is none."""
    name = word.upper().removeprefix("CAP_")
    if name != "ALL" and name not in ALL_NAMES:
        raise InvalidInput(f'invalid {option}: unknown capability: "CAP_{name[:60]}"')
    return name


def capabilities(host: HostConfig) -> tuple[str, ...]:
    """The names (without `CAP_`) that the container's processes get.

    Raises:
        InvalidInput: an unknown name, with dockerd's text.
    """
    add = {capability_name(word, "CapAdd") for word in host.cap_add or ()}
    drop = {capability_name(word, "CapDrop") for word in host.cap_drop or ()}
    if host.privileged:
        return tuple(ALL_NAMES)
    base: Iterable[str] = DEFAULT_CAPABILITIES
    if "ALL" in drop:
        base = ()
    elif "ALL" in add:
        base = ALL_NAMES
    names = [name for name in base if name not in drop]
    if "ALL" in drop and "ALL" in add:
        names = list(ALL_NAMES)
    names += sorted(name for name in add if name != "ALL" and name not in names)
    return tuple(names)


def sysctls(host: HostConfig) -> dict[str, str]:
    """The user's sysctls and Docker's defaults for a private network namespace.

    Raises:
        InvalidInput: a setting that belongs to the whole host.
    """
    shares_network = host.network_mode == "host" or host.network_mode.startswith("container:")
    out: dict[str, str] = {}
    if not shares_network:
        out["net.ipv4.ip_unprivileged_port_start"] = "0"
        if not host.userns_mode or host.userns_mode == "host":
            out["net.ipv4.ping_group_range"] = "0 2147483647"
    for name, value in (host.sysctls or {}).items():
        dotted = name.replace("/", ".") if "." not in name else name
        if not _SYSCTL.match(dotted) or ".." in dotted or "\n" in value or "\0" in value:
            raise InvalidInput(f'sysctl "{name[:100]}" is not in a separate kernel namespace')
        if dotted.startswith("net.") and shares_network:
            raise InvalidInput(f'sysctl "{dotted}" not allowed in host network namespace')
        is_ipc = dotted in _IPC_SYSCTLS or dotted.startswith("fs.mqueue.")
        if is_ipc and host.ipc_mode == "host":
            raise InvalidInput(f'sysctl "{dotted}" not allowed in host ipc namespace')
        if not is_ipc and not dotted.startswith("net."):
            raise InvalidInput(f'sysctl "{dotted}" is not in a separate kernel namespace')
        out[dotted] = value
    return out


def check_device_rules(rules: Iterable[str]) -> tuple[str, ...]:
    """Cgroup device rules as the kernel takes them."""
    for rule in rules:
        if not _DEVICE_RULE.match(rule):
            raise InvalidInput(f"invalid device cgroup rule format: '{rule[:100]}'")
    return tuple(rules)


def devices(host: HostConfig) -> tuple[DeviceSpec, ...]:
    """The nodes asked for; a privileged container gets the host's from the runtime."""
    if host.privileged:
        return ()
    found: list[DeviceSpec] = []
    for mapping in host.devices or ():
        found += _mapped(mapping)
    return tuple(found)


def _mapped(mapping: DeviceMapping) -> list[DeviceSpec]:
    source = mapping.path_on_host
    target = mapping.path_in_container or source
    access = mapping.cgroup_permissions or "rwm"
    if not target.startswith("/") or ".." in target.split("/") or set(access) - set("rwm"):
        raise InvalidInput(f"invalid device specification: {source[:100]}:{target[:100]}:{access[:10]}")
    try:
        real = os.path.realpath(source, strict=True)
        mode = os.stat(real).st_mode
    except OSError as error:
        raise InvalidInput(
            f'error gathering device information while adding custom device "{source[:200]}": '
            "no such file or directory"
        ) from error
    if stat.S_ISDIR(mode):
        inside = list(_walk(real, target, access))
        if inside:
            return inside
    found = _device(real, target, access)
    if found is None:
        raise InvalidInput(
            f'error gathering device information while adding custom device "{source[:200]}": '
            "not a device node"
        )
    return [found]


def _device(path: str, target: str, access: str) -> DeviceSpec | None:
    info = os.stat(path, follow_symlinks=False)
    kind = "c" if stat.S_ISCHR(info.st_mode) else "b" if stat.S_ISBLK(info.st_mode) else ""
    if not kind:
        return None
    return DeviceSpec(
        target,
        kind,
        os.major(info.st_rdev),
        os.minor(info.st_rdev),
        stat.S_IMODE(info.st_mode),
        info.st_uid,
        info.st_gid,
        access,
    )


def _walk(root: str, target: str, access: str) -> Iterable[DeviceSpec]:
    count = 0
    pending = [(root, target)]
    while pending:
        directory, shown = pending.pop()
        for entry in sorted(os.scandir(directory), key=lambda item: item.name):
            if entry.is_symlink():
                continue
            if entry.is_dir(follow_symlinks=False):
                pending.append((entry.path, f"{shown}/{entry.name}"))
                continue
            found = _device(entry.path, f"{shown}/{entry.name}", access)
            if found is not None:
                count += 1
                if count > _MAX_DEVICES:
                    raise InvalidInput(f'too many devices below "{root}"')
                yield found
