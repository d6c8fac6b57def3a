"""`orlop stop` and `orlop restart`."""

from __future__ import annotations

from orlop.cli.context import Context
from orlop.cli.flags import Command, Flag, Parsed
from orlop.client.client import path_of

_FLAGS = (
    Flag("signal", "s", text="Signal to send to the container"),
    Flag("timeout", "t", "int", default=-1, text="Seconds to wait before killing the container"),
    Flag("time", kind="int", default=-1, is_hidden=True, text="Seconds to wait before killing the container"),
)
COMMANDS = {
    verb: Command(f"{verb} [OPTIONS] CONTAINER [CONTAINER...]", text, _FLAGS, min_args=1)
    for verb, text in (
        ("stop", "Stop one or more running containers"),
        ("restart", "Restart one or more containers"),
    )
}


def run(context: Context, parsed: Parsed, verb: str) -> int:
    """Stop or restart each and print its name."""
    given = next((parsed[name] for name in ("timeout", "time") if parsed.has(name)), None)

    def act(name: str) -> None:
        context.client.call(
            "POST", path_of("containers", name, verb), {"signal": parsed["signal"], "t": given}
        )
        context.print(name)

    return context.each(parsed.args, act)
