"""What a build is asked for, and the cache as clients list it.

Spec: Docker Engine API v1.51, "Build an image", BuildCache, "Delete builder cache".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from orlop.build.executor import Limits
from orlop.engine.auth import AuthConfig
from orlop.wire.gojson import field as json_field

__all__ = ["BuildCacheItem", "BuildPruneReport", "BuildRequest"]


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """The parameters of `POST /build`. Sizes in bytes; `auth` by registry."""

    tags: tuple[str, ...] = ()
    dockerfile: str = "Dockerfile"
    target: str = ""
    platform: str = ""
    build_args: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    cache_from: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = ()
    network_mode: str = ""
    ulimits: tuple[tuple[str, int, int], ...] = ()
    shm_size_bytes: int = 0
    cgroup_parent: str = ""
    limits: Limits = field(default_factory=Limits)
    is_quiet: bool = False
    ignores_cache: bool = False
    pulls: bool = False
    removes: bool = True
    applies_ignore: bool = False  # ours: the rules of .dockerignore count here, not only at the client
    build_id: str = ""
    auth: Mapping[str, AuthConfig] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BuildCacheItem:
    """A cache record."""

    id: str = json_field("ID")
    type: str = "regular"
    description: str = ""
    in_use: bool = False
    shared: bool = False
    size: int = 0
    created_at: str = ""
    last_used_at: str | None = None
    usage_count: int = 0
    parents: tuple[str, ...] | None = json_field(default=None, omit_empty=True)


@dataclass(frozen=True, slots=True)
class BuildPruneReport:
    """What pruning took away."""

    caches_deleted: tuple[str, ...] | None
    space_reclaimed: int
