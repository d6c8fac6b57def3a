"""The names of all failpoints, read from the source."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

SRC = Path(__file__).parents[2] / "src" / "orlop"
# Functions that take a prefix as their last argument and hit `<prefix>.<step>`.
PREFIXED = {"publish_file": ("before-fsync", "before-rename", "after-rename")}


@cache
def declared() -> frozenset[str]:
    """Every name that is hit anywhere.

    Raises:
        AssertionError: a name that cannot be read from the source.
    """
    names: set[str] = set()
    for path in sorted(SRC.rglob("*.py")):
        for function in _functions(ast.parse(path.read_text())):
            for call in _calls(function):
                names |= _names(call, f"{path.relative_to(SRC)}:{call.lineno}", function)
    return frozenset(names)


def _functions(tree):
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def _calls(function):
    own = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
    inner = {id(call) for other in _functions(function) if other is not function for call in ast.walk(other)}
    return [call for call in own if id(call) not in inner]


def _names(call, where, function):
    if ast.unparse(call.func) == "failpoints.hit":
        match call.args:
            case [ast.Constant(value=str(name))]:
                return {name}
            case _ if function.name in PREFIXED:
                return set()  # its callers say what the prefix is
        raise AssertionError(f"{where}: the name of a failpoint has to be a literal")
    for name, steps in PREFIXED.items():
        arguments = [argument for argument in call.args if not isinstance(argument, ast.Starred)]
        is_direct = ast.unparse(call.func).rpartition(".")[2] == name
        is_passed = any(ast.unparse(argument).rpartition(".")[2] == name for argument in arguments)
        if is_direct or is_passed:
            match arguments[-1]:
                case ast.Constant(value=str(prefix)):
                    return {f"{prefix}.{step}" for step in steps}
            raise AssertionError(f"{where}: the prefix of {name} has to be a literal")
    return set()
