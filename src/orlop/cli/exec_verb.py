"""`orlop exec`."""

from __future__ import annotations

from typing import Any

from orlop.cli.attaching import Attachment
from orlop.cli.context import Context
from orlop.cli.flags import Command, Flag, Parsed
from orlop.client.client import path_of

COMMAND = Command(
    "exec [OPTIONS] CONTAINER COMMAND [ARG...]",
    "Execute a command in a running container",
    (
        Flag("detach", "d", "bool", text="Detached mode: run command in the background"),
        Flag("detach-keys", text="Override the key sequence for detaching a container"),
        Flag("env", "e", "list", text="Set environment variables"),
        Flag("interactive", "i", "bool", text="Keep STDIN open even if not attached"),
        Flag("privileged", kind="bool", text="Give extended privileges to the command"),
        Flag("tty", "t", "bool", text="Allocate a pseudo-TTY"),
        Flag("user", "u", text="Username or UID (format: <name|uid>[:<group|gid>])"),
        Flag("workdir", "w", text="Working directory inside the container"),
    ),
    min_args=2,
    is_interspersed=False,
)


def run(context: Context, parsed: Parsed) -> int:
    """Run the command; the exit code is its own."""
    container, *words = parsed.args
    body: dict[str, Any] = {
        "AttachStdin": parsed["interactive"] and not parsed["detach"],
        "AttachStdout": not parsed["detach"],
        "AttachStderr": not parsed["detach"],
        "Detach": parsed["detach"],
        "DetachKeys": parsed["detach-keys"],
        "Tty": parsed["tty"],
        "Env": [word if "=" in word else f"{word}={context.environ.get(word, '')}" for word in parsed["env"]],
        "Privileged": parsed["privileged"],
        "User": parsed["user"],
        "WorkingDir": parsed["workdir"],
        "Cmd": words,
    }
    exec_id = context.client.call("POST", path_of("containers", container, "exec"), body=body)["Id"]
    start = {"Detach": parsed["detach"], "Tty": parsed["tty"]}
    if parsed["detach"]:
        context.client.call("POST", path_of("exec", exec_id, "start"), body=start)
        return 0
    connection, leftover, is_multiplexed = context.client.hijack(
        path_of("exec", exec_id, "start"), body=start
    )
    stream = Attachment(
        context,
        path_of("exec", exec_id, "resize"),
        connection,
        leftover,
        is_multiplexed=is_multiplexed or not parsed["tty"],
        has_tty=parsed["tty"],
        has_stdin=parsed["interactive"],
        detach_keys=parsed["detach-keys"],
    )
    if not stream.serve():
        return 0
    return int(context.client.call("GET", path_of("exec", exec_id, "json"))["ExitCode"] or 0)
