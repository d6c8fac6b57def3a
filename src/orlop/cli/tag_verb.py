"""`orlop tag`."""

from __future__ import annotations

from orlop.cli.context import Context
from orlop.cli.flags import Command, Parsed
from orlop.cli.references import split_tag
from orlop.client.client import path_of

COMMAND = Command(
    "tag SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
    "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
    min_args=2,
    max_args=2,
)


def run(context: Context, parsed: Parsed) -> int:
    """Tag, silently."""
    source, target = parsed.args
    name, tag = split_tag(target)
    context.client.call("POST", path_of("images", source, "tag"), {"repo": name, "tag": tag})
    return 0
