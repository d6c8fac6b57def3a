"""`orlop start`: start stopped containers, or one with its streams attached."""

from __future__ import annotations

from orlop.base.errors import InvalidInput
from orlop.cli.attaching import attach, forward_signals
from orlop.cli.context import Context
from orlop.cli.flags import Command, Flag, Parsed
from orlop.cli.run_verb import Waiter, start_failure
from orlop.client.client import ApiError, path_of

COMMAND = Command(
    "start [OPTIONS] CONTAINER [CONTAINER...]",
    "Start one or more stopped containers",
    (
        Flag("attach", "a", "bool", text="Attach STDOUT/STDERR and forward signals"),
        Flag("interactive", "i", "bool", text="Attach container's STDIN"),
        Flag("detach-keys", text="Override the key sequence for detaching a container"),
    ),
    min_args=1,
)


def run(context: Context, parsed: Parsed) -> int:
    """Start; with -a or -i the exit code is the container's."""
    if parsed["attach"] or parsed["interactive"]:
        if len(parsed.args) > 1:
            raise InvalidInput("you cannot start and attach multiple containers at once")
        return _start_attached(context, parsed)

    def start(name: str) -> None:
        context.client.call("POST", path_of("containers", name, "start"))
        context.print(name)

    return context.each(parsed.args, start)


def _start_attached(context: Context, parsed: Parsed) -> int:
    name = parsed.args[0]
    config = context.client.call("GET", path_of("containers", name, "json"))["Config"]
    streams = {"stdin": parsed["interactive"] and config["OpenStdin"], "stdout": True, "stderr": True}
    stream = attach(context, name, config, streams=streams, detach_keys=parsed["detach-keys"])
    waiter = Waiter(context, name, "next-exit")
    try:
        context.client.call("POST", path_of("containers", name, "start"))
    except ApiError as error:
        stream.connection.close()
        return start_failure(context, error)
    if config["Tty"]:
        return waiter.code() if stream.serve() else 0
    with forward_signals(context, name):
        return waiter.code() if stream.serve() else 0
