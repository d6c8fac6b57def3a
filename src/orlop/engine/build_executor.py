"""Steps of a build as containers: no log, no name, gone when the step ends.

A step is on the engine's default network, on the host's when the build asks for it, or has just the
loopback interface. What the engine mounts (hosts, hostname, resolv.conf, /dev, /proc) is not kept:
stubs that these mounts needed are left out when the changes become a layer.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
from collections.abc import Sequence
from dataclasses import replace

from orlop.aio import offload
from orlop.aio.scope import Background
from orlop.base import failpoints, log
from orlop.base.errors import InvalidInput, OrlopError
from orlop.base.ids import LeaseId, SnapshotKey
from orlop.build.executor import CommandFailed, ExecRequest, Limits, Output
from orlop.engine import etcfiles, privileges
from orlop.engine.endpoints import Endpoints
from orlop.engine.hostconfig import HostDefaults
from orlop.engine.launch import MOUNT_STUBS
from orlop.engine.requests import HostConfig
from orlop.oci.digest import Digest
from orlop.runtime.contract import Runtime, StartFailed, Task, open_attachment
from orlop.runtime.spec import (
    AttachSpec,
    ContainerSpec,
    ExitRecord,
    LogSpec,
    MountSpec,
    ProcessSpec,
    ResourceSpec,
    RootSpec,
)
from orlop.store.layers import LayerStore
from orlop.store.snapshots import Snapshots, Workspace
from orlop.wire.stdstream import FrameDecoder

__all__ = ["RuntimeExecutor"]

_RECEIVE_BYTES = 64 << 10
_STOP_S = 10.0
_OWN_FILES = (("resolv.conf", "etc/resolv.conf"), ("hostname", "etc/hostname"), ("hosts", "etc/hosts"))


class RuntimeExecutor:
    """`build.executor.Executor` on the engine's runtime."""

    def __init__(
        self,
        runtime: Runtime,
        snapshots: Snapshots,
        layers: LayerStore,
        *,
        defaults: HostDefaults,
        background: Background,
        exec_root: str,
        endpoints: Endpoints | None = None,
    ) -> None:
        self._runtime = runtime
        self._snapshots = snapshots
        self._layers = layers
        self._defaults = defaults
        self._background = background
        self._root = os.path.join(exec_root, "builds")
        self._endpoints = endpoints or Endpoints()
        # a Dockerfile of a hundred stages is no reason to run a hundred compilers
        self._slots = asyncio.Semaphore(max(4, 2 * (os.cpu_count() or 1)))

    async def run(self, request: ExecRequest, lease: LeaseId, output: Output) -> Digest:
        """See `Executor.run`."""
        async with self._slots:
            return await self._run(request, lease, output)

    async def _run(self, request: ExecRequest, lease: LeaseId, output: Output) -> Digest:
        key = SnapshotKey(f"build-{request.key}")
        run_dir = os.path.join(self._root, request.key)
        workspace = await self._snapshots.prepare(key, request.layers, lease)
        try:
            mounts = await self._mounts(request, run_dir)
            spec = _spec(request, run_dir, workspace, mounts, self._defaults)
            if request.network == "default":
                spec = replace(spec, endpoints=await self._endpoints.lend(request.key))
            code = await self._run_process(spec, output)
            if code != 0:
                raise CommandFailed(" ".join(request.args), code)
            failpoints.hit("build.step.before-commit")
            stubs = {*MOUNT_STUBS, *(mount.target.strip("/") for mount in mounts)}
            return (await self._snapshots.commit(key, lease, stubs=stubs)).diff_id
        finally:
            self._endpoints.take_back(request.key)
            await self._clean_up(key, run_dir)

    async def recover(self) -> None:
        """Kill what an engine that is gone was building; its snapshots go with their leases."""
        for name in await offload.thread(_names, self._root):
            run_dir = os.path.join(self._root, name)
            found = await self._runtime.adopt(run_dir)
            if found is not None and not isinstance(found, ExitRecord):
                await _stop(found)
            await self._clean_up(SnapshotKey(f"build-{name}"), run_dir)

    async def _run_process(self, spec: ContainerSpec, output: Output) -> int:
        attach = AttachSpec(has_stdin=False, has_stdout=True, has_stderr=True)
        ours, theirs = open_attachment(attach)
        try:
            try:
                task = await self._runtime.start(spec, [theirs])
            except StartFailed as error:
                raise InvalidInput(error.message, hint=error.hint, exit_code=error.exit_code) from error
            try:
                await _relay(ours, output)
                record = await task.wait()
            except BaseException:
                await _stop(task)
                raise
        finally:
            ours.close()
        if record.error and record.exit_code:
            raise InvalidInput(record.error, exit_code=record.exit_code)
        return record.exit_code

    async def _mounts(self, request: ExecRequest, run_dir: str) -> list[MountSpec]:
        await offload.thread(_write_files, request, run_dir, self._endpoints.host_gateway)
        mounts = [
            MountSpec("bind", f"/{target}", os.path.join(run_dir, name), ("rbind", "rprivate"))
            for name, target in _OWN_FILES
        ]
        for overlay in request.overlays:
            if len(overlay.layers) != 1:
                raise InvalidInput(f"mounting a tree of {len(overlay.layers)} layers at {overlay.target}")
            source = await self._layers.mount(overlay.layers[0])
            mounts.append(MountSpec("bind", overlay.target, source, ("rbind", "rprivate", "ro")))
        return mounts

    async def _clean_up(self, key: SnapshotKey, run_dir: str) -> None:
        """Remove everything, to the end even when cancelled: else only the next start would find it."""
        task = self._background.spawn(self._remove(key, run_dir), name="clean-up")
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait([task])
            raise

    async def _remove(self, key: SnapshotKey, run_dir: str) -> None:
        try:
            await self._snapshots.discard(key)
        except OrlopError as error:
            log.warning("snapshot of a build step could not be removed", snapshot=key, error=error)
        await offload.thread(shutil.rmtree, run_dir, ignore_errors=True)


async def _relay(stream: socket.socket, output: Output) -> None:
    """Hand on output until the supervisor closes the stream."""
    loop = asyncio.get_running_loop()
    decoder = FrameDecoder()
    while data := await loop.sock_recv(stream, _RECEIVE_BYTES):
        for number, piece in decoder.feed(data):
            await output(number, piece)


async def _stop(task: Task) -> None:
    """Kill every process and wait for the end, whatever happens to us meanwhile."""
    try:
        await task.signal(signal.SIGKILL, all_processes=True)
    except OrlopError:
        log.debug("build step had ended already", container=task.id)
    try:
        async with asyncio.timeout(_STOP_S):
            await asyncio.shield(task.wait())
    except (TimeoutError, OrlopError) as error:
        log.error("build step does not end", container=task.id, error=repr(error))


def _write_files(request: ExecRequest, run_dir: str, gateway: str) -> None:
    for path in (os.path.dirname(run_dir), run_dir):  # makedirs leaves what lies between open
        os.makedirs(path, mode=0o700, exist_ok=path != run_dir)
    is_host = request.network == "host"
    extra = [f"{name}:{address}" for name, address in request.extra_hosts]
    hosts = etcfiles.hosts(extra, is_host_network=is_host, gateway=gateway)
    hostname = _hostname(request)
    etcfiles.write(os.path.join(run_dir, "hosts"), f"{hosts}127.0.0.1\t{hostname}\n")
    etcfiles.write(os.path.join(run_dir, "hostname"), f"{hostname}\n")
    etcfiles.write(os.path.join(run_dir, "resolv.conf"), etcfiles.resolv_conf((), (), ()))


def _hostname(request: ExecRequest) -> str:
    return request.hostname or "buildkitsandbox"  # what BuildKit gives: the same for every step


def _spec(
    request: ExecRequest,
    run_dir: str,
    workspace: Workspace,
    mounts: Sequence[MountSpec],
    defaults: HostDefaults,
) -> ContainerSpec:
    process = ProcessSpec(
        args=request.args,
        env=request.env,
        cwd=request.cwd,
        user=request.user,
        capabilities=privileges.capabilities(HostConfig()),
        rlimits={name: (soft, hard) for name, soft, hard in (*defaults.ulimits, *request.ulimits)},
    )
    return ContainerSpec(
        id=request.key,
        run_dir=run_dir,
        root=RootSpec(tuple(workspace.lowers), workspace.upper, workspace.work),
        process=process,
        log=LogSpec("none", run_dir),
        hostname=_hostname(request),
        mounts=tuple(mounts),
        network="host" if request.network == "host" else "none",
        cgroup_parent=request.cgroup_parent or defaults.cgroup_parent,
        shm_size_bytes=request.shm_size_bytes or defaults.shm_size_bytes,
        resources=_resources(request.limits, defaults),
    )


def _resources(limits: Limits, defaults: HostDefaults) -> ResourceSpec:
    return ResourceSpec(
        memory_limit_bytes=limits.memory_bytes,
        memory_swap_bytes=limits.memory_swap_bytes,
        cpu_shares=limits.cpu_shares,
        cpu_period_us=limits.cpu_period_us,
        cpu_quota_us=limits.cpu_quota_us,
        cpuset_cpus=limits.cpuset_cpus,
        cpuset_mems=limits.cpuset_mems,
        pids_limit=defaults.pids_limit,
    )


def _names(folder: str) -> list[str]:
    return os.listdir(folder) if os.path.isdir(folder) else []
