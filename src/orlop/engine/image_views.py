"""What image operations answer: Docker's response types as frozen values.

Field names are the Engine API's in snake case; `wire.gojson` maps them to Go's names.

Spec: Docker Engine API v1.51: ImageSummary, ImageInspect, HistoryResponseItem, ImageDeleteResponseItem.
"""

from __future__ import annotations

from dataclasses import dataclass

from orlop.engine.image_manifests import ManifestSummary, OciDescriptor
from orlop.engine.requests import HealthConfig
from orlop.engine.views import GraphDriver
from orlop.oci.imageconfig import RunConfig
from orlop.wire.gojson import field

__all__ = [
    "Deleted",
    "DistributionDescriptor",
    "DistributionInspect",
    "DistributionPlatform",
    "HistoryItem",
    "ImageConfigView",
    "ImageDisk",
    "ImageFacts",
    "ImageInspect",
    "ImageMetadata",
    "ImageSummary",
    "LayerState",
    "PruneReport",
    "RootFs",
    "StatusLine",
    "StreamLine",
    "config_view",
]

Strings = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ImageSummary:
    """One line of `GET /images/json`; -1 where nobody asked."""

    containers: int
    created: int
    id: str
    labels: dict[str, str] | None
    parent_id: str
    repo_digests: Strings
    repo_tags: Strings
    shared_size: int
    size: int
    manifests: tuple[ManifestSummary, ...] | None = field(default=None, omit_empty=True)
    descriptor: OciDescriptor | None = field(default=None, omit_empty=True)


@dataclass(frozen=True, slots=True)
class ImageConfigView:
    """The defaults that an image gives to containers."""

    user: str = field(default="", omit_empty=True)
    exposed_ports: dict[str, dict[str, str]] | None = field(default=None, omit_empty=True)
    env: Strings | None = field(default=None, omit_empty=True)
    entrypoint: Strings | None = field(default=None, omit_empty=True)
    cmd: Strings | None = field(default=None, omit_empty=True)
    volumes: dict[str, dict[str, str]] | None = field(default=None, omit_empty=True)
    working_dir: str = field(default="", omit_empty=True)
    labels: dict[str, str] | None = field(default=None, omit_empty=True)
    stop_signal: str = field(default="", omit_empty=True)
    args_escaped: bool = field(default=False, omit_empty=True)
    healthcheck: HealthConfig | None = field(default=None, omit_empty=True)
    on_build: Strings | None = field(default=None, omit_empty=True)
    shell: Strings | None = field(default=None, omit_empty=True)


@dataclass(frozen=True, slots=True)
class RootFs:
    """The layers, bottom first."""

    type: str
    layers: Strings = field(omit_empty=True)


@dataclass(frozen=True, slots=True)
class ImageMetadata:
    """What this engine knows beside the image."""

    last_tag_time: str


@dataclass(frozen=True, slots=True)
class LayerState:
    """What there is of a layer beside its tar.

    `compressed` is `kept` (the blob is here), `re-fetchable` (a registry had it), or `re-creatable`
    (compressing the tar again gives these bytes, or, without a digest, some bytes).
    """

    diff_id: str
    size: int
    compressed: str
    digest: str = field(default="", omit_empty=True)
    sources: Strings | None = field(default=None, omit_empty=True)


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What Orlop knows beside Docker's fields."""

    layers: tuple[LayerState, ...]
    last_used: str = field(default="", omit_empty=True)
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class ImageDisk:
    """`GET /orlop/images/disk`: every layer once; `reclaimable` is what no container needs."""

    size: int
    reclaimable: int
    layers: tuple[LayerState, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInspect:
    """`GET /images/{name}/json`."""

    id: str
    repo_tags: Strings
    repo_digests: Strings
    parent: str
    comment: str
    created: str = field(omit_empty=True)
    docker_version: str
    author: str
    config: ImageConfigView
    architecture: str
    variant: str = field(omit_empty=True)
    os: str
    os_version: str = field(omit_empty=True)
    size: int
    graph_driver: GraphDriver
    root_fs: RootFs = field("RootFS")
    metadata: ImageMetadata
    descriptor: OciDescriptor | None = field(default=None, omit_empty=True)
    manifests: tuple[ManifestSummary, ...] | None = field(default=None, omit_empty=True)
    orlop: ImageFacts | None = field(default=None, omit_empty=True)


@dataclass(frozen=True, slots=True)
class HistoryItem:
    """One line of `GET /images/{name}/history`."""

    comment: str
    created: int
    created_by: str
    id: str
    size: int
    tags: Strings | None


@dataclass(frozen=True, slots=True)
class Deleted:
    """One thing that `rmi` did."""

    untagged: str = field(default="", omit_empty=True)
    deleted: str = field(default="", omit_empty=True)


@dataclass(frozen=True, slots=True)
class PruneReport:
    """`POST /images/prune`."""

    images_deleted: tuple[Deleted, ...] | None
    space_reclaimed: int


@dataclass(frozen=True, slots=True)
class StreamLine:
    """A line of progress for people: build and load."""

    stream: str = field("stream")


@dataclass(frozen=True, slots=True)
class StatusLine:
    """A line of progress: import."""

    status: str = field("status")


@dataclass(frozen=True, slots=True)
class DistributionDescriptor:
    """What a registry has under a name."""

    media_type: str = field("mediaType")
    digest: str = field("digest")
    size: int = field("size")


@dataclass(frozen=True, slots=True)
class DistributionPlatform:
    """One platform that the name can be pulled for."""

    architecture: str = field("architecture")
    os: str = field("os")
    variant: str = field("variant", omit_empty=True)


@dataclass(frozen=True, slots=True)
class DistributionInspect:
    """`GET /distribution/{name}/json`."""

    descriptor: DistributionDescriptor
    platforms: tuple[DistributionPlatform, ...]


def config_view(run: RunConfig) -> ImageConfigView:
    """The run config of an image as clients see it."""
    health = run.healthcheck
    return ImageConfigView(
        user=run.user,
        exposed_ports={port: {} for port in run.exposed_ports},
        env=run.env,
        entrypoint=run.entrypoint,
        cmd=run.cmd,
        volumes={path: {} for path in run.volumes},
        working_dir=run.working_dir,
        labels=dict(run.labels),
        stop_signal=run.stop_signal,
        args_escaped=run.args_escaped,
        healthcheck=None
        if health is None
        else HealthConfig(
            test=health.test or None,
            interval=health.interval_ns,
            timeout=health.timeout_ns,
            start_period=health.start_period_ns,
            start_interval=health.start_interval_ns,
            retries=health.retries,
        ),
        on_build=run.on_build,
        shell=run.shell,
    )
