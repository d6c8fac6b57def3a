"""`orlop logs`."""

from __future__ import annotations

import time

from orlop.base.clock import parse_rfc3339_nano
from orlop.base.errors import InvalidInput
from orlop.cli.context import Context
from orlop.cli.flags import Command, Flag, Parsed
from orlop.cli.streams import show
from orlop.cli.units import parse_duration_ns
from orlop.client.client import path_of

COMMAND = Command(
    "logs [OPTIONS] CONTAINER",
    "Fetch the logs of a container",
    (
        Flag("follow", "f", "bool", text="Follow log output"),
        Flag("tail", "n", default="all", text="Number of lines to show from the end of the logs"),
        Flag("since", text="Show logs since timestamp (e.g. 2013-01-02T13:23:37Z) or relative (e.g. 42m)"),
        Flag("until", text="Show logs before a timestamp or relative time"),
        Flag("timestamps", "t", "bool", text="Show timestamps"),
        Flag("details", kind="bool", text="Show extra details provided to logs"),
        Flag("grep", text="Show only lines that contain this text"),
        Flag("clear", kind="bool", text="Remove the log instead of showing it"),
    ),
    min_args=1,
    max_args=1,
)


def run(context: Context, parsed: Parsed) -> int:
    """Print the log; standard error goes to standard error."""
    name = parsed.args[0]
    if parsed["clear"]:
        context.client.call("DELETE", path_of("containers", name, "logs"))
        return 0
    config = context.client.call("GET", path_of("containers", name, "json"))["Config"]
    now_ns = time.time_ns()
    query = {
        "stdout": True,
        "stderr": True,
        "follow": parsed["follow"] or None,
        "timestamps": parsed["timestamps"] or None,
        "details": parsed["details"] or None,
        "tail": parsed["tail"],
        "grep": parsed["grep"] or None,
        "since": moment(parsed["since"], now_ns),
        "until": moment(parsed["until"], now_ns),
    }
    exchange = context.client.open("GET", path_of("containers", name, "logs"), query)
    show(exchange.chunks(), is_multiplexed=not config["Tty"])
    return 0


def moment(text: str, now_ns: int) -> str:
    """A time of `--since`: unix seconds, RFC 3339, or a duration before now; "" stays "".

    Raises:
        InvalidInput: none of these.
    """
    if not text:
        return ""
    if text.replace(".", "", 1).isdecimal():
        return text
    try:
        value_ns = now_ns - parse_duration_ns(text)
    except InvalidInput:
        value_ns = _absolute(text)
    return f"{value_ns // 1_000_000_000}.{value_ns % 1_000_000_000:09d}"


def _absolute(text: str) -> int:
    from datetime import datetime

    try:
        return parse_rfc3339_nano(text)
    except ValueError:
        try:
            return int(datetime.fromisoformat(text).timestamp()) * 1_000_000_000
        except ValueError as error:
            raise InvalidInput(f'failed to parse value as time or duration: "{text}"') from error
