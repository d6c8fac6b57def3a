"""A seccomp policy as the document that OCI runtimes read. Pure.

Runtimes compare 64 bits of an argument, the kernel takes 32 of an `int`: what a rule says of such
an argument is written with a mask, so that set high bits do not slip past it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from orlop.base.errors import InvalidInput
from orlop.kernel.seccomp import ALLOW, KILL_PROCESS, KILL_THREAD, LOG, TRAP, ArgTest, Op, Rule
from orlop.runtime.seccomp import kernel_version
from orlop.runtime.seccomp_policy import Policy, default_policy
from orlop.runtime.seccomp_profile import parse_profile

__all__ = ["seccomp_document"]

_NAMES = {
    ALLOW: "SCMP_ACT_ALLOW",
    LOG: "SCMP_ACT_LOG",
    TRAP: "SCMP_ACT_TRAP",
    KILL_THREAD: "SCMP_ACT_KILL_THREAD",
    KILL_PROCESS: "SCMP_ACT_KILL_PROCESS",
}
_ERRNO, _TRACE = 0x00050000, 0x7FF00000
_CLASS = 0xFFFF0000
_INT = 0xFFFFFFFF
_SMALL = 64  # an `int` below is compared by listing values; address families and the like
_ARCHITECTURES = {
    "x86_64": ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"),
    "aarch64": ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"),
}


def seccomp_document(
    profile: Mapping[str, Any] | None,
    capabilities: frozenset[str],
    machine: str,
    release: str,
    *,
    is_hardened: bool = False,
) -> dict[str, Any] | None:
    """`linux.seccomp` for Docker's JSON profile, or for our default one (None); None = unconfined.

    Args:
        profile: as `runtime.seccomp.compile_profile` takes it.
        capabilities: final ones, names without `CAP_`.
        machine: as in `uname -m`.
        release: of the kernel.
        is_hardened: our default policy narrowed, as `runtime.seccomp.compile_hardened` does it.

    Raises:
        InvalidInput: a malformed profile, or an unknown machine.
    """
    kernel = kernel_version(release)
    if profile is None and is_hardened:
        policy: Policy | None = replace(default_policy(capabilities, (0, 0)), architectures=frozenset())
    elif profile is None:
        policy = default_policy(capabilities, kernel)
    else:
        policy = parse_profile(profile, capabilities, machine, kernel)
    if policy is None:
        return None
    if machine not in _ARCHITECTURES:
        raise InvalidInput(f"seccomp is not supported on {machine}", hint="run with seccomp=unconfined")
    native, *others = _ARCHITECTURES[machine]
    allowed = sorted(policy.architectures) if policy.architectures is not None else others
    return {
        **_action("defaultAction", "defaultErrnoRet", policy.default_action),
        "architectures": [native, *(name for name in allowed if name != native)],
        "syscalls": [*_plain(policy), *_conditional(policy)],
    }


def _action(name: str, number_name: str, action: int) -> dict[str, Any]:
    if action in _NAMES:
        return {name: _NAMES[action]}
    kind = "SCMP_ACT_ERRNO" if action & _CLASS == _ERRNO else "SCMP_ACT_TRACE"
    return {name: kind, number_name: action & 0xFFFF}


def _plain(policy: Policy) -> Iterator[dict[str, Any]]:
    """Calls that are settled by their name alone, those of one action together."""
    names: dict[int, list[str]] = {}
    for name, rules in policy.rules.items():
        if not rules[0].tests and rules[0].action != policy.default_action:
            names.setdefault(rules[0].action, []).append(name)
    for action, group in names.items():
        yield {"names": sorted(group), **_action("action", "errnoRet", action)}


def _conditional(policy: Policy) -> Iterator[dict[str, Any]]:
    for name, rules in policy.rules.items():
        for rule in rules:
            if rule.tests and rule.action != policy.default_action:
                for arguments in _alternatives(rule):
                    yield {
                        "names": [name],
                        **_action("action", "errnoRet", rule.action),
                        "args": arguments,
                    }


def _alternatives(rule: Rule) -> Iterator[list[dict[str, Any]]]:
    """The conditions of a rule, each combination an entry of its own."""
    combinations: list[list[ArgTest]] = [[]]
    for test in rule.tests:
        combinations = [[*left, one] for left in combinations for one in _exact(test)]
    for combination in combinations:
        yield [_argument(test) for test in combination]


def _exact(test: ArgTest) -> list[ArgTest]:
    """The test, or for a comparison of a small `int` one test a value."""
    if not test.is_int:
        return [test]
    if test.op is Op.EQ:
        return [_equal(test, test.value)]
    if test.value < _SMALL and test.op in (Op.LT, Op.LE):
        return [_equal(test, value) for value in range(test.value + (test.op is Op.LE))]
    if test.value < _SMALL and test.op in (Op.GT, Op.GE):
        return [_equal(test, value) for value in range(test.value + (test.op is Op.GT), _SMALL)]
    return [test]


def _equal(test: ArgTest, value: int) -> ArgTest:
    return ArgTest(test.index, Op.MASKED_EQ, value, _INT)


def _argument(test: ArgTest) -> dict[str, Any]:
    if test.op is Op.MASKED_EQ:
        return {"index": test.index, "value": test.mask, "valueTwo": test.value, "op": test.op.value}
    return {"index": test.index, "value": test.value, "op": test.op.value}
