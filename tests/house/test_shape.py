"""The house rules that a syntax tree can check; exception lists may only shrink."""

import ast
import re
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src" / "orlop"
MODULES = sorted(SRC.rglob("*.py"))
MAX_LINES = 500
MAX_FUNCTION_LINES = 60
TABLES = {"kernel/syscall_tables.py"}  # numbers from the kernel's headers


def name_of(path: Path) -> str:
    return str(path.relative_to(SRC))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_module_is_short_enough_to_read(path):
    if name_of(path) in TABLES:
        return

    lines = len(path.read_text().splitlines())

    assert lines <= MAX_LINES, "split it by noun"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_functions_fit_on_a_screen(path):
    tree = ast.parse(path.read_text())

    long = [
        f"{node.name}: {node.end_lineno - node.lineno + 1}"
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno - node.lineno + 1 > MAX_FUNCTION_LINES
    ]

    assert not long


@pytest.mark.parametrize("path", [p for p in MODULES if p.name == "__init__.py"], ids=name_of)
def test_package_init_is_only_a_docstring(path):
    body = ast.parse(path.read_text()).body

    assert all(isinstance(node, ast.Expr) for node in body)


@pytest.mark.parametrize("path", [p for p in MODULES if p.name != "__init__.py"], ids=name_of)
def test_module_says_what_it_holds(path):
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_environment_is_read_only_at_the_edges():
    allowed = re.compile(r"(daemon|zygote|oci_runtime|registry_daemon|cli/|client/)")

    readers = [
        name_of(path)
        for path in MODULES
        if re.search(r"os\.(environ|getenv)\b", path.read_text()) and not allowed.match(name_of(path))
    ]

    assert readers == []


def test_every_failpoint_is_documented():
    table = (SRC.parents[1] / "docs" / "internals" / "failpoints.md").read_text()

    names = set()
    for path in MODULES:
        names |= set(re.findall(r"failpoints\.hit\(\s*\"([^\"]+)\"", path.read_text()))

    assert {name for name in names if f"`{name}`" not in table} == set()


def test_test_modules_have_names_of_their_own():
    names = [path.name for path in (SRC.parents[1] / "tests").rglob("test_*.py")]

    assert sorted({name for name in names if names.count(name) > 1}) == []


def test_an_error_that_somebody_must_act_on_says_what_to_do():
    """Damage and shortage are the operator's: a remedy of the class, or a hint at every place that raises it."""
    owned = {"CORRUPT", "EXHAUSTED"}
    nodes = [(path, node) for path in MODULES for node in ast.walk(ast.parse(path.read_text()))]

    hintless = [
        (path, getattr(node.func, "id", ""))
        for path, node in nodes
        if isinstance(node, ast.Call) and not any(keyword.arg == "hint" for keyword in node.keywords)
    ]
    needy = {
        node.name
        for _, node in nodes
        if isinstance(node, ast.ClassDef) and words_of(node, "kind") & owned and not words_of(node, "remedy")
    }
    silent = {f"{name_of(path)}: {name}" for path, name in hintless if name in needy}

    assert silent == set()


def words_of(owner: ast.ClassDef, name: str) -> set[str]:
    """The names and constants in what a class attribute is set to."""
    values = [
        node.value
        for node in owner.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        and name
        in {getattr(target, "id", "") for target in getattr(node, "targets", [getattr(node, "target", None)])}
    ]
    return {
        str(getattr(part, "attr", getattr(part, "value", "")))
        for value in values
        if value is not None
        for part in ast.walk(value)
    }


def test_every_code_of_an_error_belongs_to_one_class():
    """A code is what crosses a process border: two classes with one would be mistaken for each other."""
    declared = [
        (node.value.value, f"{name_of(path)}: {owner.name}")
        for path in MODULES
        for owner in ast.walk(ast.parse(path.read_text()))
        if isinstance(owner, ast.ClassDef)
        for node in owner.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        and isinstance(node.value, ast.Constant)
        and "code" in {target.id for target in getattr(node, "targets", [getattr(node, "target", None)])}
    ]

    owners = {code: [owner for found, owner in declared if found == code] for code, _ in declared}

    assert {code: names for code, names in owners.items() if len(names) > 1} == {}
