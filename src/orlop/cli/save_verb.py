"""`orlop save`."""

from __future__ import annotations

from orlop.cli.context import Context
from orlop.cli.flags import Command, Flag, Parsed
from orlop.cli.output_file import refuse_terminal, write_stream

COMMAND = Command(
    "save [OPTIONS] IMAGE [IMAGE...]",
    "Save one or more images to a tar archive (streamed to STDOUT by default)",
    (
        Flag("output", "o", text="Write to a file, instead of STDOUT"),
        Flag("platform", kind="list", text="Save only the given platform(s), os/arch[/variant]"),
    ),
    min_args=1,
)


def run(context: Context, parsed: Parsed) -> int:
    """Write the archive; a file appears whole or not at all."""
    refuse_terminal(parsed["output"], "save")
    exchange = context.client.open(
        "GET", "/images/get", {"names": list(parsed.args), "platform": parsed["platform"]}
    )
    write_stream(exchange, parsed["output"])
    return 0
