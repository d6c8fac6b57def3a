"""`orlop events`."""

from __future__ import annotations

import json
import time

from orlop.cli.context import Context
from orlop.cli.flags import Command, Flag, Parsed
from orlop.cli.listing import filters_query
from orlop.cli.logs_verb import moment

COMMAND = Command(
    "events [OPTIONS]",
    "Get real time events from the engine",
    (
        Flag("filter", "f", "list", text="Filter output based on conditions provided"),
        Flag("format", text="Format output using a Go template or 'json'"),
        Flag("since", text="Show all events created since timestamp"),
        Flag("until", text="Stream events until this timestamp"),
    ),
    max_args=0,
)


def run(context: Context, parsed: Parsed) -> int:
    """Print events as they happen, until the end that was asked for."""
    now_ns = time.time_ns()
    query = {
        "since": moment(parsed["since"], now_ns),
        "until": moment(parsed["until"], now_ns),
        "filters": filters_query(parsed["filter"]),
    }
    template = None
    if parsed["format"] and parsed["format"] != "json":
        from orlop.cli.gotemplate import Template

        template = Template(parsed["format"])
    for event in context.client.lines("GET", "/events", query):
        if template is not None:
            context.print(template.render(event))
        elif parsed["format"]:
            context.print(json.dumps(event, ensure_ascii=False))
        else:
            context.print(_line(event))
        context.out.flush()
    return 0


def _line(event: dict[str, object]) -> str:
    actor = event.get("Actor") or {}
    assert isinstance(actor, dict)
    nanos = int(str(event.get("timeNano") or 0))
    when = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(nanos // 10**9))
    zone = time.strftime("%z")
    facts = ", ".join(f"{name}={value}" for name, value in sorted((actor.get("Attributes") or {}).items()))
    moment_text = f"{when}.{nanos % 10**9:09d}{zone[:3]}:{zone[3:]}"
    head = f"{moment_text} {event['Type']} {event['Action']} {actor.get('ID', '')}"
    return f"{head} ({facts})" if facts else head
