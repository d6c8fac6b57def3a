"""`orlop search`."""

from __future__ import annotations

from typing import Any

from orlop.cli.context import Context
from orlop.cli.flags import Command, Flag, Parsed
from orlop.cli.listing import filters_query, format_rows
from orlop.cli.table import ellipsis_text

COMMAND = Command(
    "search [OPTIONS] TERM",
    "Search Docker Hub for images",
    (
        Flag("filter", "f", "list", text="Filter output: is-official=true, stars=N"),
        Flag("format", text="Format output using a Go template, 'table TEMPLATE' or 'json'"),
        Flag("limit", kind="int", text="Max number of search results (25)"),
        Flag("no-trunc", kind="bool", text="Don't truncate output"),
    ),
    min_args=1,
    max_args=1,
)
_COLUMNS = {
    "Name": "NAME",
    "Description": "DESCRIPTION",
    "StarCount": "STARS",
    "IsOfficial": "OFFICIAL",
    "IsAutomated": "AUTOMATED",
}
_DEFAULT = ("Name", "Description", "StarCount", "IsOfficial")
_WIDTH = 45


def run(context: Context, parsed: Parsed) -> int:
    """Most stars first."""
    query = {
        "term": parsed.args[0],
        "limit": parsed["limit"],
        "filters": filters_query(parsed["filter"] or []),
    }
    items: list[dict[str, Any]] = context.client.call("GET", "/images/search", query)
    rows = [_row(item, is_whole=parsed["no-trunc"]) for item in sorted(items, key=lambda i: -i["star_count"])]
    context.print(format_rows(parsed["format"] or "", rows, _COLUMNS, _DEFAULT), end="")
    return 0


def _row(item: dict[str, Any], *, is_whole: bool) -> dict[str, Any]:
    text = " ".join(item["description"].split())
    return {
        "Name": item["name"],
        "Description": text if is_whole else ellipsis_text(text, _WIDTH),
        "StarCount": str(item["star_count"]),
        "IsOfficial": "[OK]" if item["is_official"] else "",
        "IsAutomated": "[OK]" if item["is_automated"] else "",
    }
