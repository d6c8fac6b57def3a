"""A FileOp and selections as JSON, for the worker that carries them out."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from orlop.build import graph as g
from orlop.build.cachekey import Selection

__all__ = ["decode_file_op", "decode_selection", "encode_file_op", "encode_selection"]

_ACTIONS: dict[str, type[g.CopyAction | g.MkfileAction | g.MkdirAction | g.RmAction]] = {
    "copy": g.CopyAction,
    "mkfile": g.MkfileAction,
    "mkdir": g.MkdirAction,
    "rm": g.RmAction,
}
_NAMES = {kind: name for name, kind in _ACTIONS.items()}


def encode_file_op(operation: g.FileOp) -> list[dict[str, Any]]:
    """Plain values."""
    encoded = []
    for step in operation.actions:
        values = asdict(step.action)
        if isinstance(step.action, g.MkfileAction):
            values["data"] = base64.b64encode(step.action.data).decode()
        places = {"input": step.input, "secondary_input": step.secondary_input, "output": step.output}
        encoded.append({"kind": _NAMES[type(step.action)], "action": values, **places})
    return encoded


def decode_file_op(encoded: list[dict[str, Any]]) -> g.FileOp:
    """The value again."""
    return g.FileOp(tuple(_decode_action(step) for step in encoded))


def encode_selection(selection: Selection) -> dict[str, Any]:
    """Plain values."""
    return asdict(selection)


def decode_selection(encoded: Mapping[str, Any]) -> Selection:
    """The value again."""
    return Selection(**_tuples(encoded))


def _decode_action(step: Mapping[str, Any]) -> g.FileAction:
    kind = _ACTIONS[step["kind"]]
    values = _tuples(step["action"])
    if values.get("owner") is not None:
        values["owner"] = _owner(values["owner"])
    if "data" in values:
        values["data"] = base64.b64decode(values["data"])
    known = {field.name for field in fields(kind)}
    assert values.keys() <= known, "both ends are one version"
    return g.FileAction(kind(**values), step["input"], step["secondary_input"], step["output"])


def _owner(encoded: Mapping[str, Any]) -> g.Owner:
    user, group = encoded["user"], encoded["group"]
    return g.Owner(g.Principal(**user) if user else None, g.Principal(**group) if group else None)


def _tuples(encoded: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in encoded.items()}
