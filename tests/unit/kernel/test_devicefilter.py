import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orlop.kernel.devicefilter import DeviceRule, assemble, merge, parse_rule


@pytest.mark.parametrize("text", ["c 1:3 rwm", "b *:* m", "a *:* rwm", "c 136:* rw"])
def test_rules_round_trip(text):
    assert str(parse_rule(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "c",
        "d 1:3 r",
        "c 1:3",
        "c 1:3 rx",
        "c 1 r",
        "c -1:3 r",
        "c 1:4294967296 r",
        "c 1:² r",
        "c 1:3 r w",
    ],
)
def test_malformed_rules_are_refused(text):
    with pytest.raises(ValueError, match="invalid device"):
        parse_rule(text)


def test_merge_joins_the_access_of_one_device():
    rules = merge([DeviceRule("c", 1, 3, "r"), DeviceRule("c", 1, 5), DeviceRule("c", 1, 3, "mw")])

    assert [str(rule) for rule in rules] == ["c 1:3 rwm", "c 1:5 rwm"]


def run(program, kind, access, major, minor):
    """A tiny machine for the instructions we emit."""
    context = {0: access << 16 | kind, 4: major, 8: minor}
    registers = [0] * 11
    position = 0
    while True:
        code, regs, offset, value = struct.unpack_from("<BBhI", program, position * 8)
        dst, src = regs & 15, regs >> 4
        position += 1
        match code:
            case 0x61:
                registers[dst] = context[offset]
            case 0xBC:
                registers[dst] = registers[src]
            case 0x54:
                registers[dst] &= value
            case 0x74:
                registers[dst] >>= value
            case 0xB7:
                registers[dst] = value
            case 0x56:
                position += offset if registers[dst] != value else 0
            case 0x95:
                return registers[0]
            case _:
                raise AssertionError(hex(code))


numbers = st.one_of(st.none(), st.integers(0, 3))
rules = st.lists(
    st.builds(
        DeviceRule, st.sampled_from("abc"), numbers, numbers, st.sampled_from(["r", "rw", "m", "rwm", "wm"])
    ),
    max_size=6,
)


@settings(max_examples=60, deadline=None)
@given(rules, st.integers(1, 2), st.integers(1, 7), st.integers(0, 3), st.integers(0, 3))
def test_the_program_allows_what_one_rule_covers(rules, kind, access, major, minor):
    bits = {"m": 1, "r": 2, "w": 4}

    def covers(rule):
        return (
            rule.kind in ("a", " bc"[kind])
            and rule.major in (None, major)
            and rule.minor in (None, minor)
            and not access & ~sum(bits[letter] for letter in rule.access)
        )

    assert run(assemble(rules), kind, access, major, minor) == int(any(map(covers, rules)))


def test_nothing_comes_after_a_rule_that_covers_everything():
    # verifiers of Linux 6.1 refuse unreachable instructions
    everything, more = parse_rule("a *:* rwm"), parse_rule("c 1:3 rwm")

    assert assemble([everything, more]) == assemble([everything])
    assert len(assemble([everything])) == len(assemble([])) == 8 * 8
