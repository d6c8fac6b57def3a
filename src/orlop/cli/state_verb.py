"""`orlop pause`, `unpause`, `rename`, `diff` and `top`: small calls on one container each."""

from __future__ import annotations

from orlop.cli.context import Context
from orlop.cli.flags import Command, Parsed
from orlop.cli.table import render
from orlop.client.client import path_of

COMMANDS = {
    "pause": Command("pause CONTAINER [CONTAINER...]", "Pause all processes within containers", min_args=1),
    "unpause": Command(
        "unpause CONTAINER [CONTAINER...]", "Unpause all processes within containers", min_args=1
    ),
    "rename": Command("rename CONTAINER NEW_NAME", "Rename a container", min_args=2, max_args=2),
    "diff": Command("diff CONTAINER", "Inspect changes on a container's filesystem", min_args=1, max_args=1),
    "top": Command(
        "top CONTAINER [ps OPTIONS]",
        "Display the processes of a container",
        min_args=1,
        is_interspersed=False,
    ),
}
_KINDS = "CAD"  # changed, added, deleted


def run(context: Context, parsed: Parsed, verb: str) -> int:
    """Dispatch on the verb."""
    name = parsed.args[0]
    if verb in {"pause", "unpause"}:
        return context.each(parsed.args, lambda each: _freeze(context, each, verb))
    if verb == "rename":
        context.client.call("POST", path_of("containers", name, "rename"), {"name": parsed.args[1]})
    elif verb == "diff":
        for change in context.client.call("GET", path_of("containers", name, "changes")) or []:
            context.print(f"{_KINDS[change['Kind']]} {change['Path']}")
    else:
        query = {"ps_args": " ".join(parsed.args[1:])}
        answer = context.client.call("GET", path_of("containers", name, "top"), query)
        context.print(render(answer["Titles"], answer["Processes"] or []), end="")
    return 0


def _freeze(context: Context, name: str, verb: str) -> None:
    context.client.call("POST", path_of("containers", name, verb))
    context.print(name)
