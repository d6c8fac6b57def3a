"""Create a container: check, resolve, decide every default, prepare the root, write one row.

Order: name reserved (memory) -> image resolved and marked as used (memory) -> volumes ensured ->
snapshot's directories made -> rows of snapshot and container committed together -> event. A crash
before the rows leaves directories, which the sweep of snapshots takes away, and perhaps anonymous
volumes, for `volume prune`.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace

from orlop.base import failpoints, ids
from orlop.base.errors import InvalidInput, NotFound, OrlopError
from orlop.base.ids import ContainerId, SnapshotKey
from orlop.engine import mounts, privileges
from orlop.engine.apisockets import check_role, with_address
from orlop.engine.health_actions import asked_action
from orlop.engine.hostconfig import HostDefaults, apply_defaults, check_config, check_host
from orlop.engine.idmaps import IdMap
from orlop.engine.merge import merge_config, path_and_args
from orlop.engine.model import Container, MountRecord, Record, State
from orlop.engine.names import check_name, random_name
from orlop.engine.network_wishes import with_wishes
from orlop.engine.portmap import read_wishes
from orlop.engine.requests import ContainerConfig, CreateRequest, HostConfig
from orlop.engine.resources import fit_resources
from orlop.engine.securityopts import parse_security
from orlop.engine.services import Services, emit
from orlop.engine.storageopts import check_storage_opts, limit_layer
from orlop.engine.views import CreateResult, MountPoint
from orlop.images.model import Image
from orlop.oci.digest import Digest
from orlop.oci.platform import host_platform, parse_platform
from orlop.store.db import Tx
from orlop.wire import gojson

__all__ = ["create", "own_state_warnings", "resolve_mounts"]


async def create(services: Services, request: CreateRequest) -> CreateResult:
    """Make a container that has not run yet.

    Raises:
        InvalidInput, NotFound, NameInUse: with dockerd's texts.
    """
    if not request.config.image and not request.config.cmd and not request.config.entrypoint:
        raise InvalidInput("no command specified")
    check_config(request.config)
    request = replace(request, orlop=asked_action(request.orlop, request.config.labels))
    check_role(request.orlop)
    warnings = check_host(request.host, request.config, has_bridge=services.endpoints.has_bridge)
    read_wishes(request.host, request.config)
    services.defaults.runtimes.choose(request.host.runtime)
    host, lacks = fit_resources(request.host, services.defaults.support, services.defaults.processors)
    request = replace(request, host=host)
    await check_storage_opts(host, services.data_root)
    container_id = ContainerId(ids.new_hex_id())
    wanted = request.name.removeprefix("/")
    name = check_name(wanted) if wanted else random_name(services.catalog.names)
    services.catalog.reserve_name(name, container_id)
    try:
        container, mismatch = await _make(services, request, container_id, name)
    except BaseException:
        services.catalog.release_name(name, container_id)
        raise
    emit(services, container, "create")
    return CreateResult(
        container_id, (*warnings, *mismatch, *lacks, *own_state_warnings(services, container.record))
    )


async def _make(
    services: Services, request: CreateRequest, container_id: ContainerId, name: str
) -> tuple[Container, tuple[str, ...]]:
    """The container, and what is strange about its platform."""
    wanted = parse_platform(request.platform) if request.platform else None
    image = await services.images.resolve(request.config.image, wanted)
    choosing = services.user_maps.choosing(container_id, request.host, services.catalog)
    with services.catalog.making(container_id, image.id), choosing as id_map:
        container = await _make_from(services, request, container_id, name, image, id_map)
    return container, () if wanted else _platform_mismatch(image)


async def _make_from(
    services: Services,
    request: CreateRequest,
    container_id: ContainerId,
    name: str,
    image: Image,
    id_map: IdMap | None,
) -> Container:
    _check_platform(request.platform, request.config.image, image)
    inherited = image_run_config(image)
    config = _own_config(services, merge_config(request.config, inherited), request.host, container_id)
    config = with_address(config, request.orlop)
    host = apply_defaults(request.host, services.defaults)
    _check_launch(host, services.defaults)
    _check_shared(services, host)
    resolved = await resolve_mounts(services, config, host)
    path, args = path_and_args(config)
    record = Record(
        id=container_id,
        name=name,
        created_ns=services.clock.now_ns(),
        image_id=image.id,
        image_name=request.config.image,
        layers=tuple(image.diff_ids),
        platform=image.config.platform.os,
        path=path,
        args=args,
        config=config,
        host=host,
        networking=with_wishes(host, config, request.networking, services.endpoints.name_of),
        mounts=resolved,
        orlop=request.orlop,
        id_map=id_map,
    )
    container = Container(record, State())
    try:
        await _store(services, container, image)
    except Exception:  # not a cancellation: then the row may be there, and the next start looks
        await _undo(services, container)
        raise
    failpoints.hit("container.create.row-written")
    return container


async def _store(services: Services, container: Container, image: Image) -> None:
    key = SnapshotKey(container.id)
    write_row = services.catalog.row_writer(container)

    def owner_row(tx: Tx) -> None:
        # a removal may have been decided before the image was marked as used
        services.images.tx_require(tx, image.id, container.record.image_name)
        for mount in container.record.mounts:
            if mount.image:
                services.images.tx_require(tx, Digest(mount.image), mount.point.name)
        write_row(tx)

    container.workspace = await services.snapshots.prepare(key, image.diff_ids, owner_row=owner_row)
    services.catalog.show(container)
    with suppress(OrlopError, OSError):  # tried again at the start, where it counts
        await limit_layer(container.record.host, container.workspace)


async def _undo(services: Services, container: Container) -> None:
    """Take away what was made for a container that could not be stored."""
    with suppress(OrlopError):
        await services.snapshots.discard(SnapshotKey(container.id))
    for mount in container.record.mounts:
        if mount.is_anonymous:
            with suppress(OrlopError):
                await services.volumes.remove(mount.point.name)


def image_run_config(image: Image) -> ContainerConfig:
    """What the image says about running it."""
    document = gojson.parse(image.config.raw)
    return gojson.decode(ContainerConfig, document.get("config") or {})


def _own_config(
    services: Services, config: ContainerConfig, host: HostConfig, container_id: ContainerId
) -> ContainerConfig:
    """With the host name that the container gets: its own, or that of the network which it shares."""
    if config.hostname:
        return config
    if host.network_mode == "host" or host.uts_mode == "host":
        return replace(config, hostname=os.uname().nodename)
    if host.network_mode.startswith("container:"):
        other = services.catalog.find(host.network_mode.removeprefix("container:"))
        if other is not None:
            shared = other.record.config
            return replace(config, hostname=shared.hostname, domainname=shared.domainname)
    return replace(config, hostname=container_id[:12])


def _platform_mismatch(image: Image) -> tuple[str, ...]:
    found, host = image.config.platform, host_platform()
    if found.runs_on(host):
        return ()
    text = f"The requested image's platform ({found}) does not match the detected host platform ({host})"
    return (f"{text} and no specific platform was requested",)


def _check_platform(text: str, name: str, image: Image) -> None:
    if not text:
        return
    wanted, found = parse_platform(text), image.config.platform
    if (wanted.os, wanted.architecture) != (found.os, found.architecture):
        raise NotFound(
            f"image with reference {name[:300]} was found but does not provide the specified platform "
            f"({text[:60]})"
        )


def _check_launch(host: HostConfig, defaults: HostDefaults) -> None:
    """Find now what would otherwise only fail at the first start."""
    privileges.capabilities(host)
    privileges.sysctls(host)
    privileges.check_device_rules(host.device_cgroup_rules or ())
    parse_security(host.security_opt or (), is_privileged=host.privileged, defaults=defaults)


def _check_shared(services: Services, host: HostConfig) -> None:
    """`container:X` modes and links must name containers that exist.

    Networks are looked up at the start. Nothing here is a 404: docker CLI takes that for a missing image,
    and pulls.
    """
    for mode in (host.ipc_mode, host.pid_mode):
        if mode.startswith("container:"):
            _get_named(services, mode.removeprefix("container:"))
    for link in host.links or ():
        name = link.partition(":")[0]
        if services.catalog.find(name) is None:
            raise InvalidInput(f"could not get container for {name[:100]}: No such container: {name[:100]}")


def _get_named(services: Services, reference: str) -> Container:
    """The container that a flag names."""
    try:
        return services.catalog.get(reference)
    except NotFound as error:
        raise InvalidInput(str(error)) from error


async def resolve_mounts(
    services: Services, config: ContainerConfig, host: HostConfig
) -> tuple[MountRecord, ...]:
    """Turn wishes into mounts; volumes are created here. `--volumes-from` comes first, own wishes win."""
    wishes = mounts.collect_wishes(config, host)
    targets = {wish.target for wish in wishes if not _is_image_volume(wish)}
    resolved: dict[str, MountRecord] = {}
    for text in host.volumes_from or ():
        reference, read_only = mounts.split_volumes_from(text)
        for mount in _get_named(services, reference).record.mounts:
            if mount.point.type != "tmpfs" and mount.point.destination not in targets:
                resolved[mount.point.destination] = _inherit(mount, read_only=bool(read_only))
    for wish in wishes:
        if _is_image_volume(wish) and wish.target in resolved:
            continue
        resolved[wish.target] = await _resolve(services, wish)
    return tuple(resolved.values())


def own_state_warnings(services: Services, record: Record) -> list[str]:
    """Whoever can write our data root is root on this host: it is not given away in silence.

    Not refused: `-v /:/host` is what many tools for administrators are started with.
    """
    if record.host.privileged:
        return []
    own = os.path.realpath(services.data_root)
    points = [mount.point for mount in record.mounts if mount.point.type == "bind" and mount.point.rw]
    return [
        f"{point.source} contains the engine's data root and is writable in the container: "
        f"it can take over this host (add :ro, or :rw to say that you want it)"
        for point in points
        if "rw" not in point.mode.split(",")
        and os.path.commonpath([(source := os.path.realpath(point.source)), own]) == source
    ]


def _is_image_volume(wish: mounts.Wish) -> bool:
    return wish.kind == "volume" and not wish.source and not wish.mode


def _inherit(mount: MountRecord, *, read_only: bool) -> MountRecord:
    if not read_only or not mount.point.rw:
        return replace(mount, copy_up=False, is_anonymous=False)
    point = replace(mount.point, rw=False, mode="ro")
    options = (*(word for word in mount.options if word != "rw"), "ro")
    return replace(mount, point=point, options=options, copy_up=False, is_anonymous=False)


async def _resolve(services: Services, wish: mounts.Wish) -> MountRecord:
    match wish.kind:
        case "bind":
            return _resolve_bind(services, wish)
        case "volume":
            return await _resolve_volume(services, wish)
        case "image":
            return await _resolve_image(services, wish)
        case _:
            point = MountPoint("tmpfs", destination=wish.target, mode=wish.mode, rw=not wish.is_read_only)
            return MountRecord(point, wish.tmpfs_options)


def _resolve_bind(services: Services, wish: mounts.Wish) -> MountRecord:
    if not os.path.lexists(wish.source) and not wish.create_source:
        raise InvalidInput(
            f'invalid mount config for type "bind": bind source path does not exist: {wish.source[:300]}'
        )
    propagation = wish.propagation or "rprivate"
    holds_us = os.path.commonpath([wish.source, services.data_root]) == wish.source
    if holds_us and propagation in ("rprivate", "private"):
        propagation = "rslave"  # a layer unmounted by us must not stay busy in the container
    words = ["rbind" if wish.is_recursive else "bind", propagation]
    if wish.is_read_only:
        words.append("ro" if wish.is_read_only_recursive else "ro-top")
    point = MountPoint(
        "bind",
        source=wish.source,
        destination=wish.target,
        mode=wish.mode,
        rw=not wish.is_read_only,
        propagation=propagation,
    )
    return MountRecord(point, tuple(words), create_source=wish.create_source)


async def _resolve_volume(services: Services, wish: mounts.Wish) -> MountRecord:
    if wish.driver != "local":
        driver = wish.driver[:100]
        raise InvalidInput(f'error looking up volume plugin {driver}: plugin "{driver}" not found')
    volume = await services.volumes.ensure(wish.source, wish.labels, wish.driver_options)
    words = ("rbind", "rprivate", *(("ro",) if wish.is_read_only else ()))
    point = MountPoint(
        "volume",
        name=volume.name,
        source=services.volumes.path(volume.name),
        destination=wish.target,
        driver=volume.driver,
        mode=wish.mode,
        rw=not wish.is_read_only,
    )
    return MountRecord(point, words, copy_up=wish.copy_up, is_anonymous=not wish.source, subpath=wish.subpath)


async def _resolve_image(services: Services, wish: mounts.Wish) -> MountRecord:
    """By id from here on: the name may mean another image at the next start.

    A missing one is no 404: docker CLI would pull the container's image and ask again.
    """
    try:
        image = await services.images.resolve(wish.source)
    except NotFound as error:
        raise InvalidInput(str(error), hint=f"docker pull {wish.source[:200]}") from error
    point = MountPoint("image", name=wish.source, source=image.id, destination=wish.target, rw=False)
    return MountRecord(point, ("rbind", "rprivate", "ro"), subpath=wish.subpath, image=image.id)
