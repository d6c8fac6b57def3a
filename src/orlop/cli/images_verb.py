"""`orlop images`."""

from __future__ import annotations

import time
from typing import Any

from orlop.cli.context import Context
from orlop.cli.flags import Command, Flag, Parsed
from orlop.cli.listing import filters_query, format_rows
from orlop.cli.table import render
from orlop.cli.units import human_ago, human_size, short_id

COMMAND = Command(
    "images [OPTIONS] [REPOSITORY[:TAG]]",
    "List images",
    (
        Flag("all", "a", "bool", text="Show all images (default hides intermediate images)"),
        Flag("digests", kind="bool", text="Show digests"),
        Flag("filter", "f", "list", text="Filter output based on conditions provided"),
        Flag("format", text="Format output using a Go template, 'table TEMPLATE' or 'json'"),
        Flag("no-trunc", kind="bool", text="Don't truncate output"),
        Flag("quiet", "q", "bool", text="Only show image IDs"),
        Flag("tree", kind="bool", text="List the platforms and attestations of every image"),
    ),
    max_args=1,
)
_COLUMNS = {
    "Repository": "REPOSITORY",
    "Tag": "TAG",
    "Digest": "DIGEST",
    "ID": "IMAGE ID",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "Size": "SIZE",
}
_NONE = "<none>"


def run(context: Context, parsed: Parsed) -> int:
    """List and print."""
    words = [*parsed["filter"], *(f"reference={name}" for name in parsed.args)]
    images = context.client.call(
        "GET",
        "/images/json",
        {
            "all": parsed["all"] or None,
            "digests": parsed["digests"] or None,
            "filters": filters_query(words),
            "manifests": parsed["tree"] or None,
        },
    )
    if parsed["tree"]:
        context.print(_tree(images), end="")
        return 0
    rows = [row for image in images for row in _rows(image, parsed)]
    if parsed["quiet"] and not parsed["format"]:
        for identifier in dict.fromkeys(row["ID"] for row in rows):
            context.print(identifier)
        return 0
    default = ["Repository", "Tag", "ID", "CreatedSince", "Size"]
    if parsed["digests"]:
        default.insert(2, "Digest")
    context.print(format_rows(parsed["format"], rows, _COLUMNS, default), end="")
    return 0


def _tree(images: list[dict[str, Any]]) -> str:
    """Names, and below them the manifests of their indexes; what is not here has no size."""
    rows: list[tuple[str, ...]] = []
    for image in images:
        image.setdefault("Manifests", [])
        names = image.get("RepoTags") or image.get("RepoDigests") or [_NONE]
        used = str(
            sum(len((one.get("ImageData") or {}).get("Containers") or ()) for one in image["Manifests"])
        )
        rows.append((", ".join(names), short_id(image["Id"]), human_size(image["Size"], 3), used))
        for number, one in enumerate(image["Manifests"]):
            branch = "\u2514\u2500 " if number + 1 == len(image["Manifests"]) else "\u251c\u2500 "
            size = human_size(one["Size"]["Total"], 3) if one["Available"] else "-"
            users = len((one.get("ImageData") or {}).get("Containers") or ())
            rows.append((branch + _label(one), short_id(one["ID"]), size, str(users)))
    return render(("IMAGE", "ID", "SIZE", "CONTAINERS"), rows)


def _label(manifest: dict[str, Any]) -> str:
    if manifest["Kind"] == "attestation":
        return "attestation of " + short_id(manifest["AttestationData"]["For"])
    platform = (manifest.get("ImageData") or {}).get("Platform") or {}
    return "/".join(filter(None, (platform.get("os"), platform.get("architecture"), platform.get("variant"))))


def _rows(image: dict[str, Any], parsed: Parsed) -> list[dict[str, Any]]:
    digests = dict(word.split("@", 1) for word in image.get("RepoDigests") or [])
    tags = [word for word in image.get("RepoTags") or [] if word != "<none>:<none>"]
    names = [(*word.rsplit(":", 1), digests.get(word.rsplit(":", 1)[0], _NONE)) for word in tags]
    tagged = {name for name, *_ in names}
    names += [
        (name, _NONE, digest) for name, digest in digests.items() if name not in tagged and name != _NONE
    ]
    created = image["Created"]
    return [
        {
            "Repository": name,
            "Tag": tag,
            "Digest": digest,
            "ID": image["Id"] if parsed["no-trunc"] else short_id(image["Id"]),
            "CreatedSince": human_ago(time.time() - created) if created > 0 else "N/A",  # noqa: TID251 - an age
            "CreatedAt": time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(created)),
            "Size": human_size(image["Size"], 3),
            "VirtualSize": human_size(image["Size"]),
            # known to `system df -v` only
            "Containers": "N/A",
            "SharedSize": "N/A",
            "UniqueSize": "N/A",
        }
        for name, tag, digest in names or [(_NONE, _NONE, _NONE)]
    ]
