"""`orlop kill`."""

from __future__ import annotations

from orlop.cli.context import Context
from orlop.cli.flags import Command, Flag, Parsed
from orlop.client.client import path_of

COMMAND = Command(
    "kill [OPTIONS] CONTAINER [CONTAINER...]",
    "Kill one or more running containers",
    (Flag("signal", "s", text="Signal to send to the container"),),
    min_args=1,
)


def run(context: Context, parsed: Parsed) -> int:
    """Send the signal to each and print its name."""

    def kill(name: str) -> None:
        context.client.call("POST", path_of("containers", name, "kill"), {"signal": parsed["signal"]})
        context.print(name)

    return context.each(parsed.args, kill)
