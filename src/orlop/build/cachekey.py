"""Cache identity: the same digests that BuildKit gives the same operation.

An operation's digest D says what it does; its output's root key is `sha256("<D>@<output>")`.
For an input, D comes with a *selector* (which part of it is used) and, where only that part
matters, a *content query*: the digest of the files themselves. Records are found first by
the inputs' own keys and then by the content of the inputs.

Spec: BuildKit CacheMap of ops/file.go, ops/exec.go, ops/source.go; notes of this project
name the fields that are blanked.
"""

from __future__ import annotations

import base64
import posixpath
from dataclasses import dataclass

from orlop.build import graph as g
from orlop.build.gojson import drop_empty, dumps
from orlop.oci.digest import Digest, digest_of
from orlop.oci.platform import Platform

__all__ = ["CacheMap", "Dependency", "Selection", "cache_map", "chain_id", "content_key", "output_key"]


@dataclass(frozen=True, slots=True)
class Selection:
    """Files of an input that an operation reads, for the content query."""

    path: str
    has_wildcard: bool = False
    follows_links: bool = False
    includes: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()

    @property
    def is_filtered(self) -> bool:
        """True when more than the path decides what is selected."""
        return self.has_wildcard or bool(self.includes) or bool(self.excludes)


@dataclass(frozen=True, slots=True)
class Dependency:
    """What one input contributes. No selections: only its own key identifies it."""

    selector: str = ""
    selections: tuple[Selection, ...] = ()


@dataclass(frozen=True, slots=True)
class CacheMap:
    """Digest of an operation and one dependency per input.

    `is_ephemeral` marks a source whose key means nothing to another build (a sent context).
    """

    digest: Digest
    dependencies: tuple[Dependency, ...] = ()
    is_ephemeral: bool = False


def cache_map(op: g.Op, input_count: int, platform: Platform) -> CacheMap:
    """The identity of an operation."""
    match op:
        case g.SourceOp():
            return _source_map(op)
        case g.FileOp():
            return _file_map(op, input_count)
        case g.MergeOp():
            merged = [drop_empty({"input": index}) for index in range(input_count)]
            document = {"Type": "buildkit.merge.v0", "Merge": {"inputs": merged}}
            return CacheMap(digest_of(dumps(document)), tuple(Dependency() for _ in range(input_count)))
        case g.ExecOp():
            return CacheMap(_exec_digest(op, platform), tuple(Dependency() for _ in range(input_count)))


def output_key(digest: str, output: int) -> Digest:
    """The root key of an operation's output."""
    return digest_of(f"{digest}@{output}".encode())


def content_key(digests: list[str]) -> Digest:
    """The key that stands for the content of the selected files, in the order of their selections."""
    joined = digest_of(b"\0".join(digest.encode() for digest in digests))
    return output_key(joined, -1)


def chain_id(layers: tuple[str, ...]) -> str:
    """The digest of a stack of layers. Spec: OCI image-spec, config, "Layer ChainID"."""
    chain = ""
    for layer in layers:
        chain = digest_of(f"{chain} {layer}".encode()) if chain else layer
    return chain


def _source_map(op: g.SourceOp) -> CacheMap:
    if op.identifier.startswith("docker-image://"):
        key = chain_id(op.layers)
        return CacheMap(digest_of(f"buildkit.source.v0:{key}".encode()))
    attributes = ",".join(f"{name}={value}" for name, value in op.attributes)
    return CacheMap(
        digest_of(f"buildkit.source.v0:session:{op.identifier}:{attributes}".encode()), is_ephemeral=True
    )


def _file_map(op: g.FileOp, input_count: int) -> CacheMap:
    encoded: list[str] = []
    indexes: list[list[int]] = []
    selections: dict[int, list[Selection]] = {}
    base_inputs: set[int] = set()
    for step in op.actions:
        base_inputs.add(step.input)
        action = step.action
        if isinstance(action, g.CopyAction) and 0 <= step.secondary_input < input_count:
            selections.setdefault(step.secondary_input, []).append(_selection(action))
        fields = _action_json(action, is_source_elsewhere=step.secondary_input < input_count)
        encoded.append(base64.b64encode(dumps(fields)).decode())
        indexes.append([step.input, step.secondary_input, step.output])
    document: dict[str, object] = {"Type": "buildkit.file.v0", "Actions": encoded}
    if not _has_default_indexes(indexes):
        document["indexes"] = indexes
    dependencies = tuple(
        Dependency() if index in base_inputs else _dependency(selections.get(index, []))
        for index in range(input_count)
    )
    return CacheMap(digest_of(dumps(document)), dependencies)


def _dependency(selections: list[Selection]) -> Dependency:
    if not selections:
        return Dependency()
    paths = sorted((selection.path.encode("utf-8", "replace") for selection in selections), reverse=True)
    return Dependency(digest_of(b"\0".join(paths)), _deduplicated(selections))


def _deduplicated(selections: list[Selection]) -> tuple[Selection, ...]:
    """Without plain paths that lie below another one; sorted by path."""
    kept: list[Selection] = []
    for follows_links in (False, True):
        plain = {s.path for s in selections if not s.is_filtered and s.follows_links is follows_links}
        kept += [
            Selection(path, follows_links=follows_links)
            for path in sorted(plain)
            if not any(path != other and path.startswith(other.rstrip("/") + "/") for other in plain)
        ]
    kept += [selection for selection in selections if selection.is_filtered]
    return tuple(sorted(kept, key=lambda selection: selection.path.encode("utf-8", "surrogateescape")))


def _selection(action: g.CopyAction) -> Selection:
    return Selection(
        action.source,
        action.has_wildcard and _contains_wildcard(action.source),
        action.follows_links,
        action.includes,
        action.excludes,
    )


def _contains_wildcard(path: str) -> bool:
    bare = path
    while "\\" in bare:  # an escaped character is no wildcard
        head, _, tail = bare.partition("\\")
        bare = head + tail[1:]
    return any(c in bare for c in "*?[")


def _has_default_indexes(indexes: list[list[int]]) -> bool:
    """The common pattern, whose digests are older than the field."""
    last = len(indexes) - 1
    for position, (first, second, output) in enumerate(indexes):
        expected = 0 if position == 0 else len(indexes) + position - 1
        if first != expected or second not in (-1, 1) or output != (0 if position == last else -1):
            return False
    return bool(indexes)


def _action_json(
    action: g.CopyAction | g.MkfileAction | g.MkdirAction | g.RmAction, *, is_source_elsewhere: bool
) -> dict[str, object]:
    if isinstance(action, g.CopyAction):
        return _copy_json(action, is_source_elsewhere=is_source_elsewhere)
    if isinstance(action, g.RmAction):
        names = {"allowNotFound": action.may_be_missing, "allowWildcard": action.has_wildcard}
        return drop_empty({"path": action.path, **names})
    head: dict[str, object] = {"path": action.path, "mode": action.mode}
    if isinstance(action, g.MkfileAction):
        head["data"] = base64.b64encode(action.data).decode()
    else:
        head["makeParents"] = action.makes_parents
    return drop_empty({**head, "owner": _owner_json(action.owner), "timestamp": action.timestamp_ns})


def _copy_json(action: g.CopyAction, *, is_source_elsewhere: bool) -> dict[str, object]:
    source = action.source
    if is_source_elsewhere:  # the content query covers the path; the name still matters
        source = posixpath.basename(source.rstrip("/")) or "/"
    return drop_empty(
        {
            "src": source,
            "dest": action.destination,
            "owner": _owner_json(action.owner),
            "mode": 0 if action.mode_text else action.mode,
            "followSymlink": action.follows_links,
            "dirCopyContents": action.copies_contents,
            "attemptUnpackDockerCompatibility": action.unpacks,
            "createDestPath": action.creates_path,
            "allowWildcard": action.has_wildcard,
            "allowEmptyWildcard": action.may_match_nothing,
            "timestamp": action.timestamp_ns,
            "include_patterns": list(action.includes),
            "exclude_patterns": list(action.excludes),
            "modeStr": action.mode_text,
        }
    )


def _owner_json(owner: g.Owner | None) -> dict[str, object] | None:
    if owner is None:
        return None
    fields: dict[str, object] = {}
    if owner.user is not None:
        fields["user"] = _principal_json(owner.user)
    if owner.group is not None:
        fields["group"] = _principal_json(owner.group)
    return fields


def _principal_json(principal: g.Principal) -> dict[str, object]:
    if principal.name:
        return {"User": {"byName": drop_empty({"name": principal.name, "input": principal.base})}}
    return {"User": drop_empty({"byId": principal.id})}


def _exec_digest(op: g.ExecOp, platform: Platform) -> Digest:
    meta = drop_empty(
        {
            "args": list(op.args),
            "env": list(op.env),
            "cwd": op.cwd,
            "user": op.user,
            "extraHosts": [drop_empty({"Host": host}) for host, _ in op.extra_hosts],
            "hostname": op.hostname,
            "ulimit": [
                drop_empty({"Name": name, "Soft": soft, "Hard": hard}) for name, soft, hard in op.ulimits
            ],
            "cgroupParent": op.cgroup_parent,
            "removeMountStubsRecursive": True,
        }
    )
    mounts = [] if _is_lone_root(op.mounts) else [_mount_json(mount) for mount in op.mounts]
    exec_json = drop_empty({"meta": meta, "mounts": mounts, "network": int(op.network)})
    document = {
        "Type": "buildkit.exec.v0",
        "Exec": exec_json,
        "OS": platform.os,
        "Arch": platform.architecture,
    }
    if platform.variant:
        document["Variant"] = platform.variant
    return digest_of(dumps(document))


def _is_lone_root(mounts: tuple[g.ExecMount, ...]) -> bool:
    """The plain RUN, whose digests are older than the mounts in them."""
    if len(mounts) != 1:
        return False
    (mount,) = mounts
    return mount.target == "/" and not mount.is_read_only and mount.kind is g.MountKind.BIND


def _mount_json(mount: g.ExecMount) -> dict[str, object]:
    fields: dict[str, object] = {
        "input": mount.input,
        "dest": mount.target,
        "output": mount.output,
        "readonly": mount.is_read_only,
        "mountType": int(mount.kind),
    }
    if mount.kind is g.MountKind.TMPFS:
        fields["TmpfsOpt"] = drop_empty({"size": mount.tmpfs_size_bytes})
    return drop_empty(fields)
