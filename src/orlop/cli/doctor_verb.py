"""`orlop doctor`: what the engine's host can and cannot enforce."""

from __future__ import annotations

import json
from typing import Any

from orlop.base.errors import OrlopError
from orlop.cli.context import Context
from orlop.cli.flags import Command, Flag, Parsed

COMMAND = Command(
    "doctor [OPTIONS]",
    "Show what this host can and cannot enforce, what follows from it and what would help",
    (Flag("format", "f", text="Format output: 'json', or a table"),),
    max_args=0,
)


def run(context: Context, parsed: Parsed) -> int:
    """Exit code 0 if containers can run, 1 if something is missing that they need."""
    is_json = parsed["format"] == "json"
    if parsed["format"] not in ("", None, "json", "table"):
        raise OrlopError(f"unknown format {parsed['format'][:60]!r}", hint="use --format json")
    try:
        found = context.client.call("GET", "/orlop/doctor")
    except OrlopError as error:
        engine = _finding("engine", "missing", "", str(error.message), error.hint or "see the engine's log")
        found = {"CanRun": False, "Findings": [engine]}
    else:
        found["Findings"].insert(0, _finding("engine", "ok", "running", "", ""))
    if is_json:
        context.print(json.dumps(found, ensure_ascii=False))
    else:
        _print_table(context, found["Findings"])
    return 0 if found["CanRun"] else 1


def _finding(name: str, status: str, detail: str, consequence: str, hint: str) -> dict[str, Any]:
    return {
        "Name": name,
        "Status": status,
        "Detail": detail,
        "Consequence": consequence,
        "Hint": hint,
        "IsRequired": name == "engine",
    }


def _print_table(context: Context, findings: list[dict[str, Any]]) -> None:
    width = max(len(item["Name"]) for item in findings)
    for item in findings:
        context.print(f"{item['Status']:<8} {item['Name']:<{width}}  {item['Detail']}".rstrip())
        for word, text in (("so", item["Consequence"]), ("try", item["Hint"])):
            if text:
                context.print(f"{'':8} {'':{width}}  {word}: {text}")
    limited = sum(item["Status"] != "ok" for item in findings)
    context.print(f"{len(findings) - limited} ok, {limited} limited or missing")
