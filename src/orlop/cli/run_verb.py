"""`orlop run`: create, attach, start, serve the streams, and leave with the container's exit code."""

from __future__ import annotations

import threading
from typing import Any

from orlop.base.errors import InvalidInput, OrlopError
from orlop.cli.attaching import Attachment, attach, forward_signals
from orlop.cli.context import Context, is_terminal
from orlop.cli.create_flags import CREATE_FLAGS
from orlop.cli.create_verb import create
from orlop.cli.flags import Command, Flag, Parsed
from orlop.client.client import ApiError, path_of

COMMAND = Command(
    "run [OPTIONS] IMAGE [COMMAND] [ARG...]",
    "Create and run a new container from an image",
    (
        *CREATE_FLAGS,
        Flag("detach", "d", "bool", text="Run container in background and print container ID"),
        Flag("detach-keys", text="Override the key sequence for detaching a container"),
        Flag("sig-proxy", kind="bool", default=True, text="Proxy received signals to the process"),
    ),
    min_args=1,
    is_interspersed=False,
)
_CANNOT_RUN = 125
_NOT_EXECUTABLE = 126
_NOT_FOUND = 127


def run(context: Context, parsed: Parsed) -> int:
    """Run; the exit code is the container's, or 125, 126, 127 as docker's."""
    if parsed["detach"] and parsed["attach"]:
        raise InvalidInput("conflicting options: -a and -d")
    if parsed["tty"] and not parsed["detach"] and parsed["interactive"]:
        import sys

        if not is_terminal(sys.stdin):
            raise InvalidInput("the input device is not a TTY")
    try:
        created, body = create(context, parsed, is_detached=parsed["detach"])
    except OrlopError as error:
        context.warn(f"orlop: {error}")
        return _CANNOT_RUN
    container = created["Id"]
    if parsed["detach"]:
        return _start_detached(context, container)
    return _run_attached(context, parsed, container, body)


def _start_detached(context: Context, container: str) -> int:
    try:
        context.client.call("POST", path_of("containers", container, "start"))
    except ApiError as error:
        return start_failure(context, error)
    context.print(container)
    return 0


def _run_attached(context: Context, parsed: Parsed, container: str, body: dict[str, Any]) -> int:
    streams = {name: body[f"Attach{name.title()}"] for name in ("stdin", "stdout", "stderr")}
    stream: Attachment | None = None
    if any(streams.values()):
        stream = attach(context, container, body, streams=streams, detach_keys=parsed["detach-keys"])
    else:
        context.print(container)
    waiter = Waiter(context, container, "removed" if parsed["rm"] else "next-exit")
    try:
        context.client.call("POST", path_of("containers", container, "start"))
    except ApiError as error:
        if stream is not None:
            stream.connection.close()
        return start_failure(context, error)
    if stream is None:
        return 0
    if parsed["sig-proxy"] and not parsed["tty"]:
        with forward_signals(context, container):
            is_finished = stream.serve()
    else:
        is_finished = stream.serve()
    return waiter.code() if is_finished else 0


def start_failure(context: Context, error: ApiError) -> int:
    """Show why a container did not start; docker's exit code for it."""
    context.warn(f"orlop: {error}")
    text = error.message.lower()
    if "executable file not found" in text or "no such file or directory" in text:
        return _NOT_FOUND
    if "permission denied" in text or "is a directory" in text:
        return _NOT_EXECUTABLE
    return _CANNOT_RUN


class Waiter:
    """A wait that is asked for before the start, so that a short life is not missed."""

    def __init__(self, context: Context, container: str, condition: str) -> None:
        self._exchange = context.client.open(
            "POST", path_of("containers", container, "wait"), {"condition": condition}
        )
        self._code = _CANNOT_RUN
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        import json

        answer = json.loads(self._exchange.read() or b"{}")
        self._code = int(answer.get("StatusCode", _CANNOT_RUN))

    def code(self) -> int:
        """The exit code, when it is known."""
        self._thread.join()
        return self._code
