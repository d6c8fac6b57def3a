"""`orlop volume create`, `inspect`, `ls`, `prune` and `rm`."""

from __future__ import annotations

import json
from typing import Any

from orlop.cli.context import Context
from orlop.cli.flags import Command, Flag, Parsed, UsageError
from orlop.cli.listing import filters_query, format_rows
from orlop.cli.pruning import confirmed, print_deleted
from orlop.cli.units import human_size
from orlop.client.client import path_of

COMMANDS = {
    "volume-create": Command(
        "volume create [OPTIONS] [VOLUME]",
        "Create a volume",
        (
            Flag("driver", "d", text="Specify volume driver name", default="local"),
            Flag("label", kind="list", text="Set metadata for a volume"),
            Flag("opt", "o", "list", text="Set driver specific options: type, device, o, size"),
        ),
        max_args=1,
    ),
    "volume-inspect": Command(
        "volume inspect [OPTIONS] VOLUME [VOLUME...]",
        "Display detailed information on one or more volumes",
        (Flag("format", "f", text="Format output using a Go template, or 'json'"),),
        min_args=1,
    ),
    "volume-ls": Command(
        "volume ls [OPTIONS]",
        "List volumes",
        (
            Flag("filter", "f", "list", text='Provide filter values (e.g. "dangling=true")'),
            Flag("format", text="Format output using a Go template, 'table TEMPLATE' or 'json'"),
            Flag("quiet", "q", "bool", text="Only display volume names"),
        ),
        max_args=0,
    ),
    "volume-prune": Command(
        "volume prune [OPTIONS]",
        "Remove unused local volumes",
        (
            Flag("all", "a", "bool", text="Remove all unused volumes, not just anonymous ones"),
            Flag("filter", kind="list", text='Provide filter values (e.g. "label=<label>")'),
            Flag("force", "f", "bool", text="Do not prompt for confirmation"),
        ),
        max_args=0,
    ),
    "volume-rm": Command(
        "volume rm [OPTIONS] VOLUME [VOLUME...]",
        "Remove one or more volumes",
        (Flag("force", "f", "bool", text="Do not complain about volumes that do not exist"),),
        min_args=1,
    ),
}
_COLUMNS = {"Driver": "DRIVER", "Name": "VOLUME NAME", "Labels": "LABELS", "Mountpoint": "MOUNTPOINT"}


def run(context: Context, parsed: Parsed, name: str) -> int:
    """Dispatch on the verb."""
    match name:
        case "volume-create":
            return _create(context, parsed)
        case "volume-inspect":
            return _inspect(context, parsed)
        case "volume-ls":
            return _list(context, parsed)
        case "volume-prune":
            return _prune(context, parsed)
        case _:
            return context.each(parsed.args, lambda volume: _remove(context, parsed, volume))


def _create(context: Context, parsed: Parsed) -> int:
    body = {
        "Name": parsed.args[0] if parsed.args else "",
        "Driver": parsed["driver"],
        "DriverOpts": _pairs(parsed["opt"]),
        "Labels": _pairs(parsed["label"]),
    }
    made = context.client.call("POST", "/volumes/create", body=body)
    context.print(made["Name"])
    return 0


def _pairs(words: list[str]) -> dict[str, str]:
    found = {}
    for word in words:
        key, _, value = word.partition("=")
        if not key:
            raise UsageError(f"invalid option {word!r}", hint="use name=value")
        found[key] = value
    return found


def _inspect(context: Context, parsed: Parsed) -> int:
    found: list[dict[str, Any]] = []
    code = context.each(
        parsed.args, lambda volume: found.append(context.client.call("GET", path_of("volumes", volume)))
    )
    if parsed["format"] and parsed["format"] != "json":
        from orlop.cli.gotemplate import Template

        template = Template(parsed["format"])
        for item in found:
            context.print(template.render(item))
    elif parsed["format"]:
        context.print(json.dumps(found, ensure_ascii=False))
    else:
        context.print(json.dumps(found, indent=4, ensure_ascii=False))
    return code


def _list(context: Context, parsed: Parsed) -> int:
    answer = context.client.call("GET", "/volumes", {"filters": filters_query(parsed["filter"])})
    rows = [
        {
            **item,
            "Labels": ",".join(f"{key}={value}" for key, value in sorted((item["Labels"] or {}).items())),
        }
        for item in answer["Volumes"] or ()
    ]
    if parsed["quiet"] and not parsed["format"]:
        for row in rows:
            context.print(row["Name"])
        return 0
    context.print(format_rows(parsed["format"], rows, _COLUMNS, ["Driver", "Name"]), end="")
    return 0


def _prune(context: Context, parsed: Parsed) -> int:
    kind = "all" if parsed["all"] else "anonymous"
    what = f"{kind} local volumes not used by at least one container"
    if not parsed["force"] and not confirmed(context, what):
        return 0
    words = [*parsed["filter"], *(["all=true"] if parsed["all"] else [])]
    answer = context.client.call("POST", "/volumes/prune", {"filters": filters_query(words)})
    print_deleted(context, "Deleted Volumes", answer.get("VolumesDeleted"))
    context.print(f"Total reclaimed space: {human_size(answer.get('SpaceReclaimed') or 0)}")
    return 0


def _remove(context: Context, parsed: Parsed, volume: str) -> None:
    context.client.call("DELETE", path_of("volumes", volume), {"force": parsed["force"] or None})
    context.print(volume)
