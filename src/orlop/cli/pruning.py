"""What the prune verbs share: ask first, say afterwards what is gone."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from orlop.cli.context import Context, is_terminal

__all__ = ["confirmed", "print_deleted"]


def confirmed(context: Context, what: str) -> bool:
    """Warn that `what` will be removed and ask; without a terminal there is nobody to ask."""
    context.print(f"WARNING! This will remove {what}.")
    if not is_terminal(sys.stdin):
        context.warn("orlop: not a terminal: give --force to go on")
        return False
    context.print("Are you sure you want to continue? [y/N] ", end="")
    context.out.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def print_deleted(context: Context, title: str, names: Iterable[str] | None) -> None:
    """The names below their title; nothing when there are none."""
    if names:
        context.print(f"{title}:")
        for name in names:
            context.print(name)
        context.print("")
