"""docs/security.md says what the code does: every default, every option, every row that is tried."""

import re
from pathlib import Path

import pytest

from orlop.base.errors import InvalidInput
from orlop.engine import hostconfig, privileges, securityopts
from orlop.runtime import defaults

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()
ROWS = {int(number): line for line in PAGE.splitlines() for number in re.findall(r"^\| (\d+) \|", line)}


def cell(row):
    """The column `default`."""
    return ROWS[row].split("|")[3]


def test_the_capabilities_are_the_code_s():
    words = re.findall(r"\b[A-Z_]{4,}\b", cell(1))

    assert tuple(words) == defaults.CAPABILITIES == tuple(privileges.DEFAULT_CAPABILITIES)


@pytest.mark.parametrize(("row", "paths"), [(14, defaults.MASKED_PATHS), (16, defaults.READ_ONLY_PATHS)])
def test_the_paths_are_the_code_s(row, paths):
    assert tuple(re.findall(r"`(/[^`]+)`", cell(row))) == paths


def test_the_device_nodes_are_those_that_may_be_opened():
    assert set("null zero full random urandom tty ptmx console pts".split()) <= set(
        re.findall(r"\w+", cell(17))
    )
    assert len(defaults.DEVICE_RULES) == 11


def test_the_numbers_are_the_code_s():
    assert f" {hostconfig.default_pids_limit(0)}," in cell(22)
    for name, value in privileges.sysctls(hostconfig.HostConfig(network_mode="bridge")).items():
        assert f"`{name}={value}`" in cell(25)


def test_the_preset_is_the_code_s():
    section = PAGE.partition("## The hardened preset")[2].partition("\n## ")[0]

    assert (
        f"without {', '.join(securityopts.HARDENED_DROPS[:-1])} and {securityopts.HARDENED_DROPS[-1]}:"
        in section
    )
    assert "hardened" in securityopts.PRESETS


def test_every_word_of_the_page_is_taken():
    section = PAGE.partition("## Words of")[2].partition("\n## ")[0]
    words = re.findall(r"^\| `([a-z-]+)", section, re.MULTILINE)
    values = {
        "seccomp": "builtin",
        "apparmor": "unconfined",
        "label": "disable",
        "systempaths": "unconfined",
        "userns": "auto",
    }

    assert len(words) == 8
    for word in words:
        option = f"{word}={values.get(word, 'true')}"
        securityopts.parse_security((option,), is_privileged=False, defaults=hostconfig.HostDefaults())
    with pytest.raises(InvalidInput):
        securityopts.parse_security(("other=true",), is_privileged=False, defaults=hostconfig.HostDefaults())


def test_every_row_that_is_tried_is_on_the_page():
    tests = (ROOT / "tests" / "system" / "test_isolation_table.py").read_text()
    tried = {
        int(number)
        for name in re.findall(r"def (test_rows?_\S+)\(", tests)
        for number in re.findall(r"_(\d+)(?=_)", name)
    }

    assert len(tried) > 20
    assert tried <= set(ROWS)
