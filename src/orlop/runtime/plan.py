"""A container spec made ready for init, outside the container: encoded, compiled, opened.

Everything that could import, allocate much or fail for a reason of ours happens here, in the
supervisor before the clone. Values that are the same for most containers (the compiled
default filter) are kept from one container to the next by the zygote.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orlop.kernel import capabilities
from orlop.kernel.cgroup import Cgroup
from orlop.runtime import defaults, seccomp
from orlop.runtime.ahead import Ahead
from orlop.runtime.confine import ProcessPlan
from orlop.runtime.devices import DEFAULT_DEVICES, host_devices
from orlop.runtime.outside import Outside
from orlop.runtime.spec import ContainerSpec, DeviceSpec, ProcessSpec

__all__ = ["InitPlan", "available_capabilities", "check_sysctls", "plan_init", "plan_process", "warm_up"]


_THERMAL_PATHS = defaults.thermal_paths(os.cpu_count() or 1)


@dataclass(frozen=True, slots=True)
class InitPlan:
    """What init needs beside the spec."""

    spec: ContainerSpec
    process: ProcessPlan
    cgroup: Cgroup
    is_in_unified: bool  # born in its v2 directory
    devices: tuple[DeviceSpec, ...]
    masked_paths: tuple[str, ...]
    read_only_paths: tuple[str, ...]
    joins: tuple[tuple[int, int], ...]  # (namespace fd, its CLONE_* flag)
    standard_fds: tuple[int, int, int]  # -1 where the terminal will be
    ahead: Ahead  # only what fits the container's namespaces; init's copy is its own
    outside: Outside | None = None  # in a user namespace of its own


def plan_process(spec: ProcessSpec, *, is_privileged: bool) -> ProcessPlan:
    """Encode and compile one process; `capabilities` of the spec are final.

    Raises:
        ValueError: an unknown capability, limit or seccomp action.
    """
    names = capabilities.known() if is_privileged and not spec.capabilities else spec.capabilities
    # What the host has taken from us we cannot give; runc passes over such capabilities, too.
    kept = capabilities.mask_of(names) & available_capabilities()
    return ProcessPlan(
        args=tuple(os.fsencode(arg) for arg in spec.args),
        env=_environment(spec.env),
        cwd=spec.cwd or "/",
        user=spec.user,
        extra_groups=spec.extra_groups,
        capabilities=kept,
        filter=_filter(spec, kept) if spec.has_seccomp else None,
        apparmor_profile=spec.apparmor_profile,
        no_new_privileges=spec.no_new_privileges,
        rlimits=tuple((name, soft, hard) for name, (soft, hard) in spec.rlimits.items()),
        has_tty=spec.has_tty,
    )


def plan_init(
    spec: ContainerSpec,
    cgroup: Cgroup,
    joins: Sequence[tuple[int, int]],
    standard_fds: tuple[int, int, int],
    *,
    is_in_unified: bool,
    ahead: Ahead | None = None,
    outside: Outside | None = None,
) -> InitPlan:
    """Everything init needs, in one value.

    Raises:
        ValueError: something in the spec is unknown or would reach beyond the container.
    """
    check_sysctls(spec)
    masked, read_only = hidden_paths(spec)
    devices = host_devices() if spec.is_privileged else list(DEFAULT_DEVICES)
    return InitPlan(
        spec=spec,
        process=plan_process(spec.process, is_privileged=spec.is_privileged),
        cgroup=cgroup,
        is_in_unified=is_in_unified,
        devices=(*devices, *spec.devices),
        masked_paths=masked,
        read_only_paths=read_only,
        joins=tuple(joins),
        standard_fds=standard_fds,
        ahead=ahead or Ahead(),
        outside=outside,
    )


def hidden_paths(spec: ContainerSpec) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(masked, read-only): those of the spec, ours when it says nothing, none when it is privileged."""
    masked, read_only = spec.masked_paths, spec.read_only_paths
    if spec.is_privileged:
        return masked or (), read_only or ()
    return (
        (*defaults.MASKED_PATHS, *_THERMAL_PATHS) if masked is None else masked,
        defaults.READ_ONLY_PATHS if read_only is None else read_only,
    )


def _filter(spec: ProcessSpec, kept: int) -> bytes | None:
    if spec.has_hardened_seccomp and spec.seccomp_profile is None:
        return seccomp.compile_hardened(frozenset(capabilities.names_of(kept)))
    return _compile(spec.seccomp_profile, kept)


def _compile(profile: dict[str, Any] | None, kept: int) -> bytes | None:
    """The default policy is compiled once per set of capabilities; see `seccomp.compile_profile`."""
    return seccomp.compile_profile(profile, frozenset(capabilities.names_of(kept)))


def check_sysctls(spec: ContainerSpec) -> None:
    """Init writes them with the host's privileges: only those of a namespace of the container's own.

    Raises:
        ValueError: the name of one that is not.
    """
    for name in spec.sysctls:
        dotted = name.replace("/", ".")
        is_known = any(
            dotted == item or (item.endswith(".") and dotted.startswith(item))
            for item in defaults.NAMESPACED_SYSCTLS
        )
        if dotted.startswith("net."):
            is_own = spec.network != "host"
        elif dotted == "kernel.domainname":
            is_own = spec.uts != "host"
        else:
            is_own = spec.ipc != "host"
        if not is_known or not is_own or not all(dotted.split(".")):
            raise ValueError(f'sysctl "{name}" is not in a separate kernel namespace')


@functools.cache
def available_capabilities() -> int:
    """Our own permitted set: the same for the zygote and all that comes from it."""
    return capabilities.current().permitted


def warm_up() -> None:
    """Find out and compile, once, in the zygote, what is the same for every container."""
    available_capabilities()
    _compile(None, capabilities.mask_of(defaults.CAPABILITIES))


def _environment(entries: Sequence[str]) -> dict[bytes, bytes]:
    """The last of several entries of one name wins; an entry without `=` is nothing."""
    environment = {}
    for entry in entries:
        name, equals, value = os.fsencode(entry).partition(b"=")
        if equals and name:
            environment[name] = value
    return environment
