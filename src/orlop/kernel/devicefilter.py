"""Which device nodes a cgroup may use: v1 files, a BPF program on v2, both on hybrid hosts.

Rules only allow; everything else is denied. On v2 the program is ours, a few instructions per
rule, and is attached so that programs of nested cgroups can only narrow it further.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterable, Sequence
from ctypes import addressof, byref, c_char_p, c_uint32, c_uint64, create_string_buffer, sizeof
from dataclasses import dataclass

from orlop.kernel.cgroup import Cgroup
from orlop.kernel.syscall import INT, PTR, UINT, SystemCall

__all__ = ["ALLOW_ALL", "DeviceRule", "assemble", "can_load", "merge", "parse_rule", "restrict"]

_ACCESS_BITS = {"m": 1, "r": 2, "w": 4}  # include/uapi/linux/bpf.h, BPF_DEVCG_ACC_*
_ALL_ACCESS = 7
_TYPES = {"b": 1, "c": 2}  # BPF_DEVCG_DEV_*

_BPF_PROG_LOAD = 5
_BPF_PROG_ATTACH = 8
_BPF_PROG_TYPE_CGROUP_DEVICE = 15
_BPF_CGROUP_DEVICE = 6
_BPF_F_ALLOW_MULTI = 2
_LOG_BYTES = 16384

_bpf = SystemCall("bpf", INT, PTR, UINT)


@dataclass(frozen=True, slots=True)
class DeviceRule:
    """Allow `access` (letters of `rwm`) to devices; None as number and "a" as kind mean any."""

    kind: str
    major: int | None
    minor: int | None
    access: str = "rwm"

    def __str__(self) -> str:
        """The rule as v1 takes it."""
        numbers = ("*" if number is None else str(number) for number in (self.major, self.minor))
        return f"{self.kind} {':'.join(numbers)} {self.access}"


ALLOW_ALL = (DeviceRule("a", None, None),)
"""The rules of a privileged container."""


def parse_rule(text: str) -> DeviceRule:
    """`c 1:3 rwm`, `b *:* m`: the words of --device-cgroup-rule; ValueError for anything else."""
    words = text.split()
    if len(words) != 3 or words[0] not in ("a", "b", "c") or not words[2] or set(words[2]) - set("rwm"):
        raise ValueError(f"invalid device cgroup rule {text!r}")
    major, colon, minor = words[1].partition(":")
    numbers = [_parse_number(number, text) for number in (major, minor if colon else "")]
    return DeviceRule(words[0], numbers[0], numbers[1], "".join(sorted(set(words[2]), key="rwm".index)))


def _parse_number(word: str, text: str) -> int | None:
    if word == "*":
        return None
    if not (word.isascii() and word.isdecimal() and len(word) <= 10 and int(word) < 1 << 32):
        raise ValueError(f"invalid device cgroup rule {text!r}")
    return int(word)


def merge(rules: Iterable[DeviceRule]) -> tuple[DeviceRule, ...]:
    """One rule per device with all its access letters, as the v1 controller keeps them."""
    access: dict[tuple[str, int | None, int | None], set[str]] = {}
    for rule in rules:
        access.setdefault((rule.kind, rule.major, rule.minor), set()).update(rule.access)
    return tuple(
        DeviceRule(kind, major, minor, "".join(sorted(letters, key="rwm".index)))
        for (kind, major, minor), letters in access.items()
    )


def restrict(cgroup: Cgroup, rules: Sequence[DeviceRule]) -> list[str]:
    """Allow these devices and no others; returns what enforces it: `v1`, `bpf` or both.

    Call it once, after `create` and before members run: a second call on v2 adds a further
    program, and both must allow.

    Raises:
        OSError: nothing on this host can enforce it (ENOSYS), or the kernel's refusal.
    """
    merged = merge(rules)
    enforced = []
    if "devices" in cgroup.host.v1:
        _restrict_v1(cgroup.directory("devices"), merged)
        enforced.append("v1")
    fd = cgroup.open_unified()
    if fd is not None:
        try:
            attach(fd, merged)
            enforced.append("bpf")
        except OSError as error:
            if not enforced:
                raise OSError(error.errno, f"device filter: {error.strerror}", cgroup.path) from error
        finally:
            os.close(fd)
    if not enforced:
        raise OSError(errno.ENOSYS, "this host has no device controller", cgroup.path)
    return enforced


def _restrict_v1(directory: str, rules: Sequence[DeviceRule]) -> None:
    if any(rule.kind == "a" for rule in rules):
        _write(f"{directory}/devices.allow", ["a"])
        return
    _write(f"{directory}/devices.deny", ["a"])
    _write(f"{directory}/devices.allow", [str(rule) for rule in rules])


def _write(path: str, values: Sequence[str]) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        for value in values:  # a write takes one rule
            try:
                os.write(fd, value.encode("ascii"))
            except OSError as error:
                raise OSError(error.errno, f"cannot write {value!r}: {error.strerror}", path) from None
    finally:
        os.close(fd)


# --- the v2 program -------------------------------------------------------------------------
#
# Context: u32 access_type (access << 16 | type), u32 major, u32 minor.
# Registers: r2 = access, r3 = type, r4 = major, r5 = minor; r0 = 1 allows, 0 denies.

_LDX_W, _AND32_K, _RSH32_K, _MOV32_X, _MOV64_K = 0x61, 0x54, 0x74, 0xBC, 0xB7
_JNE32_K, _EXIT = 0x56, 0x95


def _instruction(code: int, dst: int = 0, src: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return struct.pack("<BBhI", code, src << 4 | dst, offset, value & 0xFFFFFFFF)


def assemble(rules: Sequence[DeviceRule]) -> bytes:
    """The program for these rules, 8 bytes an instruction: a request that one rule covers is allowed."""
    parts = [
        _instruction(_LDX_W, 3, 1, 0),
        _instruction(_MOV32_X, 2, 3),
        _instruction(_AND32_K, 3, value=0xFFFF),
        _instruction(_RSH32_K, 2, value=16),
        _instruction(_LDX_W, 4, 1, 4),
        _instruction(_LDX_W, 5, 1, 8),
    ]
    for rule in rules:
        block, is_certain = _rule_block(rule)
        parts.append(block)
        if is_certain:  # older verifiers refuse a program with instructions that nothing reaches
            return b"".join(parts)
    parts += [_instruction(_MOV64_K, 0, value=0), _instruction(_EXIT)]
    return b"".join(parts)


def _rule_block(rule: DeviceRule) -> tuple[bytes, bool]:
    """Tests that jump past the block when they fail; and whether there are none."""
    # each is (instructions before the jump, register, value)
    tests: list[tuple[list[bytes], int, int]] = []
    if rule.kind != "a":
        tests.append(([], 3, _TYPES[rule.kind]))
    access = sum(_ACCESS_BITS[letter] for letter in set(rule.access))
    if access != _ALL_ACCESS:
        excess = [_instruction(_MOV32_X, 0, 2), _instruction(_AND32_K, 0, value=~access)]
        tests.append((excess, 0, 0))
    tests += [([], reg, number) for reg, number in ((4, rule.major), (5, rule.minor)) if number is not None]
    block = [_instruction(_MOV64_K, 0, value=1), _instruction(_EXIT)]
    for before, register, value in reversed(tests):
        jump = _instruction(_JNE32_K, register, 0, len(block), value)
        block = [*before, jump, *block]
    return b"".join(block), not tests


class _LoadAttr(ctypes.Structure):
    # include/uapi/linux/bpf.h, union bpf_attr, BPF_PROG_LOAD
    _fields_ = (
        ("prog_type", c_uint32),
        ("insn_cnt", c_uint32),
        ("insns", c_uint64),
        ("license", c_uint64),
        ("log_level", c_uint32),
        ("log_size", c_uint32),
        ("log_buf", c_uint64),
        ("kern_version", c_uint32),
        ("prog_flags", c_uint32),
        ("prog_name", ctypes.c_char * 16),
        ("prog_ifindex", c_uint32),
        ("expected_attach_type", c_uint32),
    )


class _AttachAttr(ctypes.Structure):
    _fields_ = (
        ("target_fd", c_uint32),
        ("attach_bpf_fd", c_uint32),
        ("attach_type", c_uint32),
        ("attach_flags", c_uint32),
        ("replace_bpf_fd", c_uint32),
    )


def attach(cgroup_fd: int, rules: Sequence[DeviceRule]) -> None:
    """Load the program for `rules` and attach it to a v2 cgroup, which then owns it."""
    program_fd = _load(assemble(rules))
    try:
        attributes = _AttachAttr(cgroup_fd, program_fd, _BPF_CGROUP_DEVICE, _BPF_F_ALLOW_MULTI, 0)
        _bpf(_BPF_PROG_ATTACH, byref(attributes), sizeof(attributes))
    finally:
        os.close(program_fd)


def can_load() -> bool:
    """Whether this kernel takes device programs from us; one is loaded and thrown away."""
    try:
        os.close(_load(assemble(())))
    except OSError:
        return False
    return True


def _load(program: bytes) -> int:
    instructions = create_string_buffer(program, len(program))
    licence = c_char_p(b"Apache-2.0")
    attributes = _LoadAttr(prog_type=_BPF_PROG_TYPE_CGROUP_DEVICE, insn_cnt=len(program) // 8)
    attributes.insns = addressof(instructions)
    attributes.license = ctypes.cast(licence, ctypes.c_void_p).value or 0
    attributes.prog_name = b"orlop_devices"
    attributes.expected_attach_type = _BPF_CGROUP_DEVICE
    try:
        return _bpf(_BPF_PROG_LOAD, byref(attributes), sizeof(attributes))
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EACCES):
            raise
        refusal = error
    log = create_string_buffer(_LOG_BYTES)  # once more, with the verifier's reasons
    attributes.log_level, attributes.log_size, attributes.log_buf = 1, _LOG_BYTES, addressof(log)
    try:
        return _bpf(_BPF_PROG_LOAD, byref(attributes), sizeof(attributes))
    except OSError:
        reasons = log.value.decode("ascii", "replace").strip().replace("\n", "; ")
        raise OSError(refusal.errno, f"{refusal.strerror}: {reasons}") from refusal
