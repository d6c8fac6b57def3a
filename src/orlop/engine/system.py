"""The engine about itself: info, version, disk usage, login.

Facts of the host are read once; counts and sizes come from the nouns through callables that the
composition root passes in, so that this module knows none of them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orlop.aio import offload
from orlop.base.clock import Clock, SystemClock, format_rfc3339_nano
from orlop.base.version import VERSION
from orlop.engine import cdi_registry
from orlop.engine.auth import AuthConfig
from orlop.engine.doctor import Diagnosis, diagnose, read_facts
from orlop.engine.events import EventBus
from orlop.engine.hostfacts import HostFacts, is_forwarding
from orlop.engine.support_warnings import support_warnings
from orlop.engine.system_views import (
    AuthResult,
    Component,
    DiscoveredDevice,
    DiskUsage,
    IndexConfig,
    PlatformName,
    RegistryConfig,
    RuntimeInfo,
    SystemInfo,
    VersionInfo,
)

__all__ = ["ContainerCounts", "System", "SystemSettings", "SystemSources", "driver_status"]

HUB = "https://index.docker.io/v1/"
_LAYERS_SEEN = {
    "file": "EROFS, straight from files",
    "loop": "EROFS, through loop devices",
    "unpacked": "directories of unpacked files",
}
USAGE_TYPES = ("container", "image", "volume", "build-cache")


@dataclass(frozen=True, slots=True)
class ContainerCounts:
    """How many containers are in which state."""

    running: int = 0
    paused: int = 0
    stopped: int = 0


@dataclass(frozen=True, slots=True)
class SystemSettings:
    """What the composition root decided; all of it is shown to clients."""

    engine_id: str
    data_root: str
    api_version: str
    min_api_version: str
    storage_driver: str = "erofs"
    driver_status: tuple[tuple[str, str], ...] = ()
    layer_mounts: str = ""  # file, loop or unpacked
    logging_driver: str = "json-file"
    labels: tuple[str, ...] = ()
    insecure_registries: tuple[str, ...] = ()
    mirrors: tuple[str, ...] = ()
    default_runtime: str = "orlop"
    runtimes: tuple[tuple[str, str], ...] = (("orlop", ""),)  # name and path
    is_debug: bool = False
    is_experimental: bool = False
    default_security: str = "docker"
    has_user_namespaces: bool = False  # every container, unless it says otherwise
    no_new_privileges: bool = False
    seccomp_profile: str = "builtin"
    has_apparmor: bool = False
    http_proxy: str = ""
    https_proxy: str = ""
    no_proxy: str = ""
    warnings: tuple[str, ...] = ()
    cdi_spec_dirs: tuple[str, ...] = ()


async def _none() -> Sequence[Any]:
    return ()


async def _zero() -> int:
    return 0


async def _refuse_login(_auth: AuthConfig) -> str:
    raise NotImplementedError("login is not wired")


@dataclass(frozen=True, slots=True)
class SystemSources:
    """Where counts, sizes and lists come from; every list is made of the noun's own summaries.

    `login` checks credentials against their registry and returns an identity token or "".
    """

    container_counts: Callable[[], ContainerCounts]
    image_count: Callable[[], Awaitable[int]]
    layers_size: Callable[[], Awaitable[int]] = _zero
    images: Callable[[], Awaitable[Sequence[Any]]] = _none
    containers: Callable[[], Awaitable[Sequence[Any]]] = _none
    volumes: Callable[[], Awaitable[Sequence[Any]]] = _none
    build_cache: Callable[[], Awaitable[Sequence[Any]]] = _none
    login: Callable[[AuthConfig], Awaitable[str]] = _refuse_login


def driver_status(way: str, filesystem: str) -> tuple[tuple[str, str], ...]:
    """Rows below "Storage Driver".

    Args:
        way: how layers are seen, see `store.mounts.LayerMounts.name`.
        filesystem: what the data root lies on; "" = unknown.
    """
    return ("Layers", _LAYERS_SEEN.get(way, way)), ("Backing Filesystem", filesystem or "unknown")


class System:
    """One per engine."""

    def __init__(
        self,
        *,
        facts: HostFacts,
        settings: SystemSettings,
        sources: SystemSources,
        events: EventBus,
        clock: Clock | None = None,
    ) -> None:
        self._facts = facts
        self._settings = settings
        self._sources = sources
        self._events = events
        self._clock = clock or SystemClock()
        self._lasting = self._lasting_info()

    async def info(self) -> SystemInfo:
        """Everything that `docker info` prints about the server."""
        counts = self._sources.container_counts()
        return replace(
            self._lasting,
            containers=counts.running + counts.paused + counts.stopped,
            containers_running=counts.running,
            containers_paused=counts.paused,
            containers_stopped=counts.stopped,
            images=await self._sources.image_count(),
            ipv4_forwarding=is_forwarding(),
            n_fd=len(os.listdir("/proc/self/fd")) - 1 if self._settings.is_debug else 0,
            system_time=format_rfc3339_nano(self._clock.now_ns()),
            n_events_listener=self._events.listener_count(),
            discovered_devices=await offload.thread(self._discovered_devices),
        )

    def reloaded(self, *, is_debug: bool) -> None:
        """Tell whoever listens to events that the configuration was read again."""
        attributes = {"debug": str(is_debug).lower(), "name": self._facts.hostname}
        self._events.publish("daemon", "reload", self._settings.engine_id, attributes)

    def _discovered_devices(self) -> tuple[DiscoveredDevice, ...]:
        """Spec files come and go while the engine runs."""
        found = cdi_registry.load(self._settings.cdi_spec_dirs)
        return tuple(DiscoveredDevice("cdi", name) for name in found.names())

    def _lasting_info(self) -> SystemInfo:
        """What does not change while the engine runs."""
        facts, settings = self._facts, self._settings
        has = facts.support
        return SystemInfo(
            id=settings.engine_id,
            driver=settings.storage_driver,
            driver_status=settings.driver_status,
            memory_limit=has.memory_limit,
            swap_limit=has.swap_limit,
            cpu_cfs_period=has.cpu_quota,
            cpu_cfs_quota=has.cpu_quota,
            cpu_shares=has.cpu_shares,
            cpu_set=has.cpuset,
            pids_limit=has.pids_limit,
            debug=settings.is_debug,
            oom_kill_disable=has.oom_kill_disable,
            logging_driver=settings.logging_driver,
            cgroup_version=str(facts.cgroup_version),
            kernel_version=facts.kernel_version,
            operating_system=facts.operating_system,
            os_version=facts.os_version,
            architecture=facts.machine,
            index_server_address=HUB,
            registry_config=self._registry_config(),
            ncpu=facts.cpu_count,
            mem_total=facts.memory_bytes,
            docker_root_dir=settings.data_root,
            http_proxy=settings.http_proxy,
            https_proxy=settings.https_proxy,
            no_proxy=settings.no_proxy,
            name=facts.hostname,
            labels=settings.labels,
            experimental_build=settings.is_experimental,
            server_version=VERSION,
            runtimes={name: RuntimeInfo(path) for name, path in settings.runtimes},
            default_runtime=settings.default_runtime,
            security_options=self._security_options(),
            cdi_spec_dirs=settings.cdi_spec_dirs,
            warnings=self._warnings() or None,
        )

    async def doctor(self) -> Diagnosis:
        """What this host can and cannot enforce, found now."""
        settings = self._settings
        facts = await offload.thread(
            read_facts, settings.data_root, self._facts.kernel_version, settings.layer_mounts
        )
        return diagnose(facts)

    def version(self) -> VersionInfo:
        """The engine's version; `GoVersion` names the language that runs it."""
        facts, settings = self._facts, self._settings
        python = "python" + ".".join(map(str, sys.version_info[:3]))
        details = {
            "ApiVersion": settings.api_version,
            "Arch": facts.architecture,
            "BuildTime": "",
            "Experimental": "true" if settings.is_experimental else "false",
            "GitCommit": "",
            "GoVersion": python,
            "KernelVersion": facts.kernel_version,
            "MinAPIVersion": settings.min_api_version,
            "Os": "linux",
        }
        return VersionInfo(
            platform=PlatformName("Orlop"),
            components=(Component("Engine", VERSION, details),),
            version=VERSION,
            api_version=settings.api_version,
            min_api_version=settings.min_api_version,
            git_commit="",
            go_version=python,
            os="linux",
            arch=facts.architecture,
            kernel_version=facts.kernel_version,
            experimental=settings.is_experimental,
            build_time="",
        )

    async def df(self, types: Sequence[str] = ()) -> DiskUsage:
        """Disk usage by noun; empty `types` means all of USAGE_TYPES."""
        wanted = frozenset(types or USAGE_TYPES)
        sources = self._sources
        return DiskUsage(
            layers_size=await sources.layers_size() if "image" in wanted else 0,
            images=tuple(await sources.images()) if "image" in wanted else None,
            containers=tuple(await sources.containers()) if "container" in wanted else None,
            volumes=tuple(await sources.volumes()) if "volume" in wanted else None,
            build_cache=tuple(await sources.build_cache()) if "build-cache" in wanted else None,
        )

    async def login(self, auth: AuthConfig) -> AuthResult:
        """Check credentials against their registry; nothing is stored here."""
        token = await self._sources.login(auth)
        return AuthResult("Login Succeeded", token)

    def _registry_config(self) -> RegistryConfig:
        settings = self._settings
        cidrs = tuple(name for name in settings.insecure_registries if "/" in name)
        indexes = {"docker.io": IndexConfig("docker.io", settings.mirrors, secure=True, official=True)}
        for name in settings.insecure_registries:
            if "/" not in name:
                indexes[name] = IndexConfig(name, (), secure=False, official=False)
        # dockerd reaches loopback registries without TLS, and so do we
        return RegistryConfig(
            insecure_registry_cidrs=("127.0.0.0/8", "::1/128", *cidrs),
            index_configs=indexes,
            mirrors=settings.mirrors,
        )

    def _security_options(self) -> tuple[str, ...]:
        options = list[str]()
        if self._settings.has_apparmor:
            options.append("name=apparmor")
        if self._facts.has_seccomp:
            options.append(f"name=seccomp,profile={self._settings.seccomp_profile}")
        if self._settings.no_new_privileges:
            options.append("name=no-new-privileges")
        if self._settings.default_security != "docker":
            options.append(f"name={self._settings.default_security}")
        if self._facts.cgroup_version == 2:
            options.append("name=cgroupns")
        if self._settings.has_user_namespaces:
            options.append("name=userns")
        return tuple(options)

    def _warnings(self) -> tuple[str, ...]:
        return (*support_warnings(self._facts.support), *self._settings.warnings)
