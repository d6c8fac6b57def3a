"""`orlop image layers`: what every layer of an image adds, changes, removes, and wastes."""

from __future__ import annotations

import json
from typing import Any

from orlop.cli.context import Context
from orlop.cli.flags import Command, Flag, Parsed
from orlop.cli.table import ellipsis_text, render
from orlop.cli.units import human_size, short_id

COMMAND = Command(
    "image layers [OPTIONS] IMAGE",
    "Show what every layer of an image adds, changes and removes, and the bytes that nobody sees",
    (
        Flag("files", kind="bool", text="List the files of every layer"),
        Flag("format", text="Format output: 'json', or a table"),
        Flag("no-trunc", kind="bool", text="Don't truncate output"),
    ),
    min_args=1,
    max_args=1,
)
_WIDTH = 45


def run(context: Context, parsed: Parsed) -> int:
    """Print a table, then the largest wasted files."""
    wants_files = parsed["files"]
    found = context.client.call(
        "GET", "/orlop/images/layers", {"name": parsed.args[0], "files": wants_files or None}
    )
    if parsed["format"] == "json":
        context.print(json.dumps(found, ensure_ascii=False))
        return 0
    is_cut = not parsed["no-trunc"]
    rows = [_row(number, layer, is_cut=is_cut) for number, layer in enumerate(found["Layers"])]
    headings = ("#", "LAYER", "SIZE", "WASTED", "ADDED", "CHANGED", "REMOVED", "CREATED BY")
    context.print(render(headings, rows), end="")
    if wants_files:
        _print_files(context, found["Layers"])
    size, wasted = found["Size"], found["Wasted"]
    share = f" ({100 * wasted // size}%)" if size else ""
    context.print(f"\nTotal {human_size(size)}, wasted {human_size(wasted)}{share}")
    for item in found["LargestWasted"][:10]:
        path, layers = item["Path"], f"layer {item['Layer']}, hidden by {item['HiddenBy']}"
        context.print(f"  {human_size(item['Size']):>9}  {printable(path)}  ({layers})")
    return 0


def printable(path: str) -> str:
    """A path without what a terminal would act on."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in path)


def _row(number: int, layer: dict[str, Any], *, is_cut: bool) -> tuple[str, ...]:
    maker = printable(" ".join(layer["CreatedBy"].split()))
    return (
        str(number),
        short_id(layer["Digest"]) if is_cut else layer["Digest"],
        human_size(layer["Size"]),
        human_size(layer["Hidden"]),
        str(layer["Added"]),
        str(layer["Changed"]),
        str(layer["Removed"]),
        ellipsis_text(maker, _WIDTH) if is_cut else maker,
    )


def _print_files(context: Context, layers: list[dict[str, Any]]) -> None:
    for number, layer in enumerate(layers):
        context.print(f"\nLayer {number}  {short_id(layer['Digest'])}")
        for item in layer.get("Changes") or ():
            context.print(f"  {item['Kind']} {human_size(item['Size']):>9}  {printable(item['Path'])}")
        if layer["Truncated"]:
            context.print("  (and more)")
