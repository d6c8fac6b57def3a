"""docs/guide/compatibility.md counts what is there."""

import re
from pathlib import Path

import pytest

from support.sidebyside import read_table

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/guide/compatibility.md").read_text()
LINES = [
    line for group in read_table((ROOT / "tests/system/like_dockerd.txt").read_text()) for line in group.lines
]


def names(file):
    rows = (ROOT / "tests/compat" / file).read_text().splitlines()
    return [row.partition(" #")[0].strip() for row in rows if row and not row.startswith("#")]


def counted(pattern):
    (number,) = re.findall(pattern, PAGE)
    return int(number)


def test_the_command_lines_are_counted():
    assert counted(r"(\d+) command lines") == len(LINES)
    assert counted(r"(\d+) differ") == sum(line.reason is not None for line in LINES)


def test_every_difference_has_a_reason_and_says_what_is_wanted():
    assert [line.command for line in LINES if line.reason == "" or (line.reason and not line.wanted)] == []


def test_the_tests_that_wait_are_counted():
    assert counted(r"waiting.txt`: (\d+) tests") == len(names("waiting.txt"))


@pytest.mark.parametrize("name", names("waiting.txt"))
def test_what_waits_is_in_a_list(name):
    assert name in {*names("docker-py-6.1.3.txt"), *names("aiodocker.txt")}
