"""`orlop wait`."""

from __future__ import annotations

from orlop.cli.context import Context
from orlop.cli.flags import Command, Parsed
from orlop.client.client import path_of

COMMAND = Command(
    "wait CONTAINER [CONTAINER...]",
    "Block until one or more containers stop, then print their exit codes",
    min_args=1,
)


def run(context: Context, parsed: Parsed) -> int:
    """Wait for each in turn and print its exit code."""

    def wait(name: str) -> None:
        answer = context.client.call("POST", path_of("containers", name, "wait"))
        context.print(str(answer["StatusCode"]))

    return context.each(parsed.args, wait)
