"""`orlop load`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import BinaryIO

from orlop.base.errors import InvalidInput
from orlop.cli.context import Context, is_terminal
from orlop.cli.flags import Command, Flag, Parsed
from orlop.cli.progress import show_progress

COMMAND = Command(
    "load [OPTIONS]",
    "Load an image from a tar archive or STDIN",
    (
        Flag("input", "i", text="Read from tar archive file, instead of STDIN"),
        Flag("platform", kind="list", text="Load only the given platform(s), os/arch[/variant]"),
        Flag("quiet", "q", "bool", text="Suppress the load output"),
    ),
    max_args=0,
)
_CHUNK_BYTES = 1 << 20


def run(context: Context, parsed: Parsed) -> int:
    """Send the archive and print which images came out of it."""
    if not parsed["input"] and is_terminal(sys.stdin):
        raise InvalidInput("requested load from stdin, but stdin is empty")
    try:
        source: BinaryIO = open(parsed["input"], "rb") if parsed["input"] else sys.stdin.buffer  # noqa: SIM115
    except OSError as error:
        raise InvalidInput(f"open {parsed['input']}: {(error.strerror or str(error)).lower()}") from error
    with source:
        answers = context.client.lines(
            "POST",
            "/images/load",
            {"quiet": parsed["quiet"] or None, "platform": parsed["platform"]},
            body=_pieces(source),
            headers={"Content-Type": "application/x-tar"},
        )
        show_progress(answers, context.out)
    return 0


def _pieces(source: BinaryIO) -> Iterator[bytes]:
    while piece := source.read(_CHUNK_BYTES):
        yield piece
