"""`docker commit`: a container's changes become a layer, its configuration an image."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from orlop.base.ids import SnapshotKey
from orlop.engine.creation import image_run_config
from orlop.engine.launch import MOUNT_STUBS
from orlop.engine.lifecycle import Status
from orlop.engine.merge import merge_env
from orlop.engine.model import Container
from orlop.engine.requests import CommitRequest, ContainerConfig
from orlop.engine.services import Services, emit
from orlop.oci.imageconfig import Healthcheck, HistoryEntry, RunConfig, derive_config
from orlop.oci.reference import Reference, parse_reference
from orlop.runtime.contract import TaskGone

__all__ = ["commit", "run_config_of"]


async def commit(services: Services, container: Container, request: CommitRequest) -> str:
    """Make an image; a running container is frozen while its changes are read, unless told not to.

    Returns:
        The image's id.
    """
    names = _names(request)
    image = await services.images.resolve(container.record.image_id)
    task = container.task
    freezes = request.is_paused and task is not None and container.status is Status.RUNNING
    async with services.leases.hold(f"commit {container.id[:12]}") as lease:
        if freezes and task is not None:
            with suppress(TaskGone):  # it has just ended: nothing writes any more
                await task.pause()
        try:
            layer = await services.snapshots.commit(SnapshotKey(container.id), lease, stubs=MOUNT_STUBS)
        finally:
            if freezes and task is not None and container.task is task:
                with suppress(TaskGone):
                    await task.unpause()
        run = run_config_of(_merged(container, request, image_run_config(image)))
        if request.changes:
            run = services.apply_changes(run, request.changes)
        now_ns = services.clock.now_ns()
        words = " ".join((container.record.path, *container.record.args))
        entry = HistoryEntry(
            created_ns=now_ns, created_by=words, author=request.author, comment=request.comment
        )
        config = derive_config(
            image.config,
            run=run,
            history=entry,
            layer=layer.diff_id,
            author=request.author or None,
            created_ns=now_ns,
        )
        made = await services.images.put(config, lease=lease, names=names, parent=image.id)
    emit(services, container, "commit", comment=request.comment)
    for name in names:
        services.events.publish("image", "tag", made.id, {"name": name.familiar})
    return made.id


def _names(request: CommitRequest) -> tuple[Reference, ...]:
    if not request.repository:
        return ()
    name = parse_reference(request.repository)
    return (name.with_tag(request.tag) if request.tag else name.with_default_tag(),)


def _merged(container: Container, request: CommitRequest, image: ContainerConfig) -> ContainerConfig:
    """The container's configuration, or the request's with the container's where it says nothing."""
    own = container.record.config
    given = request.config
    if given is None:
        return own
    return replace(
        given,
        user=given.user or own.user,
        env=merge_env(own.env or (), given.env or ()),
        cmd=given.cmd or own.cmd,
        entrypoint=given.entrypoint if given.entrypoint is not None else own.entrypoint,
        working_dir=given.working_dir or own.working_dir,
        labels={**(own.labels or {}), **(given.labels or {})},
        exposed_ports=(own.exposed_ports or frozenset()) | (given.exposed_ports or frozenset()),
        volumes=(own.volumes or frozenset()) | (given.volumes or frozenset()),
        stop_signal=given.stop_signal or own.stop_signal,
        healthcheck=given.healthcheck or own.healthcheck,
        shell=given.shell or own.shell or image.shell,
    )


def run_config_of(config: ContainerConfig) -> RunConfig:
    """The part of a container's configuration that an image keeps."""
    check = config.healthcheck
    return RunConfig(
        user=config.user,
        exposed_ports=tuple(sorted(config.exposed_ports or ())),
        env=config.env or (),
        entrypoint=config.entrypoint,
        cmd=config.cmd,
        volumes=tuple(sorted(config.volumes or ())),
        working_dir=config.working_dir,
        labels=config.labels or {},
        stop_signal=config.stop_signal,
        shell=config.shell,
        healthcheck=None
        if check is None
        else Healthcheck(
            check.test or (),
            check.interval,
            check.timeout,
            check.start_period,
            check.start_interval,
            check.retries,
        ),
        on_build=config.on_build or (),
    )
