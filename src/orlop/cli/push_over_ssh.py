"""`orlop push ssh://host/NAME`: from this engine to another one; only what is missing there travels.

Three calls: which layers the image has, which of them the other engine lacks, and an archive without the
others, streamed from one engine into the other.
"""

from __future__ import annotations

from collections.abc import Iterator

from orlop.cli.context import Context
from orlop.cli.flags import UsageError
from orlop.cli.progress import show_progress
from orlop.client.client import Client
from orlop.client.endpoint import resolve_endpoint
from orlop.oci.reference import parse_reference

__all__ = ["push_over_ssh"]


def push_over_ssh(context: Context, url: str, *, is_quiet: bool) -> int:
    """Push and print what was loaded there.

    Raises:
        UsageError: no image is named.
        ApiError, CannotConnect, WorkFailed: of either engine.
    """
    target, slash, text = url.removeprefix("ssh://").partition("/")
    if not slash or not text:
        raise UsageError(f"{url[:200]} names no image", hint="orlop push ssh://[USER@]HOST[:PORT]/NAME[:TAG]")
    name = parse_reference(text).with_default_tag().familiar
    there = Client(resolve_endpoint(context.environ, host=f"ssh://{target}"))
    layers = context.client.call("POST", "/orlop/layers/of", body={"Names": [name]})["Layers"]
    missing = set(there.call("POST", "/orlop/layers/missing", body={"Layers": layers})["Layers"])
    known = [layer for layer in layers if layer not in missing]
    if not is_quiet:
        context.print(f"Pushing {name} to {target}: {len(missing)} of {len(layers)} layers are missing there")
    archive = context.client.open("POST", "/orlop/images/export", body={"Names": [name], "Without": known})
    try:
        messages = there.lines(
            "POST",
            "/images/load",
            {"quiet": is_quiet},
            body=_chunks(archive.chunks()),
            headers={"Content-Type": "application/x-tar"},
        )
        show_progress(messages, context.out)
    finally:
        archive.close()
    return 0


def _chunks(chunks: Iterator[bytes]) -> Iterator[bytes]:
    yield from chunks
