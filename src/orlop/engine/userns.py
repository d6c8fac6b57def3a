"""User namespaces of containers: what is asked for, what it comes to, whose is joined.

Modes, from HostConfig.UsernsMode or `--security-opt userns=...` (docker's client passes only `host` in
the first), else the engine's default:

- `host`: the ids of the host.
- `auto` or `private`: a range of ids that no other container has.
- `remap`: the one map of `userns-remap`.
- `container:ID`: the user namespace of another container. Sharing its network, IPC or PID namespace
  comes to the same: those belong to its user namespace, and only from inside it can they be joined.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from orlop.base.errors import InvalidInput
from orlop.engine.idmaps import DEFAULT_POOL, IdMap, IdPool, allocate, find_pool, parse_pool, parse_remap
from orlop.runtime.spec import UserNamespaceSpec

if TYPE_CHECKING:
    from orlop.base.ids import ContainerId
    from orlop.engine.catalog import Catalog
    from orlop.engine.model import Container, MountRecord, Record
    from orlop.engine.requests import HostConfig

__all__ = [
    "MODES",
    "UserMaps",
    "UsernsSettings",
    "asked_mode",
    "check_joined",
    "check_propagation",
    "fit_sysctls",
    "is_bind_mapped",
    "joined",
    "namespace_spec",
    "read_settings",
]

MODES = ("host", "auto", "private", "remap")
_PING_GROUPS = "net.ipv4.ping_group_range"
_OPTION = "userns"


@dataclass(frozen=True, slots=True)
class UsernsSettings:
    """What the engine was told: the mode of containers that say nothing, and where ids come from."""

    default: str = "host"
    pool: IdPool = DEFAULT_POOL
    remap: IdMap | None = None


def read_settings(default: str, pool: str, remap: str) -> UsernsSettings:
    """The settings from flags, and /etc/subuid and /etc/subgid.

    Raises:
        InvalidInput: a value that is none, or a name without ranges.
    """
    subuid, subgid = (_read(path) for path in ("/etc/subuid", "/etc/subgid"))
    return UsernsSettings(
        "remap" if remap else default,
        parse_pool(pool) if pool else find_pool(subuid, subgid),
        parse_remap(remap, subuid, subgid) if remap else None,
    )


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(1 << 20)
    except FileNotFoundError:
        return ""


class UserMaps:
    """Decides maps, and keeps those of containers that are being made apart from one another."""

    def __init__(self, settings: UsernsSettings = UsernsSettings()) -> None:
        self.settings = settings
        self._reserved: dict[ContainerId, IdMap] = {}

    @contextmanager
    def choosing(
        self, container_id: ContainerId, host: HostConfig, catalog: Catalog
    ) -> Iterator[IdMap | None]:
        """The map of a new container, None for the host's ids; nobody else gets it meanwhile.

        Raises:
            InvalidInput: with dockerd's texts, what cannot be had with a user namespace.
            IdsExhausted: no range is free.
        """
        chosen = self._choose(host, catalog)
        if chosen is not None:
            self._reserved[container_id] = chosen
        try:
            yield chosen
        finally:
            self._reserved.pop(container_id, None)

    def _choose(self, host: HostConfig, catalog: Catalog) -> IdMap | None:
        asked = asked_mode(host)
        mode = asked or self.settings.default
        shared = _shared(host, mode, catalog)
        if mode == "host":
            owners = {owner for owner in map(_owner_of, shared) if owner}
            if not owners:
                return None
            if asked:
                raise _conflict("the user namespace of the host and those of another container")
        _check_possible(host)
        check_propagation(host)
        if shared:
            return _join(shared)
        if mode == "remap":
            if self.settings.remap is None:
                raise InvalidInput(
                    "invalid user namespace mode: remap", hint="start the engine with --userns-remap"
                )
            return self.settings.remap
        records = [item.record.id_map for item in catalog if item.record.id_map is not None]
        return allocate(self.settings.pool, (*records, *self._reserved.values()))


def asked_mode(host: HostConfig) -> str:
    """The mode that the request names, "" for none.

    Raises:
        InvalidInput: no mode of ours, or two.
    """
    words = {host.userns_mode} if host.userns_mode else set()
    for option in host.security_opt or ():
        name, equals, value = option.partition("=")
        if name == _OPTION and equals:
            words.add(value)
    if len(words) > 1:
        raise InvalidInput(f"conflicting options: two user namespace modes: {', '.join(sorted(words))[:200]}")
    mode = next(iter(words), "")
    if mode and mode not in MODES and not mode.startswith("container:"):
        raise InvalidInput(
            f"invalid user namespace mode: {mode[:100]}",
            hint="use host, auto, private, remap or container:ID",
        )
    return "auto" if mode == "private" else mode


def _shared(host: HostConfig, mode: str, catalog: Catalog) -> list[Container]:
    """The containers whose namespaces this one shares, as far as they are there already."""
    found = []
    for value in (host.network_mode, host.ipc_mode, host.pid_mode, mode):
        name = value.removeprefix("container:")
        if name == value:
            continue
        other = catalog.get(name) if value == mode else catalog.find(name)
        if other is not None:
            found.append(other)
    return found


def _owner_of(container: Container) -> str:
    """The container whose user namespace it lives in; "" for the host's."""
    id_map = container.record.id_map
    return "" if id_map is None else id_map.owner or container.id


def _join(shared: list[Container]) -> IdMap:
    owners = {_owner_of(container) for container in shared}
    if len(owners) > 1:
        raise _conflict("namespaces of containers with different user namespaces")
    id_map = shared[0].record.id_map
    if id_map is None:
        raise InvalidInput(
            f"conflicting options: container {shared[0].record.name} shares the user namespace of the host",
            hint="use --userns=host for this container, too",
        )
    return replace(id_map, owner=owners.pop())


def _conflict(what: str) -> InvalidInput:
    return InvalidInput(
        f"conflicting options: cannot join {what}",
        hint="containers that share namespaces must share their user namespace",
    )


def _check_possible(host: HostConfig) -> None:
    """Texts are dockerd's."""
    if host.privileged:
        raise InvalidInput(
            "privileged mode is incompatible with user namespaces.  "
            "You must run the container in the host namespace when running privileged mode",
            hint="add --userns=host",
        )
    for value, text in (
        (host.network_mode, "cannot share the host's network namespace when user namespaces are enabled"),
        (host.pid_mode, "cannot share the host PID namespace when user namespaces are enabled"),
    ):
        if value == "host":
            raise InvalidInput(text, hint="add --userns=host")


def check_propagation(host: HostConfig) -> None:
    """A mount of the container's must not appear on the host.

    Raises:
        InvalidInput: it would.
    """
    modes = [text.split(":")[2] for text in host.binds or () if text.count(":") == 2]
    words = {word for mode in modes for word in mode.split(",")}
    words |= {item.bind_options.propagation for item in host.mounts or () if item.bind_options}
    if words & {"shared", "rshared"}:
        raise InvalidInput(
            "shared mount propagation is incompatible with user namespaces",
            hint="use rslave, or --userns=host",
        )


def joined(host: HostConfig, id_map: IdMap | None) -> str:
    """The `container:ID` mode by which a user namespace is joined; "" when it is the container's own."""
    if id_map is None or not id_map.owner:
        return ""
    modes = (asked_mode(host), host.network_mode, host.ipc_mode, host.pid_mode)
    return next((mode for mode in modes if mode.startswith("container:")), "")


def check_joined(record: Record, other: Record) -> None:
    """At a start: the container that is joined may be another one of the same name.

    Raises:
        InvalidInput: its user namespace is not the one that this container was made for.
    """
    mine, theirs = record.id_map, other.id_map
    same = theirs is not None and mine is not None and (theirs.owner or other.id) == mine.owner
    if (mine is None) != (theirs is None) or (mine is not None and not same):
        raise _conflict(f"namespaces of container {other.id}: it has another user namespace now")


def namespace_spec(id_map: IdMap | None, path: str) -> UserNamespaceSpec | None:
    """What the runtime is told; `path` is the user namespace to join."""
    return None if id_map is None else UserNamespaceSpec(id_map.uids, id_map.gids, path)


def is_bind_mapped(mount: MountRecord, id_map: IdMap | None) -> bool:
    """Whether a mount shows its files with the container's own ids.

    Volumes are ours and hold the ids of containers. A directory of the host is mapped with an automatic
    range, so that a bind works as without one; with `userns-remap` it is not, as in dockerd: its users
    have given their directories to the mapped ids. `idmap` and `noidmap` after `-v` decide otherwise.
    """
    if id_map is None or mount.point.type in ("tmpfs", "image"):  # an overlay cannot be mapped as a whole
        return False
    words = mount.point.mode.split(",")
    if mount.point.type == "volume" or "idmap" in words:
        return True
    return id_map.maps_binds and "noidmap" not in words


def fit_sysctls(
    sysctls: dict[str, str], asked: Mapping[str, str] | None, id_map: IdMap | None
) -> dict[str, str]:
    """The settings with the default of ping groups cut to groups that exist."""
    if id_map is None or _PING_GROUPS in (asked or {}) or _PING_GROUPS not in sysctls:
        return sysctls
    return {**sysctls, _PING_GROUPS: f"0 {id_map.size() - 1}"}
