"""`orlop build`: pack the context, send it, show the steps."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

from orlop.base.errors import InvalidInput
from orlop.cli.context import Context
from orlop.cli.context_tar import pack_context, pack_stdin_dockerfile
from orlop.cli.create_body import pairs
from orlop.cli.flags import Command, Flag, Parsed
from orlop.cli.progress import WorkFailed, show_progress
from orlop.cli.units import parse_size

COMMAND = Command(
    "build [OPTIONS] PATH | -",
    "Build an image from a Dockerfile",
    (
        Flag("add-host", kind="list", text='Add a custom host-to-IP mapping ("host:ip")'),
        Flag("build-arg", kind="list", text="Set build-time variables"),
        Flag("cache-from", kind="list", text="Images to consider as cache sources"),
        Flag("file", "f", text='Name of the Dockerfile (default is "PATH/Dockerfile")'),
        Flag("force-rm", kind="bool", text="Always remove intermediate containers"),
        Flag("iidfile", text="Write the image ID to the file"),
        Flag("label", kind="list", text="Set metadata for an image"),
        Flag("memory", "m", text="Memory limit"),
        Flag("network", text="Set the networking mode for the RUN instructions during build"),
        Flag("no-cache", kind="bool", text="Do not use cache when building the image"),
        Flag("platform", text="Set platform if server is multi-platform capable"),
        Flag("pull", kind="bool", text="Always attempt to pull a newer version of the image"),
        Flag("quiet", "q", "bool", text="Suppress the build output and print image ID on success"),
        Flag("rm", kind="bool", default=True, text="Remove intermediate containers after a successful build"),
        Flag("shm-size", text="Size of /dev/shm"),
        Flag("tag", "t", "list", text='Name and optionally a tag in the "name:tag" format'),
        Flag("target", text="Set the target build stage to build"),
    ),
    min_args=1,
    max_args=1,
)


def run(context: Context, parsed: Parsed) -> int:
    """Build; the last line with -q is the image id."""
    dockerfile, body = _context(parsed)
    image_id: list[str] = []
    query = _query(context, parsed) | {"dockerfile": dockerfile}
    headers = {"Content-Type": "application/x-tar", **context.config_header()}
    messages = context.client.lines("POST", "/build", query, body=body, headers=headers)
    lines: list[str] = []
    if parsed["quiet"]:
        messages = _collect(messages, lines)
    try:
        show_progress(messages, context.out, lambda aux: image_id.append(str(aux.get("ID", ""))))
    except WorkFailed as error:
        context.err.write("".join(lines))
        context.warn(f"orlop: {error}")
        return error.exit_code
    if parsed["quiet"] and image_id:
        context.print(image_id[-1])
    if parsed["iidfile"] and image_id:
        with open(parsed["iidfile"], "w", encoding="utf-8") as file:
            file.write(image_id[-1])
    return 0


def _collect(messages: Iterator[dict[str, Any]], lines: list[str]) -> Iterator[dict[str, Any]]:
    for message in messages:
        if "stream" in message:
            lines.append(message["stream"])
        else:
            yield message


def _context(parsed: Parsed) -> tuple[str, Iterator[bytes]]:
    path, name = parsed.args[0], parsed["file"]
    if path == "-":
        return name or "Dockerfile", pack_stdin_dockerfile(sys.stdin.buffer)
    if not os.path.isdir(path):
        raise InvalidInput(f'unable to prepare context: path "{path}" not found')
    if not name:
        return "Dockerfile", pack_context(path, "Dockerfile")
    inside = os.path.relpath(name, path)
    if inside.startswith(".."):
        raise InvalidInput(
            f"unable to prepare context: the Dockerfile ({name}) must be within the build context"
        )
    return inside, pack_context(path, inside)


def _query(context: Context, parsed: Parsed) -> dict[str, Any]:
    import json

    arguments = {
        name: value if equals else context.environ.get(name)
        for name, equals, value in (word.partition("=") for word in parsed["build-arg"])
    }
    return {
        "t": parsed["tag"],
        "target": parsed["target"],
        "q": None,
        "nocache": parsed["no-cache"] or None,
        "pull": parsed["pull"] or None,
        "rm": parsed["rm"],
        "forcerm": parsed["force-rm"] or None,
        "networkmode": parsed["network"],
        "platform": parsed["platform"],
        "memory": parse_size(parsed["memory"]) if parsed["memory"] else None,
        "shmsize": parse_size(parsed["shm-size"]) if parsed["shm-size"] else None,
        "extrahosts": parsed["add-host"],
        "buildargs": json.dumps(arguments),
        "labels": json.dumps(pairs(parsed["label"])),
        "cachefrom": json.dumps(parsed["cache-from"]),
    }
