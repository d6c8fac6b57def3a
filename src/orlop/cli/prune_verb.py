"""`orlop container prune`."""

from __future__ import annotations

from orlop.cli.context import Context
from orlop.cli.flags import Command, Flag, Parsed
from orlop.cli.listing import filters_query
from orlop.cli.pruning import confirmed, print_deleted
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
    if not parsed["force"] and not confirmed(context, "all stopped containers"):
        return 0
    query = {"filters": filters_query(parsed["filter"])}
    answer = context.client.call("POST", "/containers/prune", query) or {}
    print_deleted(context, "Deleted Containers", answer.get("ContainersDeleted"))
    context.print(f"Total reclaimed space: {human_size(answer.get('SpaceReclaimed') or 0)}")
    return 0
