"""Seccomp: from a table of rules to a classic BPF program, and loading it.

A filter has one section per architecture. In a section the numbers are cut into intervals that
share an outcome (most calls are simply allowed, so a few dozen intervals remain), and a balanced
tree of comparisons finds the interval: 6 to 8 instructions per call. Calls with conditions on
their arguments end in a block that tests them.

The program is written backwards, from its last instruction to its first: every jump then goes to
a place that is already known. Conditional jumps reach 255 instructions; a target further away is
reached through an unconditional jump put right behind.
"""

from __future__ import annotations

import ctypes
import enum
import errno
import struct
from collections.abc import Mapping, Sequence
from ctypes import addressof, byref, c_uint16, c_void_p, create_string_buffer
from dataclasses import dataclass

from orlop.kernel.syscall import PTR, UINT, SystemCall

__all__ = [
    "ALLOW",
    "AUDIT_ARCH_AARCH64",
    "AUDIT_ARCH_I386",
    "AUDIT_ARCH_X86_64",
    "KILL_PROCESS",
    "KILL_THREAD",
    "LOG",
    "TRAP",
    "ArgTest",
    "Op",
    "Rule",
    "Section",
    "assemble",
    "load",
    "refuse",
    "trace",
]

# include/uapi/linux/seccomp.h
KILL_PROCESS = 0x80000000
KILL_THREAD = 0x00000000
TRAP = 0x00030000
_ERRNO = 0x00050000
_TRACE = 0x7FF00000
LOG = 0x7FFC0000
ALLOW = 0x7FFF0000

FILTER_FLAG_TSYNC = 1
FILTER_FLAG_LOG = 2
FILTER_FLAG_SPEC_ALLOW = 4
_SET_MODE_FILTER = 1
_MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS
_MAX_ERRNO = 4095

# include/uapi/linux/audit.h
AUDIT_ARCH_I386 = 0x40000003
AUDIT_ARCH_X86_64 = 0xC000003E
AUDIT_ARCH_AARCH64 = 0xC00000B7

X32_BIT = 0x40000000
_NUMBERS_END = 1 << 32

_seccomp = SystemCall("seccomp", UINT, UINT, PTR)


def refuse(number: int = errno.EPERM) -> int:
    """The action "fail with this errno"."""
    return _ERRNO | min(number, _MAX_ERRNO)


def trace(number: int = errno.EPERM) -> int:
    """The action "tell the tracer", with a message for it."""
    return _TRACE | number & 0xFFFF


class Op(enum.Enum):
    """How an argument is compared, by the names of the OCI runtime spec."""

    NE = "SCMP_CMP_NE"
    LT = "SCMP_CMP_LT"
    LE = "SCMP_CMP_LE"
    EQ = "SCMP_CMP_EQ"
    GE = "SCMP_CMP_GE"
    GT = "SCMP_CMP_GT"
    MASKED_EQ = "SCMP_CMP_MASKED_EQ"


@dataclass(frozen=True, slots=True)
class ArgTest:
    """A condition on one argument (0 to 5), unsigned 64 bits.

    MASKED_EQ: argument & `mask` == `value`. With `is_int` only the low 32 bits are looked at, which
    is all that the kernel takes of an `int`: otherwise set high bits would slip past `>` tests.
    """

    index: int
    op: Op
    value: int
    mask: int = 0
    is_int: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """An action (a SECCOMP_RET_ value) when all tests hold; without tests always."""

    action: int
    tests: tuple[ArgTest, ...] = ()


@dataclass(frozen=True, slots=True)
class Section:
    """The rules of one architecture: number -> rules, the first that matches decides.

    Numbers above `last_known` fail with ENOSYS, so that programs fall back from calls that are
    newer than the policy; None leaves them to the default.
    """

    arch: int
    rules: Mapping[int, Sequence[Rule]]
    last_known: int | None = None


def assemble(
    sections: Sequence[Section], default_action: int, *, other_arch_action: int = KILL_PROCESS
) -> bytes:
    """The program (8 bytes an instruction) for all sections.

    Calls of the x32 ABI, which share x86-64's architecture word, fail with ENOSYS.

    Raises:
        ValueError: more instructions than the kernel takes.
    """
    program = _Program()
    target = program.ret(other_arch_action)
    for section in reversed(sections):
        entry = _assemble_section(program, section, default_action)
        target = program.jump(_JEQ, section.arch, entry, target)
    program.at(target)
    program.load(_OFFSET_ARCH)
    if len(program.code) > _MAX_INSTRUCTIONS:
        raise ValueError(f"seccomp program has {len(program.code)} instructions, at most {_MAX_INSTRUCTIONS}")
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in reversed(program.code))


def load(program: bytes, flags: int = 0) -> None:
    """Confine the calling thread for good. Needs no_new_privs or CAP_SYS_ADMIN.

    Raises:
        OSError: EACCES (neither of the two), EINVAL (malformed), ENOSYS.
    """
    instructions = create_string_buffer(program, len(program))
    fprog = _SockFprog(len(program) // 8, addressof(instructions))
    _seccomp(_SET_MODE_FILTER, flags, byref(fprog))


class _SockFprog(ctypes.Structure):
    _fields_ = (("len", c_uint16), ("filter", c_void_p))


# --- the assembler --------------------------------------------------------------------------

_LD, _JA, _RET, _AND = 0x20, 0x05, 0x06, 0x54  # ld [k]; jump always; ret k; and k
_JEQ, _JGT, _JGE = 0x15, 0x25, 0x35
_OFFSET_NR, _OFFSET_ARCH, _OFFSET_ARGS = 0, 4, 16  # struct seccomp_data, little endian
_REACH = 255

_Label = int
"""A place in the program, as the number of instructions that come after it."""


class _Program:
    """Instructions from last to first; each method puts one (or a few) in front and returns its label."""

    def __init__(self) -> None:
        self.code: list[tuple[int, int, int, int]] = []
        self._returns: dict[int, _Label] = {}

    def _put(self, code: int, value: int, if_true: int = 0, if_false: int = 0) -> _Label:
        self.code.append((code, if_true, if_false, value))
        return len(self.code) - 1

    def load(self, offset: int) -> _Label:
        return self._put(_LD, offset)

    def mask(self, value: int) -> _Label:
        return self._put(_AND, value)

    def ret(self, action: int) -> _Label:
        """The nearest return of this action, a new one if none is in reach."""
        known = self._returns.get(action)
        if known is None or len(self.code) - known > _REACH // 2:
            known = self._returns[action] = self._put(_RET, action)
        return known

    def at(self, label: _Label) -> _Label:
        """Make sure that what is put next falls through to `label`."""
        return label if label == len(self.code) - 1 else self._put(_JA, self._distance(label))

    def jump(self, code: int, value: int, if_true: _Label, if_false: _Label) -> _Label:
        """A conditional jump; far targets get a stepping stone behind it."""
        if if_true == if_false:
            return self.at(if_true)
        if self._distance(if_true) > _REACH - 1:  # the other target may need a stone too
            if_true = self._put(_JA, self._distance(if_true))
        if self._distance(if_false) > _REACH:
            if_false = self._put(_JA, self._distance(if_false))
        return self._put(code, value, self._distance(if_true), self._distance(if_false))

    def _distance(self, label: _Label) -> int:
        return len(self.code) - label - 1


@dataclass(frozen=True, slots=True)
class _Interval:
    start: int
    rules: tuple[Rule, ...]  # the last one has no tests


def _assemble_section(program: _Program, section: Section, default_action: int) -> _Label:
    program.at(_search(program, _intervals(section, default_action)))
    return program.load(_OFFSET_NR)


def _intervals(section: Section, default_action: int) -> list[_Interval]:
    """All numbers from 0 to 2**32 as the fewest intervals of one outcome each."""
    default, unknown = Rule(default_action), Rule(refuse(errno.ENOSYS))
    marks: dict[int, tuple[Rule, ...]] = {0: (default,)}
    for number, rules in sorted(section.rules.items()):
        marks[number] = _decisive(rules, default)
        marks.setdefault(number + 1, (default,))
    if section.last_known is not None:
        marks = {start: rules for start, rules in marks.items() if start <= section.last_known}
        marks[section.last_known + 1] = (unknown,)
    if section.arch == AUDIT_ARCH_X86_64:
        marks = {start: rules for start, rules in marks.items() if start < X32_BIT}
        marks[X32_BIT] = (unknown,)
    intervals: list[_Interval] = []
    for start, rules in sorted(marks.items()):
        if start < _NUMBERS_END and (not intervals or intervals[-1].rules != rules):
            intervals.append(_Interval(start, rules))
    return intervals


def _decisive(rules: Sequence[Rule], default: Rule) -> tuple[Rule, ...]:
    """The rules up to the first that always matches; the default action ends the others."""
    kept: list[Rule] = []
    for rule in rules:
        kept.append(rule)
        if not rule.tests:
            return tuple(kept)
    return (*kept, default)


def _search(program: _Program, intervals: Sequence[_Interval]) -> _Label:
    """A balanced tree over the intervals; the accumulator holds the number."""
    if len(intervals) == 1:
        return _decide(program, intervals[0].rules)
    middle = len(intervals) // 2
    above = _search(program, intervals[middle:])
    below = _search(program, intervals[:middle])
    return program.jump(_JGE, intervals[middle].start, above, below)


def _decide(program: _Program, rules: Sequence[Rule]) -> _Label:
    target = program.ret(rules[-1].action)
    for rule in reversed(rules[:-1]):
        matched = program.ret(rule.action)
        for test in reversed(rule.tests):
            matched = _test(program, test, matched, target)
        target = matched
    return target


def _test(program: _Program, test: ArgTest, matched: _Label, missed: _Label) -> _Label:
    match test.op:
        case Op.NE:
            return _equal(program, test, missed, matched, mask=_ALL_BITS)
        case Op.EQ:
            return _equal(program, test, matched, missed, mask=_ALL_BITS)
        case Op.MASKED_EQ:
            return _equal(program, test, matched, missed, mask=test.mask)
        case Op.GT:
            return _greater(program, test, _JGT, matched, missed)
        case Op.LE:
            return _greater(program, test, _JGT, missed, matched)
        case Op.GE:
            return _greater(program, test, _JGE, matched, missed)
        case Op.LT:
            return _greater(program, test, _JGE, missed, matched)


_ALL_BITS = (1 << 64) - 1
_LOW = 0xFFFFFFFF


def _equal(program: _Program, test: ArgTest, yes: _Label, no: _Label, *, mask: int) -> _Label:
    offset = _OFFSET_ARGS + 8 * test.index
    words = [(offset, mask & _LOW, test.value & _LOW)]
    if not test.is_int:
        words.append((offset + 4, mask >> 32 & _LOW, test.value >> 32 & _LOW))
    target = yes
    for place, word_mask, value in words:
        target = program.jump(_JEQ, value, target, no)
        if word_mask != _LOW:
            program.mask(word_mask)
        target = program.load(place)
    return target


def _greater(program: _Program, test: ArgTest, low_jump: int, yes: _Label, no: _Label) -> _Label:
    offset = _OFFSET_ARGS + 8 * test.index
    program.jump(low_jump, test.value & _LOW, yes, no)
    low = program.load(offset)
    if test.is_int:
        return low
    high = test.value >> 32 & _LOW
    equal = program.jump(_JEQ, high, low, no)
    program.jump(_JGT, high, yes, equal)
    return program.load(offset + 4)
