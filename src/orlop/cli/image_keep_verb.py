"""`orlop image pin`, `unpin`, `gc`, `mount` and `unmount`."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from orlop.base.clock import parse_rfc3339_nano
from orlop.cli.context import Context
from orlop.cli.flags import Command, Flag, Parsed
from orlop.cli.image_layers_verb import printable
from orlop.cli.table import ellipsis_text, render
from orlop.cli.units import human_ago, human_size, short_id

COMMANDS = {
    "image-pin": Command("image pin IMAGE [IMAGE...]", "Keep images from automatic removal", (), min_args=1),
    "image-unpin": Command(
        "image unpin IMAGE [IMAGE...]", "Let images be removed automatically again", (), min_args=1
    ),
    "image-gc": Command(
        "image gc [OPTIONS]",
        "Remove the longest unused images and build cache until they fit in a size",
        (
            Flag("dry-run", kind="bool", text="Show what would go and why, and remove nothing"),
            Flag("max-size", text="Size to fit in, for example 20GB (default: image-gc of the engine)"),
            Flag("format", text="Format output: 'json', or a table"),
        ),
        max_args=0,
    ),
    "image-mount": Command(
        "image mount [IMAGE [DIRECTORY]]",
        "Show an image as a read-only directory of the engine's host; without an image: what is mounted",
        (),
        max_args=2,
    ),
    "image-unmount": Command(
        "image unmount IMAGE|DIRECTORY [...]", "Take mounted images away", (), min_args=1
    ),
}


def run(context: Context, parsed: Parsed, name: str) -> int:
    """Dispatch on the verb."""
    match name:
        case "image-pin" | "image-unpin":
            method = "POST" if name == "image-pin" else "DELETE"
            return context.each(parsed.args, lambda image: _pin(context, method, image))
        case "image-gc":
            return _gc(context, parsed)
        case "image-mount":
            return _mount(context, parsed.args)
        case _:
            return context.each(parsed.args, lambda place: _unmount(context, place))


def _pin(context: Context, method: str, image: str) -> None:
    context.client.call(method, "/orlop/images/pin", {"name": image})
    context.print(image)


def _gc(context: Context, parsed: Parsed) -> int:
    method = "GET" if parsed["dry-run"] else "POST"
    found = context.client.call(method, "/orlop/images/gc", {"max-size": parsed["max-size"] or None})
    if parsed["format"] == "json":
        context.print(json.dumps(found, ensure_ascii=False))
        return 0
    now = time.time()  # noqa: TID251 - ages on a terminal
    rows = [_gc_row(item, now) for item in found["Items"] if parsed["dry-run"] or item["Action"] == "remove"]
    if rows:
        headings = ("ACTION", "TYPE", "ID", "NAME", "LAST USED", "FREES", "REASON")
        context.print(render(headings, rows), end="")
    budget = human_size(found["MaxSize"]) if found["MaxSize"] else "none"
    context.print(f"Size {human_size(found['Size'])}, budget {budget}, then {human_size(found['SizeAfter'])}")
    if not parsed["dry-run"]:
        context.print(f"Total reclaimed space: {human_size(found['Reclaimed'])}")
    return 0


def _gc_row(item: dict[str, Any], now: float) -> tuple[str, ...]:
    return (
        item["Action"],
        item["Kind"],
        short_id(item["ID"]),
        ellipsis_text(printable(item["Name"]), 40),
        human_ago(now - parse_rfc3339_nano(item["LastUsed"]) / 1e9),
        human_size(item["Frees"]) if item["Action"] == "remove" else "",
        item["Reason"],
    )


def _mount(context: Context, args: tuple[str, ...]) -> int:
    if not args:
        rows = [
            (item["Name"], short_id(item["Image"]), item["Target"])
            for item in context.client.call("GET", "/orlop/images/mounts")
        ]
        context.print(render(("IMAGE", "IMAGE ID", "DIRECTORY"), rows), end="")
        return 0
    target = os.path.abspath(args[1]) if len(args) > 1 else None
    made = context.client.call("POST", "/orlop/images/mounts", {"name": args[0], "target": target})
    context.print(made["Target"])
    return 0


def _unmount(context: Context, place: str) -> None:
    target = os.path.abspath(place) if place.startswith((".", "/")) else place
    context.client.call("DELETE", "/orlop/images/mounts", {"target": target})
    context.print(place)
