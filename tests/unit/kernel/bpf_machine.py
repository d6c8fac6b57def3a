"""A classic BPF interpreter for seccomp programs, and a naive evaluator of the tables they are made from."""

import errno
import struct

from orlop.kernel.seccomp import AUDIT_ARCH_X86_64, KILL_PROCESS, Op, refuse


def run(program, arch, number, args=(0,) * 6, limit=1000):
    """The value the program returns; every rule of the kernel's own checker is asserted."""
    data = struct.pack("<IIQ6Q", number, arch, 0x1234, *args)
    code = list(struct.iter_unpack("<HBBI", program))
    accumulator, position, steps = None, 0, 0
    while True:
        steps += 1
        assert steps < limit
        operation, if_true, if_false, k = code[position]
        position += 1
        match operation:
            case 0x20:
                assert k % 4 == 0
                assert k < 64
                accumulator = struct.unpack_from("<I", data, k)[0]
            case 0x05:
                position += k
            case 0x06:
                return k
            case 0x54:
                accumulator &= k
            case 0x15:
                position += if_true if accumulator == k else if_false
            case 0x25:
                position += if_true if accumulator > k else if_false
            case 0x35:
                position += if_true if accumulator >= k else if_false
            case _:
                raise AssertionError(hex(operation))


def holds(test, args):
    value = args[test.index]
    wanted, mask = test.value, test.mask
    if test.is_int:
        value, wanted, mask = value & 0xFFFFFFFF, wanted & 0xFFFFFFFF, mask & 0xFFFFFFFF
    return {
        Op.NE: value != wanted,
        Op.LT: value < wanted,
        Op.LE: value <= wanted,
        Op.EQ: value == wanted,
        Op.GE: value >= wanted,
        Op.GT: value > wanted,
        Op.MASKED_EQ: value & mask == wanted,
    }[test.op]


def evaluate(sections, default, arch, number, args):
    """What the table says, read from top to bottom."""
    section = next((section for section in sections if section.arch == arch), None)
    if section is None:
        return KILL_PROCESS
    if section.last_known is not None and number > section.last_known:
        return refuse(errno.ENOSYS)
    if arch == AUDIT_ARCH_X86_64 and number >= 0x40000000:
        return refuse(errno.ENOSYS)
    for rule in section.rules.get(number, ()):
        if all(holds(test, args) for test in rule.tests):
            return rule.action
    return default
