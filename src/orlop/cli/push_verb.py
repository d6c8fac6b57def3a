"""`orlop push`."""

from __future__ import annotations

from orlop.cli.context import Context
from orlop.cli.flags import Command, Flag, Parsed
from orlop.cli.progress import show_progress
from orlop.client.client import path_of
from orlop.oci.reference import parse_reference

COMMAND = Command(
    "push [OPTIONS] NAME[:TAG]|ssh://HOST/NAME[:TAG]",
    "Upload an image to a registry, or to the engine of another host",
    (
        Flag("all-tags", "a", "bool", text="Push all tags of an image to the repository"),
        Flag("platform", text="Push a platform-specific manifest as a single-platform image"),
        Flag("quiet", "q", "bool", text="Suppress verbose output"),
    ),
    min_args=1,
    max_args=1,
)


def run(context: Context, parsed: Parsed) -> int:
    """Push with progress."""
    if parsed.args[0].startswith("ssh://"):
        from orlop.cli.push_over_ssh import push_over_ssh

        return push_over_ssh(context, parsed.args[0], is_quiet=parsed["quiet"])
    reference = parse_reference(parsed.args[0])
    tag = "" if parsed["all-tags"] else reference.with_default_tag().tag
    if not parsed["all-tags"] and reference.tag is None and not parsed["quiet"]:
        context.print("Using default tag: latest")
    messages = context.client.lines(
        "POST",
        path_of("images", reference.familiar_name, "push"),
        {"tag": tag, "platform": parsed["platform"]},
        body=b"",
        headers=context.auth_header(parsed.args[0]),
    )
    if parsed["quiet"]:
        messages = (message for message in messages if "error" in message)
    show_progress(messages, context.out)
    if parsed["quiet"]:
        context.print(str(reference.with_default_tag()))
    return 0
