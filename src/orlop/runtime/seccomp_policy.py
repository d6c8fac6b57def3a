"""A seccomp policy as a value, and Docker's default one for a set of capabilities. Pure.

Three differences from Docker's, each towards refusing: i386's `socketcall` fails with ENOSYS (its
arguments cannot be seen, and C libraries then use the direct calls); arguments that the kernel
takes as `int` are compared as such; x32 calls always fail with ENOSYS.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from orlop.kernel.seccomp import ALLOW, ArgTest, Op, Rule, refuse
from orlop.runtime.seccomp_table import (
    AF_ALG,
    AF_VSOCK,
    ALWAYS,
    BY_CAPABILITY,
    INT_ARGUMENTS,
    NAMESPACE_FLAGS,
    PERSONALITIES,
    SINCE_4_8,
)

__all__ = ["Policy", "RuleBook", "argument_test", "default_policy"]

_TRACER_SAFE = (4, 8)


@dataclass(frozen=True, slots=True)
class Policy:
    """What each call may do, by name; names that an architecture lacks are passed over there.

    `architectures` are the spec's names of those allowed beside the native one; None = all we know.
    """

    default_action: int
    rules: Mapping[str, tuple[Rule, ...]]
    architectures: frozenset[str] | None = None


class RuleBook:
    """Collects rules per call. A rule without conditions settles a call, whatever else is said of it.

    That is how libseccomp joins rules, on which every profile in use was written.
    """

    def __init__(self) -> None:
        self._rules: dict[str, list[Rule]] = {}
        self._settled: set[str] = set()

    def add(self, name: str, rule: Rule) -> None:
        """Note a rule; earlier ones are tried first."""
        if name in self._settled:
            return
        if rule.tests:
            self._rules.setdefault(name, []).append(rule)
        else:
            self._rules[name] = [rule]
            self._settled.add(name)

    def rules(self) -> dict[str, tuple[Rule, ...]]:
        """Everything noted so far."""
        return {name: tuple(rules) for name, rules in self._rules.items()}


def argument_test(name: str, index: int, op: Op, value: int, mask: int = 0) -> ArgTest:
    """A condition on an argument of the call `name`, as wide as the kernel reads that argument."""
    return ArgTest(index, op, value, mask, is_int=index in INT_ARGUMENTS.get(name, ()))


def default_policy(capabilities: Collection[str], kernel: tuple[int, int]) -> Policy:
    """Docker's default profile for these final capabilities (names without `CAP_`) on this kernel."""
    book = RuleBook()
    _allow(book, ALWAYS)
    if kernel >= _TRACER_SAFE:
        _allow(book, SINCE_4_8)
    for capability, names in BY_CAPABILITY.items():
        if capability in capabilities:
            _allow(book, names)
    allowed_families = ((Op.LT, AF_ALG), (Op.EQ, AF_ALG + 1), (Op.GT, AF_VSOCK))
    for op, family in allowed_families:
        book.add("socket", Rule(ALLOW, (argument_test("socket", 0, op, family),)))
    for persona in PERSONALITIES:
        book.add("personality", Rule(ALLOW, (argument_test("personality", 0, Op.EQ, persona),)))
    if "SYS_ADMIN" not in capabilities:
        no_namespaces = argument_test("clone", 0, Op.MASKED_EQ, 0, NAMESPACE_FLAGS)
        book.add("clone", Rule(ALLOW, (no_namespaces,)))
        # Its flags lie in memory, where a filter cannot look: C libraries fall back to clone.
        book.add("clone3", Rule(refuse(errno.ENOSYS)))
    book.add("socketcall", Rule(refuse(errno.ENOSYS)))
    return Policy(refuse(), book.rules())


def _allow(book: RuleBook, names: Iterable[str]) -> None:
    for name in names:
        book.add(name, Rule(ALLOW))
