"""The page of hostile inputs is true: its tests exist, and it names every hole that a test claims to try."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "internals" / "hostile-inputs.md").read_text()
NAMED = sorted(set(re.findall(r"`([a-z_/]+\.py)::(test_\w+)`", PAGE)))
HOSTILE = sorted((TESTS / "hostile").glob("test_*.py"))
_ID = re.compile(r"(?:CVE-)?(20\d\d-\d{4,6}|GHSA-\w{4})\b")


def functions(path):
    return {
        node.name: node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


@pytest.mark.parametrize("path", sorted({path for path, _ in NAMED}))
def test_tests_that_the_page_names_exist(path):
    assert {name for module, name in NAMED if module == path} - set(functions(TESTS / path)) == set()


@pytest.mark.parametrize("path", HOSTILE, ids=lambda path: path.name)
def test_every_hole_that_a_test_claims_is_on_the_page(path):
    known = set(_ID.findall(PAGE))

    claimed = {
        found
        for name, node in functions(path).items()
        if name.startswith("test_")
        for found in _ID.findall(ast.get_docstring(node) or "")
    }

    assert claimed - known == set()


@pytest.mark.parametrize("path", HOSTILE, ids=lambda path: path.name)
def test_hostile_tests_are_on_the_page_or_are_the_other_side_of_one(path):
    named = {name for module, name in NAMED if module == f"hostile/{path.name}"}

    missing = {name for name in functions(path) if name.startswith("test_")} - named

    assert {name for name in missing if _ID.search(ast.get_docstring(functions(path)[name]) or "")} == set()


def test_every_row_has_a_test_or_says_why_not():
    rows = [line for line in PAGE.splitlines() if re.match(r"\| (20|GHSA)", line)]

    assert len(rows) > 45
    assert [
        row for row in rows if "::test_" not in row and "not offered" not in row and "refused" not in row
    ] == []
