"""`orlop create`, and making a container for `run`: pull when missing, create, report warnings."""

from __future__ import annotations

import os
from typing import Any

from orlop.base.errors import InvalidInput
from orlop.cli.context import Context
from orlop.cli.create_body import create_body
from orlop.cli.create_flags import CREATE_FLAGS
from orlop.cli.flags import Command, Parsed
from orlop.client.client import ApiError

COMMAND = Command(
    "create [OPTIONS] IMAGE [COMMAND] [ARG...]",
    "Create a new container",
    CREATE_FLAGS,
    min_args=1,
    is_interspersed=False,
)


def run(context: Context, parsed: Parsed) -> int:
    """Create and print the id."""
    created, _ = create(context, parsed, is_detached=False)
    context.print(created["Id"])
    return 0


def create(context: Context, parsed: Parsed, *, is_detached: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """The engine's answer and the body that was sent.

    Raises:
        ApiError: the engine refused, or the image cannot be pulled.
        InvalidInput: a flag's value is wrong, or the cidfile exists.
    """
    _check_choices(parsed)
    cidfile = parsed["cidfile"]
    if cidfile and os.path.exists(cidfile):
        raise InvalidInput(
            f"container ID file found, make sure the other container isn't running or delete {cidfile}"
        )
    body = create_body(parsed, context.environ, _read_text, is_detached=is_detached)
    if parsed["use-api-socket"]:
        body["HostConfig"]["Mounts"] = [*(body["HostConfig"].get("Mounts") or []), _socket_mount(context)]
    if parsed["pull"] == "always":
        pull_quietly(context, parsed)
    try:
        created = _post(context, parsed, body)
    except ApiError as error:
        if error.status != 404 or parsed["pull"] == "never" or "No such image" not in error.message:
            raise
        if not parsed["quiet"]:
            context.warn(f"Unable to find image '{_tagged(parsed.args[0])}' locally")
        pull_quietly(context, parsed)
        created = _post(context, parsed, body)
    for warning in created.get("Warnings") or []:
        context.warn(f"WARNING: {warning}")
    if cidfile:
        with open(cidfile, "x", encoding="utf-8") as file:
            file.write(created["Id"])
    return created, body


def _check_choices(parsed: Parsed) -> None:
    if parsed["pull"] not in {"", "always", "missing", "never"}:
        raise InvalidInput(
            f'invalid pull option: \'{parsed["pull"]}\': must be one of "always", "missing" or "never"'
        )
    if parsed["rm"] and parsed["restart"] not in {"", "no"}:
        raise InvalidInput("conflicting options: cannot specify both --restart and --rm")


def _socket_mount(context: Context) -> dict[str, str]:
    if not context.endpoint.path:
        raise InvalidInput(f"--use-api-socket needs an engine on a unix socket, not {context.endpoint.url}")
    return {"Type": "bind", "Source": context.endpoint.path, "Target": "/var/run/docker.sock"}


def _post(context: Context, parsed: Parsed, body: dict[str, Any]) -> dict[str, Any]:
    query = {"name": parsed["name"], "platform": parsed["platform"]}
    answer: dict[str, Any] = context.client.call("POST", "/containers/create", query, body=body)
    return answer


def _tagged(image: str) -> str:
    from orlop.oci.reference import parse_reference

    return parse_reference(image).with_default_tag().familiar


def pull_quietly(context: Context, parsed: Parsed) -> None:
    """Pull the image with progress on standard error, or silently with --quiet."""
    from orlop.cli.pull_verb import pull

    pull(context, parsed.args[0], platform=parsed["platform"], is_quiet=parsed["quiet"], out=context.err)


def _read_text(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError as error:
        raise InvalidInput(f"open {path}: {(error.strerror or str(error)).lower()}") from error
