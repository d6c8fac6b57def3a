"""`orlop history`."""

from __future__ import annotations

import time
from typing import Any

from orlop.cli.context import Context
from orlop.cli.flags import Command, Flag, Parsed
from orlop.cli.listing import format_rows
from orlop.cli.table import ellipsis_text
from orlop.cli.units import human_ago, human_size, rfc3339_local, short_id
from orlop.client.client import path_of

COMMAND = Command(
    "history [OPTIONS] IMAGE",
    "Show the history of an image",
    (
        Flag("format", text="Format output using a Go template, 'table TEMPLATE' or 'json'"),
        Flag("human", "H", "bool", default=True, text="Print sizes and dates in human readable format"),
        Flag("no-trunc", kind="bool", text="Don't truncate output"),
        Flag("platform", text="Show history for the given platform, os/arch[/variant]"),
        Flag("quiet", "q", "bool", text="Only show image IDs"),
    ),
    min_args=1,
    max_args=1,
)
_COLUMNS = {
    "ID": "IMAGE",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "CreatedBy": "CREATED BY",
    "Size": "SIZE",
    "Comment": "COMMENT",
}
_WIDTH = 45


def run(context: Context, parsed: Parsed) -> int:
    """List and print."""
    items = context.client.call(
        "GET", path_of("images", parsed.args[0], "history"), {"platform": parsed["platform"]}
    )
    rows = [_row(item, parsed) for item in items]
    if parsed["quiet"] and not parsed["format"]:
        for row in rows:
            context.print(row["ID"])
        return 0
    default = ("ID", "CreatedSince" if parsed["human"] else "CreatedAt", "CreatedBy", "Size", "Comment")
    context.print(format_rows(parsed["format"], rows, _COLUMNS, default), end="")
    return 0


def _row(item: dict[str, Any], parsed: Parsed) -> dict[str, Any]:
    text = item["CreatedBy"].replace("\t", " ")
    created = item["Created"]
    return {
        "ID": item["Id"] if parsed["no-trunc"] else short_id(item["Id"]),
        "CreatedSince": human_ago(time.time() - created) if created > 0 else "N/A",  # noqa: TID251 - an age
        "CreatedAt": rfc3339_local(created),
        "CreatedBy": text if parsed["no-trunc"] else ellipsis_text(text, _WIDTH),
        "Size": human_size(item["Size"], 3) if parsed["human"] else str(item["Size"]),
        "Comment": item["Comment"],
    }
