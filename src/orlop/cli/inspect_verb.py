"""`orlop inspect`: whatever has that name, containers before images."""

from __future__ import annotations

import json
from typing import Any

from orlop.cli.context import Context
from orlop.cli.flags import Command, Flag, Parsed, UsageError
from orlop.client.client import ApiError, path_of

COMMAND = Command(
    "inspect [OPTIONS] NAME|ID [NAME|ID...]",
    "Return low-level information on containers and images",
    (
        Flag("format", "f", text="Format output using a Go template"),
        Flag("platform", text="Inspect the image for the given platform, os/arch[/variant]"),
        Flag("size", "s", "bool", text="Display total file sizes if the type is container"),
        Flag("type", text="Return JSON for specified type: container, image, volume, network"),
    ),
    min_args=1,
)
_PATHS = {
    "container": ("containers", True),
    "image": ("images", True),
    "network": ("networks", False),
    "volume": ("volumes", False),
}


def run(context: Context, parsed: Parsed) -> int:
    """Print a JSON array, or a line per name through the template; missing names give exit code 1."""
    kinds = [parsed["type"]] if parsed["type"] else list(_PATHS)
    if parsed["platform"]:
        kinds = ["image"]
    query = {"size": parsed["size"] or None, "platform": parsed["platform"]}
    if not set(kinds) <= set(_PATHS):
        raise UsageError(f'"{parsed["type"]}" is not a valid value for --type')
    found: list[dict[str, Any]] = []

    def look_up(name: str) -> None:
        found.append(_find(context, name, kinds, query))

    code = context.each(parsed.args, look_up)
    if not parsed["format"]:
        context.print(json.dumps(found, indent=4, ensure_ascii=False))
        return code
    from orlop.cli.gotemplate import Template

    template = Template("{{json .}}" if parsed["format"] == "json" else parsed["format"])
    for value in found:
        context.print(template.render(value))
    return code


def _find(context: Context, name: str, kinds: list[str], query: dict[str, Any]) -> dict[str, Any]:
    for kind in kinds:
        noun, has_json = _PATHS[kind]
        path = path_of(noun, name, "json") if has_json else path_of(noun, name)
        try:
            value: dict[str, Any] = context.client.call("GET", path, query)
        except ApiError as error:
            if error.status not in {404, 501} or len(kinds) == 1:
                raise
            continue
        return value
    raise ApiError(404, f"no such object: {name}")
