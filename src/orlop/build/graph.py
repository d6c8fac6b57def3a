"""The build graph: LLB's operations as frozen values.

A vertex is an operation with edges to the outputs it needs. Its id is the digest of what it
says, so two stages that say the same thing are one vertex. A FileOp is a row of actions; an
action's input counts the vertex's inputs first and earlier actions after them, -1 is scratch.
An ExecOp has one output per writable mount.

Spec: BuildKit solver/pb/ops.proto, whose words are used.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NewType

__all__ = [
    "SCRATCH",
    "CopyAction",
    "Definition",
    "Edge",
    "ExecMount",
    "ExecOp",
    "FileAction",
    "FileOp",
    "MergeOp",
    "MkdirAction",
    "MkfileAction",
    "MountKind",
    "NetworkMode",
    "Op",
    "Owner",
    "Principal",
    "RmAction",
    "SourceOp",
    "Vertex",
    "VertexId",
    "add_vertex",
]

VertexId = NewType("VertexId", str)
SCRATCH = -1


@dataclass(frozen=True, slots=True)
class Edge:
    """An output of a vertex."""

    vertex: VertexId
    output: int = 0


@dataclass(frozen=True, slots=True)
class Principal:
    """A user or group: by name, looked up in the passwd or group file of input `base`, or by id."""

    name: str = ""
    id: int = 0
    base: int = SCRATCH


@dataclass(frozen=True, slots=True)
class Owner:
    """Whom new files belong to; without a group, a named user brings its own, an id is both."""

    user: Principal | None
    group: Principal | None = None


@dataclass(frozen=True, slots=True)
class CopyAction:
    """Copy `source` of the secondary input to `destination`. `mode` -1 keeps the source's."""

    source: str
    destination: str
    owner: Owner | None = None
    mode: int = -1
    mode_text: str = ""
    follows_links: bool = False
    copies_contents: bool = False
    unpacks: bool = False
    creates_path: bool = False
    has_wildcard: bool = False
    may_match_nothing: bool = False
    timestamp_ns: int = -1
    includes: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MkfileAction:
    """Write a file."""

    path: str
    mode: int
    data: bytes
    owner: Owner | None = None
    timestamp_ns: int = -1


@dataclass(frozen=True, slots=True)
class MkdirAction:
    """Make a directory; one that exists stays as it is."""

    path: str
    mode: int
    makes_parents: bool = False
    owner: Owner | None = None
    timestamp_ns: int = -1


@dataclass(frozen=True, slots=True)
class RmAction:
    """Remove a path."""

    path: str
    may_be_missing: bool = False
    has_wildcard: bool = False


@dataclass(frozen=True, slots=True)
class FileAction:
    """One action with its place in the index space; `output` -1 is not an output of the vertex."""

    action: CopyAction | MkfileAction | MkdirAction | RmAction
    input: int
    secondary_input: int = SCRATCH
    output: int = -1


@dataclass(frozen=True, slots=True)
class FileOp:
    """Changes to files without running anything."""

    actions: tuple[FileAction, ...]


class MountKind(enum.IntEnum):
    """Numbers of the schema."""

    BIND = 0
    SECRET = 1
    SSH = 2
    CACHE = 3
    TMPFS = 4


class NetworkMode(enum.IntEnum):
    """Numbers of the schema; DEFAULT is what the engine gives: its default network, or none."""

    DEFAULT = 0
    HOST = 1
    NONE = 2


@dataclass(frozen=True, slots=True)
class ExecMount:
    """A mount of an ExecOp. `input` -1 is empty; `output` -1 is not kept."""

    target: str
    input: int = SCRATCH
    output: int = -1
    selector: str = ""
    is_read_only: bool = False
    kind: MountKind = MountKind.BIND
    tmpfs_size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ExecOp:
    """Run a process.

    `proxy_env` reaches the process but not the cache key, as clients set it per machine.
    `resources` are limits of the request, not of the result, and stay out of the key too.
    """

    args: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str
    user: str = ""
    hostname: str = ""
    extra_hosts: tuple[tuple[str, str], ...] = ()
    mounts: tuple[ExecMount, ...] = (ExecMount("/", input=0, output=0),)
    network: NetworkMode = NetworkMode.DEFAULT
    proxy_env: tuple[tuple[str, str], ...] = ()
    ulimits: tuple[tuple[str, int, int], ...] = ()
    cgroup_parent: str = ""


@dataclass(frozen=True, slots=True)
class SourceOp:
    """Where files come from: `docker-image://`, `local://`, `https://`.

    `layers` are the diff ids of an image, bottom first; attributes are the schema's.
    """

    identifier: str
    layers: tuple[str, ...] = ()
    attributes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class MergeOp:
    """The inputs' layers on top of each other, first input lowest."""


Op = SourceOp | FileOp | ExecOp | MergeOp


@dataclass(frozen=True, slots=True)
class Vertex:
    """An operation with its inputs; name, line and `ignores_cache` do not make it another one."""

    id: VertexId
    op: Op
    inputs: tuple[Edge, ...]
    name: str = ""
    line: int = 0
    ignores_cache: bool = False


@dataclass(frozen=True, slots=True)
class Definition:
    """All vertices, inputs before users, and the output that is wanted; None is an empty image."""

    vertices: Mapping[VertexId, Vertex] = field(default_factory=dict)
    target: Edge | None = None

    def ordered(self) -> list[Vertex]:
        """The vertices the target needs, inputs first."""
        found: dict[VertexId, Vertex] = {}
        pending = [(self.target.vertex, False)] if self.target else []
        while pending:
            identity, is_expanded = pending.pop()
            vertex = self.vertices[identity]
            if is_expanded:
                found[identity] = vertex
            elif identity not in found:
                pending.append((identity, True))
                pending += [(edge.vertex, False) for edge in reversed(vertex.inputs)]
        return list(found.values())


def add_vertex(
    vertices: dict[VertexId, Vertex],
    op: Op,
    inputs: tuple[Edge, ...],
    *,
    name: str = "",
    line: int = 0,
    ignores_cache: bool = False,
) -> Edge:
    """Add a vertex, or find the equal one; its first output."""
    # repr of frozen dataclasses names every field: two operations with one repr are one operation
    text = f"{op!r}|{inputs!r}|{ignores_cache}"
    identity = VertexId("sha256:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest())
    if identity not in vertices:
        vertices[identity] = Vertex(identity, op, inputs, name, line, ignores_cache)
    return Edge(identity)
