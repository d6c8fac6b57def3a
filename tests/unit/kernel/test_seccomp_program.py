import errno
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orlop.kernel.seccomp import (
    ALLOW,
    AUDIT_ARCH_AARCH64,
    AUDIT_ARCH_I386,
    AUDIT_ARCH_X86_64,
    KILL_PROCESS,
    LOG,
    ArgTest,
    Op,
    Rule,
    Section,
    assemble,
    refuse,
)

sys.path.insert(0, str(Path(__file__).parent))
from bpf_machine import evaluate, run

DENY = refuse()
ARCHES = (AUDIT_ARCH_X86_64, AUDIT_ARCH_I386, AUDIT_ARCH_AARCH64)
edges = [0, 1, 2, 38, 40, 0x7E020000, 0xFFFFFFFF, 1 << 32, (1 << 32) + 38, (1 << 64) - 1]
values = st.one_of(st.sampled_from(edges), st.integers(0, (1 << 64) - 1))
tests = st.builds(ArgTest, st.integers(0, 5), st.sampled_from(Op), values, values, st.booleans())
actions = st.sampled_from([ALLOW, DENY, KILL_PROCESS, LOG, refuse(errno.ENOSYS)])
rules = st.lists(st.builds(Rule, actions, st.lists(tests, max_size=3).map(tuple)), min_size=1, max_size=4)
numbers = st.one_of(
    st.integers(0, 30), st.integers(0, 500), st.sampled_from([0x3FFFFFFF, 0x40000000, 0xFFFFFFFF])
)
tables = st.dictionaries(numbers, rules, max_size=25)
last_known = st.one_of(st.none(), st.integers(0, 400))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(tables, last_known), min_size=1, max_size=3), actions, st.data())
def test_the_program_decides_as_the_table_does(tables, default, data):
    sections = [Section(arch, *table) for arch, table in zip(ARCHES, tables, strict=False)]
    program = assemble(sections, default)

    for _ in range(12):
        arch = data.draw(st.sampled_from(ARCHES))
        known = [number for section in sections for number in section.rules]
        number = data.draw(st.one_of(numbers, st.sampled_from(known)) if known else numbers)
        args = data.draw(st.tuples(*[values] * 6))
        assert run(program, arch, number, args) == evaluate(sections, default, arch, number, args)


def test_a_long_program_keeps_its_jumps_right():
    """Hundreds of calls with conditions of their own: most targets are out of a conditional jump's reach."""

    def rules(n):
        return [Rule(refuse(n % 90 + 1), (ArgTest(0, Op.EQ, n << 20), ArgTest(1, Op.GT, n)))]

    sections = [Section(arch, {n: rules(n) for n in range(0, 240, 2)}, 300) for arch in ARCHES[:2]]
    program = assemble(sections, ALLOW)

    assert len(program) // 8 > 1500
    for arch in ARCHES:
        for n in range(320):
            for args in ((n << 20, n + 1, 0, 0, 0, 0), (n << 20, n, 0, 0, 0, 0), (0, n + 1, 0, 0, 0, 0)):
                assert run(program, arch, n, args) == evaluate(sections, ALLOW, arch, n, args)


def test_too_long_a_program_is_refused():
    rules = {n: [Rule(ALLOW, (ArgTest(0, Op.EQ, n),) * 6)] for n in range(400)}

    with pytest.raises(ValueError, match="instructions"):
        assemble([Section(AUDIT_ARCH_X86_64, rules)], DENY)


def test_neighbours_with_one_outcome_share_an_interval():
    program = assemble([Section(AUDIT_ARCH_X86_64, {n: [Rule(ALLOW)] for n in range(300)}, 300)], ALLOW)

    assert len(program) // 8 < 12


def test_high_bits_of_an_int_are_ignored_when_told():
    program = assemble(
        [Section(AUDIT_ARCH_X86_64, {1: [Rule(ALLOW, (ArgTest(0, Op.GT, 40, is_int=True),))]})], DENY
    )

    assert run(program, AUDIT_ARCH_X86_64, 1, ((1 << 32) + 38, 0, 0, 0, 0, 0)) == DENY
