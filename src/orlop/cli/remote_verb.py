"""Images in registries: `orlop copy`, `tags`, `delete-remote`, `referrers` and `manifest`."""

from __future__ import annotations

import json

from orlop.cli.context import Context
from orlop.cli.flags import Command, Flag, Parsed, UsageError
from orlop.cli.progress import show_progress
from orlop.cli.table import render
from orlop.cli.units import human_size

_PLATFORM = Flag("platform", text="Only the image for this platform")
COMMANDS = {
    "copy": Command(
        "copy [OPTIONS] SOURCE TARGET",
        "Copy an image from one registry to another, all platforms, without storing it",
        (_PLATFORM, Flag("quiet", "q", "bool", text="Suppress verbose output")),
        min_args=2,
        max_args=2,
    ),
    "tags": Command("tags REPOSITORY", "List the tags of a repository in a registry", min_args=1, max_args=1),
    "delete-remote": Command(
        "delete-remote NAME:TAG|NAME@DIGEST [...]",
        "Delete tags, or manifests by digest, from their registry",
        min_args=1,
    ),
    "referrers": Command(
        "referrers [OPTIONS] NAME[:TAG|@DIGEST]",
        "List what refers to an image in its registry: signatures, SBOMs, attestations",
        (
            Flag("artifact-type", text="Only referrers of this type"),
            Flag("format", text="'json' for JSON"),
        ),
        min_args=1,
        max_args=1,
    ),
    "manifest": Command(
        "manifest [OPTIONS] inspect NAME[:TAG|@DIGEST]",
        "Show the manifest or index of an image in its registry",
        (
            _PLATFORM,
            Flag("raw", kind="bool", text="The exact bytes"),
            Flag("digest", kind="bool", text="Only its digest"),
        ),
        min_args=2,
        max_args=2,
    ),
}


def run(context: Context, parsed: Parsed, name: str) -> int:
    """Dispatch on the verb."""
    match name:
        case "copy":
            return _copy(context, parsed)
        case "tags":
            reference = parsed.args[0]
            found = context.client.call(
                "GET", "/orlop/registry/tags", {"name": reference}, headers=context.auth_header(reference)
            )
            for tag in found["Tags"]:
                context.print(tag)
            return 0
        case "delete-remote":
            return context.each(parsed.args, lambda reference: _delete(context, reference))
        case "referrers":
            return _referrers(context, parsed)
        case _:
            return _manifest(context, parsed)


def _copy(context: Context, parsed: Parsed) -> int:
    source, target = parsed.args
    digests: list[str] = []
    messages = context.client.lines(
        "POST",
        "/orlop/registry/copy",
        {"from": source, "to": target, "platform": parsed["platform"]},
        body=b"",
        headers=context.config_header_of(source, target),
    )
    if parsed["quiet"]:
        messages = (message for message in messages if "error" in message or "aux" in message)
    show_progress(messages, context.out, lambda aux: digests.append(str(aux.get("Digest", ""))))
    if parsed["quiet"]:
        context.print("".join(digests))
    return 0


def _delete(context: Context, reference: str) -> None:
    context.client.call(
        "DELETE", "/orlop/registry/manifest", {"name": reference}, headers=context.auth_header(reference)
    )
    context.print(f"Deleted: {reference}")


def _referrers(context: Context, parsed: Parsed) -> int:
    query = {"name": parsed.args[0], "artifactType": parsed["artifact-type"]}
    found = context.client.call(
        "GET", "/orlop/registry/referrers", query, headers=context.auth_header(parsed.args[0])
    )
    if parsed["format"] == "json":
        context.print(json.dumps(found, indent=2))
        return 0
    if parsed["format"]:
        raise UsageError(f"unknown format {parsed['format']!r}", hint="json")
    rows = [
        (one["Digest"], one["ArtifactType"] or "-", human_size(one["Size"])) for one in found["Referrers"]
    ]
    context.print(render(("DIGEST", "ARTIFACT TYPE", "SIZE"), rows), end="")
    return 0


def _manifest(context: Context, parsed: Parsed) -> int:
    word, reference = parsed.args
    if word != "inspect":
        raise UsageError(f"'manifest {word}' is not an orlop command", hint="manifest inspect")
    exchange = context.client.open(
        "GET",
        "/orlop/registry/manifest",
        {"name": reference, "platform": parsed["platform"]},
        headers=context.auth_header(reference),
    )
    data = exchange.read()
    if parsed["digest"]:
        context.print(exchange.head.headers.get("docker-content-digest", ""))
    elif parsed["raw"]:
        context.print(data.decode(), end="")
    else:
        context.print(json.dumps(json.loads(data), indent=2, ensure_ascii=False))
    return 0
