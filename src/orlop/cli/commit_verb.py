"""`orlop commit`."""

from __future__ import annotations

from orlop.cli.context import Context
from orlop.cli.flags import Command, Flag, Parsed
from orlop.cli.references import split_tag

COMMAND = Command(
    "commit [OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
    "Create a new image from a container's changes",
    (
        Flag("author", "a", text='Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")'),
        Flag("change", "c", "list", text="Apply Dockerfile instruction to the created image"),
        Flag("message", "m", text="Commit message"),
        Flag("pause", "p", "bool", default=True, text="Pause container during commit"),
    ),
    min_args=1,
    max_args=2,
)


def run(context: Context, parsed: Parsed) -> int:
    """Commit and print the image's id."""
    name, tag = split_tag(parsed.args[1]) if len(parsed.args) > 1 else ("", "")
    query = {
        "container": parsed.args[0],
        "repo": name,
        "tag": tag,
        "author": parsed["author"],
        "comment": parsed["message"],
        "pause": parsed["pause"],
        "changes": parsed["change"],
    }
    context.print(context.client.call("POST", "/commit", query)["Id"])
    return 0
