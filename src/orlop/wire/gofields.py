"""What a dataclass field says about its JSON, and what its annotation means: shared by both directions."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any

__all__ = ["bare_type", "field", "is_homogeneous", "key_of", "pascal"]


def field(
    name: str | None = None,
    *,
    omit_empty: bool = False,
    omit_none: bool = False,
    or_string: bool = False,
    default: Any = dataclasses.MISSING,
    default_factory: Any = dataclasses.MISSING,
) -> Any:
    """A dataclass field with its JSON habits.

    Args:
        name: the key, where PascalCase of the field's name is wrong.
        omit_empty: leave the key out when the value is falsy.
        omit_none: leave the key out when the value is None: Go's omitempty on a pointer.
        or_string: accept a string: for an int its decimal digits, for a tuple of strings the
            one-element tuple (Docker's Cmd and Entrypoint), "" being empty.
        default: value when the key is missing or null.
        default_factory: makes such a value.
    """
    metadata = {"json": name, "omit_empty": omit_empty, "omit_none": omit_none, "or_string": or_string}
    if default_factory is not dataclasses.MISSING:
        return dataclasses.field(default_factory=default_factory, metadata=metadata)
    if default is not dataclasses.MISSING:
        return dataclasses.field(default=default, metadata=metadata)
    return dataclasses.field(metadata=metadata)


def pascal(name: str) -> str:
    """`host_config` -> `HostConfig`."""
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))


def key_of(item: dataclasses.Field[Any]) -> str:
    return item.metadata.get("json") or pascal(item.name)


def is_homogeneous(hint: Any) -> bool:
    args = typing.get_args(hint)
    return typing.get_origin(hint) is list or (len(args) == 2 and args[1] is Ellipsis)


def bare_type(hint: Any) -> tuple[Any, bool]:
    """The type without NewType and None, and whether None was there."""
    optional = False
    while True:
        if isinstance(hint, typing.NewType):
            hint = hint.__supertype__
        elif typing.get_origin(hint) in (types.UnionType, typing.Union):
            args = [arg for arg in typing.get_args(hint) if arg is not type(None)]
            optional = True
            hint = args[0] if len(args) == 1 else object
        else:
            return hint, optional
