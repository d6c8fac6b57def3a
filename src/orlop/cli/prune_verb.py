"""`orlop container prune`."""

from __future__ import annotations

import sys

from orlop.cli.context import Context, is_terminal
from orlop.cli.flags import Command, Flag, Parsed
from orlop.cli.listing import filters_query
from orlop.cli.units import human_size

COMMAND = Command(
    "prune [OPTIONS]",
    "Remove all stopped containers",
    (
        Flag("filter", kind="list", text='Provide filter values (e.g. "until=<timestamp>")'),
        Flag("force", "f", "bool", text="Do not prompt for confirmation"),
    ),
    max_args=0,
)


def run(context: Context, parsed: Parsed) -> int:
    """Ask, remove, and say what is gone."""
    if not parsed["force"] and not _confirmed(context):
        return 0
    query = {"filters": filters_query(parsed["filter"])}
    answer = context.client.call("POST", "/containers/prune", query) or {}
    if answer.get("ContainersDeleted"):
        context.print("Deleted Containers:")
        for container in answer["ContainersDeleted"]:
            context.print(container)
        context.print("")
    context.print(f"Total reclaimed space: {human_size(answer.get('SpaceReclaimed') or 0)}")
    return 0


def _confirmed(context: Context) -> bool:
    context.print("WARNING! This will remove all stopped containers.")
    if not is_terminal(sys.stdin):
        context.warn("orlop: not a terminal: give --force to go on")
        return False
    context.print("Are you sure you want to continue? [y/N] ", end="")
    context.out.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}
