"""`orlop rm`."""

from __future__ import annotations

from orlop.cli.context import Context
from orlop.cli.flags import Command, Flag, Parsed
from orlop.client.client import ApiError, path_of

COMMAND = Command(
    "rm [OPTIONS] CONTAINER [CONTAINER...]",
    "Remove one or more containers",
    (
        Flag("force", "f", "bool", text="Force the removal of a running container (uses SIGKILL)"),
        Flag("volumes", "v", "bool", text="Remove anonymous volumes associated with the container"),
        Flag("link", "l", "bool", text="Remove the specified link"),
    ),
    min_args=1,
)


def run(context: Context, parsed: Parsed) -> int:
    """Remove each and print its name; with --force a missing one is only a message."""

    def remove(name: str) -> None:
        query = {
            "force": parsed["force"] or None,
            "v": parsed["volumes"] or None,
            "link": parsed["link"] or None,
        }
        try:
            context.client.call("DELETE", path_of("containers", name), query)
        except ApiError as error:
            if not (parsed["force"] and error.status == 404):
                raise
            context.warn(f"Error response from engine: {error}")
            return
        context.print(name)

    return context.each(parsed.args, remove)
