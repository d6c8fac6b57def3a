"""`orlop image diff`: files, settings and packages that differ between two images."""

from __future__ import annotations

import json
from typing import Any

from orlop.cli.context import Context
from orlop.cli.flags import Command, Flag, Parsed
from orlop.cli.image_layers_verb import printable
from orlop.cli.units import human_size, short_id

COMMAND = Command(
    "image diff [OPTIONS] OLD NEW",
    "Show how an image differs from another: files, settings, packages",
    (
        Flag("format", text="Format output: 'json', or text"),
        Flag("quiet", "q", "bool", text="Only say how much differs"),
    ),
    min_args=2,
    max_args=2,
)


def run(context: Context, parsed: Parsed) -> int:
    """Exit code 0 also when they differ, as `docker diff`."""
    old, new = parsed.args
    found = context.client.call("GET", "/orlop/images/diff", {"old": old, "new": new})
    if parsed["format"] == "json":
        context.print(json.dumps(found, ensure_ascii=False))
        return 0
    if not parsed["quiet"]:
        _print_details(context, found)
    files = f"{found['Added']} added, {found['Changed']} changed, {found['Removed']} removed"
    context.print(f"{short_id(found['Old'])} -> {short_id(found['New'])}")
    context.print(f"Files:    {files}, {_signed(found['Size'])}")
    context.print(f"Settings: {len(found['Config'])} differ")
    context.print(f"Packages: {len(found['Packages'])} differ")
    return 0


def _print_details(context: Context, found: dict[str, Any]) -> None:
    for item in found["Changes"]:
        size = _signed(item["Size"]) if item["Kind"] == "C" else human_size(item["Size"])
        context.print(f"{item['Kind']} {size:>10}  {printable(item['Path'])}")
    if found["Truncated"]:
        context.print("(and more files)")
    for item in found["Config"]:
        old, new = (_value(item[side]) for side in ("Old", "New"))
        context.print(f"setting {printable(item['Key'])}: {old} -> {new}")
    for item in found["Packages"]:
        old, new = (printable(item[side]) or "(none)" for side in ("Old", "New"))
        context.print(f"package {printable(item['Name'])}: {old} -> {new}")
    if found["Changes"] or found["Config"] or found["Packages"]:
        context.print("")


def _value(value: object) -> str:
    return "(none)" if value is None else printable(json.dumps(value, ensure_ascii=False))


def _signed(size: int) -> str:
    return f"{'-' if size < 0 else '+'}{human_size(abs(size))}"
