"""What a caller of the frontend chooses, and what the frontend hands back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from orlop.base.errors import OrlopError
from orlop.build.dockerfile.draft import Draft
from orlop.build.graph import Definition, Edge, NetworkMode
from orlop.oci.platform import Platform, host_platform

__all__ = ["BaseRequest", "BasesNeeded", "FrontendOptions", "Lowered", "Step"]


@dataclass(frozen=True, slots=True)
class FrontendOptions:
    """Choices of one build that decide the graph."""

    build_args: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    target: str = ""
    platform: Platform = field(default_factory=host_platform)
    host: Platform = field(default_factory=host_platform)
    ignores_cache: bool = False
    network: NetworkMode = NetworkMode.DEFAULT
    extra_hosts: tuple[tuple[str, str], ...] = ()
    ulimits: tuple[tuple[str, int, int], ...] = ()
    shm_size_bytes: int = 0
    cgroup_parent: str = ""
    hostname: str = ""


@dataclass(frozen=True, slots=True)
class BaseRequest:
    """An image that the frontend needs to know. `platform` is empty for the build's own."""

    reference: str
    platform: str
    line: int


class BasesNeeded(OrlopError):
    """Not a failure: the caller resolves `requests` and lowers again."""

    code = "bases-needed"

    def __init__(self, requests: tuple[BaseRequest, ...], first_step: str, step_count: int) -> None:
        super().__init__("images have to be resolved: " + ", ".join(r.reference for r in requests))
        self.requests = requests
        self.first_step = first_step  # what is told before anything is pulled
        self.step_count = step_count


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction as a person follows it.

    `edge` is the state behind it (None: empty), `draft` the image at that point. `vertex_made`
    tells whether this step has an operation of its own. `note` is printed in front of it.
    """

    text: str
    line: int
    stage: int
    edge: Edge | None
    draft: Draft
    makes_layer: bool = False
    is_trigger: bool = False
    is_from: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True)
class Lowered:
    """A Dockerfile as a graph: what to solve, what image it becomes, and the steps to tell of."""

    definition: Definition
    draft: Draft
    steps: tuple[Step, ...]
    unused_args: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
