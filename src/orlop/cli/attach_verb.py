"""`orlop attach`."""

from __future__ import annotations

from orlop.base.errors import InvalidInput
from orlop.cli.attaching import attach, forward_signals
from orlop.cli.context import Context
from orlop.cli.flags import Command, Flag, Parsed
from orlop.cli.run_verb import Waiter
from orlop.client.client import path_of

COMMAND = Command(
    "attach [OPTIONS] CONTAINER",
    "Attach local standard input, output, and error streams to a running container",
    (
        Flag("detach-keys", text="Override the key sequence for detaching a container"),
        Flag("no-stdin", kind="bool", text="Do not attach STDIN"),
        Flag("sig-proxy", kind="bool", default=True, text="Proxy received signals to the process"),
    ),
    min_args=1,
    max_args=1,
)


def run(context: Context, parsed: Parsed) -> int:
    """Attach; the exit code is the container's."""
    name = parsed.args[0]
    found = context.client.call("GET", path_of("containers", name, "json"))
    if not found["State"]["Running"]:
        raise InvalidInput("cannot attach to a stopped container, start it first")
    if found["State"].get("Paused"):
        raise InvalidInput("cannot attach to a paused container, unpause it first")
    config = found["Config"]
    streams = {"stdin": not parsed["no-stdin"] and config["OpenStdin"], "stdout": True, "stderr": True}
    waiter = Waiter(context, name, "not-running")
    stream = attach(context, name, config, streams=streams, detach_keys=parsed["detach-keys"])
    if config["Tty"] or not parsed["sig-proxy"]:
        is_finished = stream.serve()
    else:
        with forward_signals(context, name):
            is_finished = stream.serve()
    return waiter.code() if is_finished else 0
