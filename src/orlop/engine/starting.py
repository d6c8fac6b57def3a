"""Start a container: its files, its mounts, its supervisor; and watch it until it ends.

`launch` is called with the container's lock held. The exit is handled without it: everything that
an exit changes, it changes between two awaits.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import AsyncExitStack
from dataclasses import replace

from orlop.aio import offload
from orlop.base import failpoints, trace
from orlop.base.errors import InvalidInput
from orlop.base.ids import SnapshotKey
from orlop.engine import etcfiles, volume_mounts
from orlop.engine.launch import Namespaces, Paths, build_spec
from orlop.engine.lifecycle import NotPossible, Status
from orlop.engine.model import Container, MountRecord, Record
from orlop.engine.network_names import NAME_SERVER, host_servers
from orlop.engine.network_wishes import host_lines
from orlop.engine.pending import settle
from orlop.engine.services import Services, container_paths
from orlop.engine.staging import staged
from orlop.engine.storageopts import limit_layer
from orlop.engine.userns import check_joined, joined
from orlop.runtime.contract import Task
from orlop.runtime.spec import ContainerSpec, NameServerSpec, RootSpec
from orlop.store.snapshots import Workspace

__all__ = ["ensure_base", "launch", "name_server_of", "prepare_root", "workspace_of"]


async def launch(services: Services, container: Container) -> Task:
    """Start the container's program; the caller applies the transition.

    Raises:
        StartFailed: it never ran; message and exit code as Docker's.
        OrlopError: something that it needs is missing; nothing was started.
    """
    async with AsyncExitStack() as stack:
        try:
            return await _launch(services, container, stack)
        except BaseException:
            await volume_mounts.release(services, container, has_failed=True)
            raise


async def _launch(services: Services, container: Container, stack: AsyncExitStack) -> Task:
    paths = container_paths(services, container.id)
    attachments, container.attachments = container.attachments, []
    try:
        await settle(services, container)
        await volume_mounts.acquire(services, container)
        namespaces = _namespaces(services, container)
        root = await prepare_root(services, container)
        _make_directories(paths)
        endpoints = await services.endpoints.prepare(container)
        _write_files(services, container, paths)
        record = await stack.enter_async_context(staged(services, container.record))
        spec = await offload.thread(_spec, services, record, root, paths, namespaces)
        spec = replace(spec, endpoints=endpoints, name_server=name_server_of(services, container))
        spec = services.api_sockets.mounted(spec, container)
        await services.api_sockets.open(container)
    except BaseException:
        for attachment in attachments:
            attachment.socket.close()
        await services.endpoints.release(container)
        raise
    failpoints.hit("container.start.before-supervisor")
    try:
        with trace.span("container.supervisor"):
            task = await services.runtime.start(spec, attachments)
    except BaseException:
        await services.endpoints.release(container)
        raise
    failpoints.hit("container.start.after-supervisor")
    return task


def _spec(
    services: Services, record: Record, root: RootSpec, paths: Paths, namespaces: Namespaces
) -> ContainerSpec:
    """In a thread: it looks at sources of mounts, devices and CDI files, which may lie on anything."""
    _check_binds(record.mounts)
    return build_spec(record, root, paths, namespaces, services.defaults)


async def prepare_root(services: Services, container: Container) -> RootSpec:
    """The overlay of a container, with the volumes that are still empty filled from the image."""
    workspace = await workspace_of(services, container)
    await limit_layer(container.record.host, workspace)
    base = ensure_base(services.exec_root)
    root = RootSpec((base, *workspace.lowers), workspace.upper, workspace.work)
    for mount in container.record.mounts:
        if mount.copy_up and _is_empty(mount.point.source):
            await services.workers.run(
                "files.copy-up",
                {
                    "lowers": list(root.lowers),
                    "upper": root.upper,
                    "source": mount.point.destination,
                    "target": mount.point.source,
                },
            )
    return root


def ensure_base(exec_root: str) -> str:
    """A directory that lies on top of every container's layers: what containers have and no image brings.

    Programs look for `/.dockerenv` to find out that they are in a container; the directories are for mounts.
    """
    base = os.path.join(exec_root, "base")
    marker = os.path.join(base, ".dockerenv")
    if not os.path.exists(marker):
        os.makedirs(base, mode=0o700, exist_ok=True)  # containers see the mode of their own upper directory
        for name in ("dev", "proc", "sys"):
            os.makedirs(os.path.join(base, name), mode=0o755, exist_ok=True)
        os.close(os.open(marker, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o755))
    return base


async def workspace_of(services: Services, container: Container) -> Workspace:
    """The directories of its root, layers mounted."""
    if container.workspace is None:
        container.workspace = await services.snapshots.open(SnapshotKey(container.id))
    return container.workspace


def _is_empty(path: str) -> bool:
    with os.scandir(path) as entries:
        return next(entries, None) is None


def _namespaces(services: Services, container: Container) -> Namespaces:
    host = container.record.host
    network = "host" if host.network_mode == "host" else "none"
    if host.network_mode.startswith("container:"):
        network = f"/proc/{_other_pid(services, host.network_mode, 'network')}/ns/net"
    ipc = host.ipc_mode or "private"
    if ipc.startswith("container:"):
        ipc = f"/proc/{_other_pid(services, ipc, 'IPC')}/ns/ipc"
    pid = host.pid_mode or "private"
    if pid.startswith("container:"):
        pid = f"/proc/{_other_pid(services, pid, 'PID')}/ns/pid"
    return Namespaces(network, ipc, pid, _user_namespace(services, container))


def _user_namespace(services: Services, container: Container) -> str:
    record = container.record
    for mode in {record.host.network_mode, record.host.ipc_mode, record.host.pid_mode}:
        if mode.startswith("container:"):
            check_joined(record, services.catalog.get(mode.removeprefix("container:")).record)
    mode = joined(record.host, record.id_map)
    return f"/proc/{_other_pid(services, mode, 'user')}/ns/user" if mode else ""


def _other_pid(services: Services, mode: str, word: str) -> int:
    other = services.catalog.get(mode.removeprefix("container:"))
    if other.task is None or other.status not in (Status.RUNNING, Status.PAUSED):
        raise NotPossible(f"cannot join {word} namespace of a non running container: {other.id}")
    if word == "IPC" and other.record.host.ipc_mode not in ("shareable", "host"):
        raise InvalidInput(f"non-shareable IPC of container {other.id} cannot be joined")
    return other.task.pid


def _make_directories(paths: Paths) -> None:
    os.makedirs(paths.run_dir, mode=0o700, exist_ok=True)
    os.makedirs(paths.log_dir, mode=0o700, exist_ok=True)


def _write_files(services: Services, container: Container, paths: Paths) -> None:
    record = container.record
    host, config = record.host, record.config
    if host.network_mode.startswith("container:"):
        other = container_paths(
            services, services.catalog.get(host.network_mode.removeprefix("container:")).id
        )
        for source, target in (
            (other.hosts, paths.hosts),
            (other.resolv_conf, paths.resolv_conf),
            (other.hostname, paths.hostname),
        ):
            etcfiles.link(source, target)
        return
    etcfiles.write(paths.hostname, f"{config.hostname}\n")
    etcfiles.write(
        paths.hosts,
        etcfiles.hosts(
            host.extra_hosts or (),
            is_host_network=host.network_mode == "host",
            gateway=services.endpoints.host_gateway,
            own=host_lines(record, container.network),
        ),
    )
    etcfiles.write(paths.resolv_conf, _resolv_conf(services, container))


def _resolv_conf(services: Services, container: Container) -> str:
    """The resolver's file; where the container has a name server of its own, that one alone."""
    host, defaults = container.record.host, services.defaults
    has_own = services.endpoints.has_names(container)
    return etcfiles.resolv_conf(
        (NAME_SERVER,) if has_own else host.dns or defaults.dns,
        host.dns_search or defaults.dns_search,
        host.dns_options or defaults.dns_options or (("ndots:0",) if has_own else ()),
    )


def name_server_of(services: Services, container: Container) -> NameServerSpec | None:
    """What the container's own name server knows and whom it asks; None on the default network."""
    if not services.endpoints.has_names(container):
        return None
    host, defaults = container.record.host, services.defaults
    servers = host.dns or defaults.dns or host_servers(etcfiles.resolv_conf((), (), ()))
    return services.endpoints.name_server(container, servers)


def _check_binds(mounts: Iterable[MountRecord]) -> None:
    """Sources of -v are made, all others must be there."""
    for mount in mounts:
        if mount.point.type != "bind" or os.path.lexists(mount.point.source):
            continue
        if not mount.create_source:
            raise InvalidInput(
                f'invalid mount config for type "bind": bind source path does not exist: {mount.point.source}'
            )
        try:
            os.makedirs(mount.point.source, mode=0o755, exist_ok=True)
        except OSError as error:
            raise InvalidInput(
                f"error while creating mount source path '{mount.point.source}': {error.strerror}"
            ) from error
