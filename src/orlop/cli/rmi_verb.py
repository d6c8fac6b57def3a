"""`orlop rmi`."""

from __future__ import annotations

from orlop.cli.context import Context
from orlop.cli.flags import Command, Flag, Parsed
from orlop.client.client import path_of

COMMAND = Command(
    "rmi [OPTIONS] IMAGE [IMAGE...]",
    "Remove one or more images",
    (
        Flag("force", "f", "bool", text="Force removal of the image"),
        Flag("no-prune", kind="bool", text="Do not delete untagged parents"),
        Flag("platform", kind="list", text="Remove only the given platform(s), os/arch[/variant]"),
    ),
    min_args=1,
)


def run(context: Context, parsed: Parsed) -> int:
    """Remove each and print what went."""

    def remove(name: str) -> None:
        query = {
            "force": parsed["force"] or None,
            "noprune": parsed["no-prune"] or None,
            "platforms": parsed["platform"],
        }
        for item in context.client.call("DELETE", path_of("images", name), query) or []:
            context.print(
                f"Untagged: {item['Untagged']}" if item.get("Untagged") else f"Deleted: {item['Deleted']}"
            )

    return context.each(parsed.args, remove)
