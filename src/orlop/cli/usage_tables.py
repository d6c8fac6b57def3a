"""`orlop system df -v`: every image, container, volume and cache record with its bytes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from orlop.base.clock import parse_rfc3339_nano
from orlop.cli.ps_verb import row as container_row
from orlop.cli.table import render
from orlop.cli.units import human_ago, human_size, short_id

__all__ = ["layers", "render_all"]

Item = Mapping[str, Any]
_NONE = "<none>"


def render_all(usage: Item) -> str:
    """The four tables of `GET /system/df`, as docker words them."""
    now = time.time()  # noqa: TID251 - ages on a terminal
    cache = usage.get("BuildCache") or []
    parts = (
        ("Images space usage:", _images(usage.get("Images") or [], now)),
        ("Containers space usage:", _containers(usage.get("Containers") or [], now)),
        ("Local Volumes space usage:", _volumes(usage.get("Volumes") or [])),
        (f"Build cache usage: {human_size(_own_bytes(cache))}", _cache(cache, now)),
    )
    return "\n".join(f"{title}\n\n{table}" for title, table in parts)


def layers(items: Iterable[Item]) -> str:
    """Every layer with the way its compressed bytes can be had for a push."""
    rows = [
        (
            short_id(item["DiffId"]),
            human_size(item["Size"], 3),
            item["Compressed"],
            short_id(item.get("Digest") or ""),
            ", ".join(item.get("Sources") or ()),
        )
        for item in items
    ]
    return render(("LAYER", "SIZE", "COMPRESSED BYTES", "DIGEST", "SOURCES"), rows)


def _own_bytes(cache: Iterable[Item]) -> int:
    return sum(item["Size"] for item in cache if not item.get("Shared"))


def _images(images: Iterable[Item], now: float) -> str:
    rows = []
    for image in images:
        shared = max(image.get("SharedSize", 0), 0)
        for name in image.get("RepoTags") or [f"{_NONE}:{_NONE}"]:
            repository, _, tag = name.rpartition(":")
            sizes = (human_size(image["Size"], 3), human_size(shared), human_size(image["Size"] - shared))
            age = human_ago(now - image["Created"])
            rows.append((repository, tag, short_id(image["Id"]), age, *sizes, str(image["Containers"])))
    headings = (
        "REPOSITORY",
        "TAG",
        "IMAGE ID",
        "CREATED",
        "SIZE",
        "SHARED SIZE",
        "UNIQUE SIZE",
        "CONTAINERS",
    )
    return render(headings, rows)


def _containers(containers: Iterable[Item], now: float) -> str:
    names = ("ID", "Image", "Command", "LocalVolumes", "Size", "RunningFor", "Status", "Names")
    rows = []
    for item in containers:
        row = container_row(dict(item), now, is_cut=True)
        row["Size"] = human_size(item.get("SizeRw") or 0, 3)
        rows.append([str(row[name]) for name in names])
    headings = ("CONTAINER ID", "IMAGE", "COMMAND", "LOCAL VOLUMES", "SIZE", "CREATED", "STATUS", "NAMES")
    return render(headings, rows)


def _volumes(volumes: Iterable[Item]) -> str:
    rows = []
    for volume in volumes:
        data = volume.get("UsageData") or {}
        rows.append((volume["Name"], str(data.get("RefCount", 0)), human_size(max(data.get("Size", 0), 0))))
    return render(("VOLUME NAME", "LINKS", "SIZE"), rows)


def _cache(records: Iterable[Item], now: float) -> str:
    rows = [
        (
            item["ID"][:12],
            item["Type"],
            human_size(item["Size"], 3),
            _age(item.get("CreatedAt"), now),
            _age(item.get("LastUsedAt"), now),
            str(item.get("UsageCount", 0)),
            "true" if item.get("Shared") else "false",
        )
        for item in records
    ]
    return render(("CACHE ID", "CACHE TYPE", "SIZE", "CREATED", "LAST USED", "USAGE", "SHARED"), rows)


def _age(moment: str | None, now: float) -> str:
    return human_ago(now - parse_rfc3339_nano(moment) / 1e9) if moment else ""
