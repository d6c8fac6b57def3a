"""`orlop export`."""

from __future__ import annotations

from orlop.cli.context import Context
from orlop.cli.flags import Command, Flag, Parsed
from orlop.cli.output_file import refuse_terminal, write_stream
from orlop.client.client import path_of

COMMAND = Command(
    "export [OPTIONS] CONTAINER",
    "Export a container's filesystem as a tar archive",
    (Flag("output", "o", text="Write to a file, instead of STDOUT"),),
    min_args=1,
    max_args=1,
)


def run(context: Context, parsed: Parsed) -> int:
    """Write the archive; a file appears whole or not at all."""
    refuse_terminal(parsed["output"], "export")
    exchange = context.client.open("GET", path_of("containers", parsed.args[0], "export"))
    write_stream(exchange, parsed["output"])
    return 0
