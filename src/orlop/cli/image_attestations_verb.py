"""`orlop image attestations`: SBOM and provenance statements that came with an image."""

from __future__ import annotations

import json

from orlop.cli.context import Context
from orlop.cli.flags import Command, Flag, Parsed
from orlop.cli.image_layers_verb import printable
from orlop.cli.table import render
from orlop.cli.units import human_size, short_id

COMMAND = Command(
    "image attestations [OPTIONS] IMAGE",
    "List the statements (SBOM, provenance) that came with an image; signatures are not checked",
    (Flag("format", text="Format output: 'json' with the statements, or a table"),),
    min_args=1,
    max_args=1,
)


def run(context: Context, parsed: Parsed) -> int:
    """Print a table, or everything as JSON."""
    found = context.client.call("GET", "/orlop/images/attestations", {"name": parsed.args[0]})
    if parsed["format"] == "json":
        context.print(json.dumps(found, ensure_ascii=False))
        return 0
    rows = [
        (
            item["Platform"],
            printable(item["PredicateType"]),
            short_id(item["Digest"]),
            human_size(item["Size"]),
        )
        for item in found
    ]
    context.print(render(("PLATFORM", "PREDICATE", "DIGEST", "SIZE"), rows), end="")
    return 0
