"""Which system calls a container may make, as a BPF program.

A policy (`seccomp_policy`) is Docker's default one or comes from a JSON profile; conditions on
capabilities, architecture and kernel are decided by then. Here names become the numbers of each
architecture and the program is assembled. Pure: loading it is `kernel.seccomp.load`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from orlop.base.errors import InvalidInput
from orlop.kernel import seccomp
from orlop.kernel.seccomp import ALLOW, KILL_PROCESS, LOG, Rule, Section, refuse
from orlop.kernel.syscall_tables import ARM64, I386, X86_64
from orlop.runtime.seccomp_policy import Policy, default_policy
from orlop.runtime.seccomp_profile import parse_profile

__all__ = ["check_profile", "compile_hardened", "compile_policy", "compile_profile", "kernel_version"]

_Architecture = tuple[str, int, Mapping[str, int]]  # the spec's name, the kernel's word, the numbers
_X86_64: _Architecture = ("SCMP_ARCH_X86_64", seccomp.AUDIT_ARCH_X86_64, X86_64)
_I386: _Architecture = ("SCMP_ARCH_X86", seccomp.AUDIT_ARCH_I386, I386)
_ARM64: _Architecture = ("SCMP_ARCH_AARCH64", seccomp.AUDIT_ARCH_AARCH64, ARM64)

_ARCHITECTURES = {"x86_64": (_X86_64, _I386), "aarch64": (_ARM64,)}
"""machine -> native first. Calls of any other architecture kill the process (32-bit ARM, for now)."""

_OPEN_DEFAULTS = frozenset({ALLOW, LOG})


def compile_profile(profile: Mapping[str, Any] | None, capabilities: Collection[str]) -> bytes | None:
    """The program of a profile, or of the default policy (None), for a final set of capabilities.

    Args:
        profile: Docker's JSON, parsed. A profile without default action and rules means
            unconfined: the result is None.
        capabilities: names without `CAP_`; they widen what is allowed.

    Raises:
        InvalidInput: the profile is malformed, or asks for what we cannot do (notify).
    """
    machine, release = os.uname().machine, os.uname().release
    if profile is None:
        return _compile_default(frozenset(capabilities), machine, release)
    policy = parse_profile(profile, frozenset(capabilities), machine, kernel_version(release))
    return None if policy is None else compile_policy(policy, machine)


def check_profile(profile: Mapping[str, Any]) -> None:
    """Raise InvalidInput if a profile is malformed, or asks for what we cannot do."""
    parse_profile(profile, frozenset(), os.uname().machine, kernel_version(os.uname().release))


@lru_cache(maxsize=32)
def compile_hardened(capabilities: frozenset[str]) -> bytes:
    """The default policy without the calls of other architectures and without tracing.

    Tracing needs SYS_PTRACE, as on kernels on which it is not safe.
    """
    policy = default_policy(capabilities, (0, 0))
    return compile_policy(replace(policy, architectures=frozenset()), os.uname().machine)


@lru_cache(maxsize=32)
def _compile_default(capabilities: frozenset[str], machine: str, release: str) -> bytes:
    return compile_policy(default_policy(capabilities, kernel_version(release)), machine)


def compile_policy(policy: Policy, machine: str) -> bytes:
    """The program for a machine as `uname` names it.

    Calls newer than every call that the policy knows fail with ENOSYS, so that programs fall back
    to older ones (as runc does); it holds for policies that refuse by default.
    """
    known = _ARCHITECTURES.get(machine)
    if known is None:
        raise InvalidInput(f"seccomp is not supported on {machine}", hint="run with seccomp=unconfined")
    sections = [
        _section(policy, word, numbers)
        for index, (name, word, numbers) in enumerate(known)
        if index == 0 or policy.architectures is None or name in policy.architectures
    ]
    try:
        return seccomp.assemble(sections, policy.default_action, other_arch_action=KILL_PROCESS)
    except ValueError as error:
        raise InvalidInput(f"seccomp profile is too large: {error}") from error


def _section(policy: Policy, arch: int, numbers: Mapping[str, int]) -> Section:
    rules: dict[int, tuple[Rule, ...]] = {
        numbers[name]: decided for name, decided in policy.rules.items() if name in numbers
    }
    is_open = policy.default_action in _OPEN_DEFAULTS or policy.default_action == refuse(_ENOSYS)
    return Section(arch, rules, None if is_open or not rules else max(rules))


_ENOSYS = 38
_RELEASE = re.compile(r"(\d{1,4})\.(\d{1,4})")


def kernel_version(release: str) -> tuple[int, int]:
    """`6.18.44-generic` -> (6, 18); (0, 0) for what is not of that form."""
    found = _RELEASE.match(release)
    return (int(found[1]), int(found[2])) if found else (0, 0)
