"""`orlop pull`."""

from __future__ import annotations

from typing import TextIO

from orlop.cli.context import Context
from orlop.cli.flags import Command, Flag, Parsed
from orlop.cli.progress import show_progress
from orlop.oci.reference import parse_reference

COMMAND = Command(
    "pull [OPTIONS] NAME[:TAG|@DIGEST]",
    "Download an image from a registry",
    (
        Flag("all-tags", "a", "bool", text="Download all tagged images in the repository"),
        Flag("platform", text="Set platform if server is multi-platform capable"),
        Flag("quiet", "q", "bool", text="Suppress verbose output"),
    ),
    min_args=1,
    max_args=1,
)


def run(context: Context, parsed: Parsed) -> int:
    """Pull and print the full name."""
    reference = parse_reference(parsed.args[0])
    if not parsed["all-tags"] and reference.tag is None and reference.digest is None and not parsed["quiet"]:
        context.print("Using default tag: latest")
    pull(
        context,
        parsed.args[0],
        platform=parsed["platform"],
        is_quiet=parsed["quiet"],
        out=context.out,
        is_all=parsed["all-tags"],
    )
    context.print(str(reference if parsed["all-tags"] else reference.with_default_tag()))
    return 0


def pull(
    context: Context, image: str, *, platform: str, is_quiet: bool, out: TextIO, is_all: bool = False
) -> None:
    """Pull with progress on `out`.

    Raises:
        ApiError, WorkFailed: the engine or the registry refused.
    """
    reference = parse_reference(image)
    tag = "" if is_all else str(reference.digest or reference.tag or "latest")
    messages = context.client.lines(
        "POST",
        "/images/create",
        {"fromImage": reference.familiar_name, "tag": tag, "platform": platform},
        body=b"",
        headers=context.auth_header(image),
    )
    if is_quiet:
        messages = (message for message in messages if "error" in message)
    show_progress(messages, out)
