"""Environment, labels, mounts, ports and health check of an existing container are changed.

Its id, name and writable layer stay. `amended` is pure: settings and an amendment in, new settings out.
A container that runs keeps what it runs with: the new settings are stored beside it in the same row and
become its own at the next start. One transaction stores them; volumes that it asks for are made
before, so a crash leaves at most an anonymous volume without a user. A volume that loses its mount stays.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import fields, replace

from orlop.base import failpoints
from orlop.base.errors import InvalidInput, OrlopError
from orlop.engine.creation import own_state_warnings, resolve_mounts
from orlop.engine.extensions import Additions, Amendment, Removals
from orlop.engine.health_actions import asked_action
from orlop.engine.hostconfig import check_config
from orlop.engine.model import Container, MountRecord, Settings
from orlop.engine.pending import settings_of, with_settings
from orlop.engine.requests import ContainerConfig, HealthConfig, HostConfig, OrlopConfig, PortBinding
from orlop.engine.services import Services
from orlop.engine.userns import check_propagation

__all__ = ["amend", "amended"]

_PORT = re.compile(r"([0-9]{1,5})(?:/(tcp|udp|sctp))?\Z", re.ASCII)
_HOST_PORT = re.compile(r"(?:[0-9]{1,5}(?:-[0-9]{1,5})?)?\Z", re.ASCII)
_NOTHING, _NO_REMOVALS = Additions(), Removals()
NEXT_START = "The change takes effect when the container is started again."


async def amend(services: Services, container: Container, amendment: Amendment) -> list[str]:
    """Change a container's settings; its lock is held. Returns what the caller should know.

    Raises:
        InvalidInput: nothing was changed.
    """
    record = container.record
    old = record.pending or settings_of(record)
    add = amendment.add or _NOTHING
    new = amended(old, amendment, network_mode=record.host.network_mode)
    wishes = HostConfig(
        binds=add.binds, mounts=add.mounts, tmpfs=add.tmpfs, volume_driver=record.host.volume_driver
    )
    if record.id_map is not None:
        check_propagation(wishes)
    made = await resolve_mounts(services, ContainerConfig(), wishes)
    try:
        _refuse_taken(new.points, made)
        new = replace(new, points=(*new.points, *made))
        failpoints.hit("container.update.before-row")
        is_up = container.task is not None
        changed = replace(record, pending=new) if is_up else with_settings(record, new)
        await services.catalog.update(container, changed)
    except Exception:
        await _drop(services, made)
        raise
    failpoints.hit("container.update.row-written")
    told = own_state_warnings(services, replace(record, mounts=made))
    return [*told, NEXT_START] if is_up and not amendment.restart else told


def amended(old: Settings, amendment: Amendment, *, network_mode: str) -> Settings:
    """The settings after an amendment; mounts that are added are wishes only, without their points.

    Raises:
        InvalidInput: something to remove is not there, or a value is wrong.
    """
    add, remove = amendment.add or _NOTHING, amendment.remove or _NO_REMOVALS
    new = _without_mounts(old, remove.mounts or ())
    bindings, exposed = _ports(old, add, remove, network_mode)
    config = replace(
        old.config,
        env=_env(old.config.env or (), add.env or (), remove.env or ()),
        labels=_labels(old.config.labels, add.labels or {}, remove.labels or ()),
        exposed_ports=exposed,
        healthcheck=_health(old.config.healthcheck, amendment.healthcheck),
        volumes=new.config.volumes,
    )
    check_config(config)
    asked = asked_action(OrlopConfig(health_on_failure=amendment.health_on_failure), add.labels)
    orlop = replace(old.orlop, health_on_failure=asked.health_on_failure or old.orlop.health_on_failure)
    return replace(
        new,
        config=config,
        binds=(*(new.binds or ()), *(add.binds or ())) or None,
        mounts=(*(new.mounts or ()), *(add.mounts or ())) or None,
        tmpfs={**(new.tmpfs or {}), **(add.tmpfs or {})} or None,
        port_bindings=bindings,
        orlop=orlop,
    )


def _env(old: Iterable[str], add: Iterable[str], remove: Iterable[str]) -> tuple[str, ...]:
    values = {text.partition("=")[0]: text for text in old}
    for name in remove:
        if values.pop(name, None) is None:
            raise InvalidInput(f"the container has no environment variable {name[:100]!r}")
    for text in add:
        name, equals, _ = text.partition("=")
        if not name or not equals:
            raise InvalidInput(
                f"invalid environment variable: {text[:100]}", hint="write NAME=VALUE; remove it by name"
            )
        values[name] = text
    return tuple(values.values())


def _labels(old: dict[str, str] | None, add: dict[str, str], remove: Iterable[str]) -> dict[str, str] | None:
    labels = dict(old or {})
    for name in remove:
        if labels.pop(name, None) is None:
            raise InvalidInput(f"the container has no label {name[:100]!r}")
    return {**labels, **add} or ({} if old is not None else None)


def _health(old: HealthConfig | None, given: HealthConfig | None) -> HealthConfig | None:
    if given is None:
        return old
    if given.test and given.test[0] == "NONE":
        return HealthConfig(test=("NONE",))
    values = {item.name: getattr(given, item.name) for item in fields(HealthConfig)}
    return replace(old or HealthConfig(), **{name: value for name, value in values.items() if value})


def _without_mounts(old: Settings, targets: Iterable[str]) -> Settings:
    gone = {posixpath.normpath(target) for target in targets}
    missing = gone - {point.point.destination for point in old.points}
    if missing:
        raise InvalidInput(f"the container has no mount at {min(missing)[:200]}")

    def is_kept(target: str) -> bool:
        return posixpath.normpath(target) not in gone

    return replace(
        old,
        config=replace(old.config, volumes=_kept(old.config.volumes, is_kept)),
        binds=tuple(text for text in old.binds or () if is_kept(_bind_target(text))) or None,
        mounts=tuple(mount for mount in old.mounts or () if is_kept(mount.target)) or None,
        tmpfs={path: words for path, words in (old.tmpfs or {}).items() if is_kept(path)} or None,
        points=tuple(point for point in old.points if is_kept(point.point.destination)),
    )


def _kept(paths: frozenset[str] | None, is_kept: Callable[[str], bool]) -> frozenset[str] | None:
    return frozenset(path for path in paths or () if is_kept(path)) or None


def _bind_target(text: str) -> str:
    parts = text.split(":")
    return parts[1] if len(parts) > 1 else parts[0]


def _refuse_taken(points: Iterable[MountRecord], made: Iterable[MountRecord]) -> None:
    taken = {point.point.destination for point in points}
    for mount in made:
        if mount.point.destination in taken:
            raise InvalidInput(
                f"Duplicate mount point: {mount.point.destination}",
                hint="remove the mount that is there in the same update",
            )


Bindings = dict[str, tuple[PortBinding, ...] | None]


def _ports(
    old: Settings, add: Additions, remove: Removals, network_mode: str
) -> tuple[Bindings | None, frozenset[str] | None]:
    bindings: Bindings = dict(old.port_bindings or {})
    exposed = set(old.config.exposed_ports or ())
    if add.port_bindings and network_mode.startswith("container:"):
        raise InvalidInput("conflicting options: port publishing and the container type network mode")
    for text in remove.ports or ():
        if bindings.pop(_port(text), None) is None:
            raise InvalidInput(f"the container does not publish port {text[:40]}")
    for text, wanted in (add.port_bindings or {}).items():
        port, there = _port(text), bindings.get(_port(text)) or ()
        for item in wanted or (PortBinding(),):
            if not _is_host_port(item.host_port):
                raise InvalidInput(f"invalid port specification: {item.host_port[:40]!r}")
            if item not in there:
                there = (*there, item)
        bindings[port] = there
        exposed.add(port)
    return bindings or None, frozenset(exposed) or None


def _is_host_port(text: str) -> bool:
    """Empty, a port, or a range of ports to choose from."""
    return bool(_HOST_PORT.match(text)) and all(int(word) < 1 << 16 for word in text.split("-") if word)


def _port(text: str) -> str:
    found = _PORT.match(text)
    if not found or not 0 < int(found[1]) < 1 << 16:
        raise InvalidInput(f"invalid port specification: {text[:40]!r}", hint="for example 80/tcp")
    return f"{int(found[1])}/{found[2] or 'tcp'}"


async def _drop(services: Services, mounts: Iterable[MountRecord]) -> None:
    """Take anonymous volumes away that were made for nothing."""
    for mount in mounts:
        if mount.is_anonymous:
            with suppress(OrlopError):
                await services.volumes.remove(mount.point.name)
