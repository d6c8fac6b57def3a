"""`orlop volume browse`, `clone`, `export`, `import`, `rename` and `snapshot`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import BinaryIO

from orlop.base.clock import format_rfc3339_nano
from orlop.base.errors import InvalidInput
from orlop.cli.context import Context, is_terminal
from orlop.cli.flags import Command, Flag, Parsed
from orlop.cli.image_layers_verb import printable
from orlop.cli.output_file import refuse_terminal, write_stream
from orlop.cli.table import render
from orlop.cli.units import human_size
from orlop.client.client import path_of

COMMANDS = {
    "volume-browse": Command(
        "volume browse VOLUME [PATH]", "List the files in a volume", (), min_args=1, max_args=2
    ),
    "volume-clone": Command(
        "volume clone VOLUME NEW", "Copy a volume into a new one", (), min_args=2, max_args=2
    ),
    "volume-export": Command(
        "volume export [OPTIONS] VOLUME",
        "Write the files of a volume as a tar archive (streamed to STDOUT by default)",
        (
            Flag("output", "o", text="Write to a file, instead of STDOUT"),
            Flag("path", text="Only this file or directory of the volume"),
        ),
        min_args=1,
        max_args=1,
    ),
    "volume-import": Command(
        "volume import [OPTIONS] VOLUME",
        "Unpack a tar archive from STDIN or a file into a volume, made when missing",
        (Flag("input", "i", text="Read from tar archive file, instead of STDIN"),),
        min_args=1,
        max_args=1,
    ),
    "volume-rename": Command(
        "volume rename VOLUME NEW", "Rename a volume that no container refers to", (), min_args=2, max_args=2
    ),
    "volume-snapshot": Command(
        "volume snapshot VOLUME [VOLUME...]",
        "Copy volumes into new ones named after them and the time",
        (),
        min_args=1,
    ),
}
_CHUNK_BYTES = 1 << 20


def run(context: Context, parsed: Parsed, name: str) -> int:
    """Dispatch on the verb."""
    match name:
        case "volume-browse":
            return _browse(context, parsed)
        case "volume-export":
            return _export(context, parsed)
        case "volume-import":
            return _import(context, parsed)
        case "volume-snapshot":
            return context.each(parsed.args, lambda volume: _copy(context, volume, "snapshot"))
        case _:
            _copy(context, parsed.args[0], name.removeprefix("volume-"), parsed.args[1])
            return 0


def _copy(context: Context, volume: str, verb: str, target: str | None = None) -> None:
    made = context.client.call("POST", path_of("orlop", "volumes", volume, verb), {"to": target})
    context.print(made["Name"])


def _browse(context: Context, parsed: Parsed) -> int:
    path = parsed.args[1] if len(parsed.args) > 1 else None
    entries = context.client.call("GET", path_of("orlop", "volumes", parsed.args[0], "files"), {"path": path})
    rows = []
    for item in entries:
        arrow = f" -> {printable(item['LinkTarget'])}" if item["LinkTarget"] else ""
        size = human_size(item["Size"], 3) if item["Kind"] == "file" else "-"
        when = format_rfc3339_nano(item["ModifiedNs"] // 10**9 * 10**9)
        rows.append((item["Mode"], size, when, printable(item["Name"]) + arrow))
    context.print(render(("MODE", "SIZE", "MODIFIED", "NAME"), rows), end="")
    return 0


def _export(context: Context, parsed: Parsed) -> int:
    refuse_terminal(parsed["output"], "export")
    query = {"path": parsed["path"] or None}
    exchange = context.client.open("GET", path_of("orlop", "volumes", parsed.args[0], "archive"), query)
    write_stream(exchange, parsed["output"])
    return 0


def _import(context: Context, parsed: Parsed) -> int:
    if not parsed["input"] and is_terminal(sys.stdin):
        raise InvalidInput("requested import from stdin, but stdin is empty")
    try:
        source: BinaryIO = open(parsed["input"], "rb") if parsed["input"] else sys.stdin.buffer  # noqa: SIM115
    except OSError as error:
        raise InvalidInput(f"open {parsed['input']}: {(error.strerror or str(error)).lower()}") from error
    with source:
        path = path_of("orlop", "volumes", parsed.args[0], "archive")
        headers = {"Content-Type": "application/x-tar"}
        made = context.client.call("PUT", path, body=_pieces(source), headers=headers)
    context.print(made["Name"])
    return 0


def _pieces(source: BinaryIO) -> Iterator[bytes]:
    while piece := source.read(_CHUNK_BYTES):
        yield piece
