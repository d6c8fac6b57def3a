"""Wiring: the one place that chooses implementations and gives them to one another.

Pure construction in dependency order; `Plant` owns what has to be closed. Whatever is slow (the
zygote's start, opening the database) is begun before it is needed.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import resource
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from orlop import daemon_networks
from orlop.aio.scope import Background
from orlop.api.versions import MAX_VERSION, MIN_VERSION, version_text
from orlop.base.clock import SystemClock
from orlop.build.cache import BuildCache
from orlop.build.runner import BuildTools
from orlop.daemon_flags import Settings
from orlop.daemon_metrics import Facts as MetricFacts
from orlop.daemon_metrics import MetricsServer
from orlop.daemon_registry import open_registry, proxy_texts
from orlop.daemon_sockets import RoleServers
from orlop.engine import volume_mounts
from orlop.engine.apisockets import ApiSockets
from orlop.engine.auth import AuthConfig
from orlop.engine.build_cache import BuildCacheService
from orlop.engine.build_executor import RuntimeExecutor
from orlop.engine.build_run import BuildServices
from orlop.engine.builds import Builds
from orlop.engine.catalog import Catalog
from orlop.engine.changes import apply_changes
from orlop.engine.containers import Containers
from orlop.engine.engine import Engine
from orlop.engine.events import EventBus
from orlop.engine.execs import Execs
from orlop.engine.health import HealthChecks
from orlop.engine.health_actions import HealthActions
from orlop.engine.hostconfig import HostDefaults, default_pids_limit
from orlop.engine.hostfacts import HostFacts, read_host_facts, read_pid_max
from orlop.engine.image_budget import ImageBudget
from orlop.engine.image_insight import ImageInsight
from orlop.engine.image_mounts import ImageMounts
from orlop.engine.image_transfers import ImageTransfers
from orlop.engine.images import ImageExtensions, Images
from orlop.engine.model import Container
from orlop.engine.ooms import OomEvents
from orlop.engine.reconcile import Reconciler
from orlop.engine.removal import Remover
from orlop.engine.repairs import Repairs
from orlop.engine.running import Hooks, Runner
from orlop.engine.runtimes import find_runtimes
from orlop.engine.securityopts import ensure_apparmor_profile, read_seccomp_profile
from orlop.engine.services import Services
from orlop.engine.stats_history import StatsHistory
from orlop.engine.stopping import Stopper
from orlop.engine.summaries import ListOptions
from orlop.engine.system import System, SystemSettings, SystemSources, driver_status
from orlop.engine.userns import UserMaps, read_settings
from orlop.engine.volume_copies import VolumeCopies
from orlop.engine.volumes import Volumes
from orlop.images.budget import parse_budget
from orlop.images.removal import ImageUser
from orlop.images.store import ImageStore
from orlop.kernel.filesystems import filesystem_of, mount_table
from orlop.oci.digest import Digest
from orlop.oci.reference import DEFAULT_DOMAIN
from orlop.procs.workers import ZygoteWorkers
from orlop.procs.zygote import Zygote
from orlop.registry.client import Registry
from orlop.runtime.service import SupervisedRuntime
from orlop.store.blobs import BlobStore
from orlop.store.collect import Collector
from orlop.store.db import DATABASE_NAME, Database
from orlop.store.layers import LayerStore
from orlop.store.leases import Leases, read_boot_id
from orlop.store.mounts import choose_mounts
from orlop.store.snapshots import Snapshots
from orlop.transfer.pull import Puller
from orlop.transfer.push import Pusher

__all__ = ["Plant", "build_plant"]

_FILES, _MAX_FILES = 1024, 524_288  # soft, hard: more than 1024 breaks select(2) and slows old programs


@dataclass(frozen=True, slots=True)
class Plant:
    """A running engine and what is behind it."""

    engine: Engine
    settings: Settings
    services: Services
    runner: Runner
    stopper: Stopper
    reconciler: Reconciler
    collector: Collector
    zygote: Zygote
    runtime: SupervisedRuntime
    db: Database
    closers: tuple[Any, ...] = ()
    metrics: MetricsServer | None = None

    async def recover(self) -> None:
        """Bring rows and machine together; before the sockets are opened."""
        await self.services.catalog.load()
        await self.services.volumes.load()
        await daemon_networks.networks_of(self.services).load()
        await self.reconciler.run()
        await daemon_networks.recover(self.services)
        await self.engine.builds.recover()

    def tidy(self) -> None:
        """Begin to forget what a crash left; nobody waits for it."""
        self.services.later(self._collect(), "tidy")
        self.services.later(self.engine.history.run(), "stats history")
        self.services.later(self.engine.budget.watch(), "image budget")
        self.services.later(self.engine.networks.watch(), "firewall watch")

    async def _collect(self) -> None:
        await self.collector.recover()

    async def close(self) -> None:
        """Let go of everything; containers go on."""
        if self.metrics is not None:
            await self.metrics.aclose()
        await self.services.catalog.flush()
        await self.services.background.close()
        for closer in self.closers:
            await closer()
        await self.services.snapshots.close()
        await self.runtime.aclose()
        await self.zygote.aclose()
        self.db.close()


async def build_plant(settings: Settings, starting: asyncio.Task[Zygote], outside: int) -> Plant:
    """Construct the engine; nothing is recovered yet.

    Args:
        settings: of the process.
        starting: the zygote, which takes as long to import everything as we do.
        outside: the mount namespace that the engine was started in.
    """
    db = Database.open(os.path.join(settings.data_root, DATABASE_NAME))
    facts = read_host_facts()
    zygote = await starting
    store = _open_store(settings, db, zygote, SystemClock())
    runtime = SupervisedRuntime(zygote)
    services = _services(settings, store, runtime, _defaults(settings, facts))
    metrics = MetricsServer(settings.metrics_address) if settings.metrics_address else None
    hooks = Hooks()
    runner = Runner(services, hooks)
    stopper = Stopper(services, runner)
    remover = Remover(services, runner, stopper)
    execs = Execs(services)
    _set_hooks(hooks, services, stopper, remover, execs, metrics)
    containers = Containers(services, runner, stopper, remover)
    images, puller, registry = _images(settings, services, store, outside)
    builds = _builds(services, store, images.transfers)
    engine_id = _engine_id(settings.data_root)
    if metrics is not None:
        metrics.observe(services, MetricFacts.of(facts, engine_id))
    engine = Engine(
        containers=containers,
        execs=execs,
        volumes=services.volumes,
        volume_copies=VolumeCopies(services),
        images=images,
        budget=_budget(settings, services, store, images),
        repairs=Repairs(settings.data_root, store.images, store.blobs, store.layers, store.leases, registry),
        builds=builds,
        networks=daemon_networks.networks_of(services),
        connections=daemon_networks.connections(services),
        system=_system(
            settings, facts, engine_id, containers, images, registry, services, builds, store.layers
        ),
        events=services.events,
        history=StatsHistory(services, settings.stats_interval_s),
    )
    role_servers = RoleServers(engine)
    role_servers.serve(services.api_sockets)
    return Plant(
        engine,
        settings,
        services,
        runner,
        stopper,
        Reconciler(services, runner, remover),
        store.collector,
        zygote,
        runtime,
        db,
        (puller.close, role_servers.aclose),
        metrics,
    )


def _set_hooks(
    hooks: Hooks,
    services: Services,
    stopper: Stopper,
    remover: Remover,
    execs: Execs,
    metrics: MetricsServer | None,
) -> None:
    """What happens at a start, an adoption and an end, in this order."""
    health = HealthChecks(services, HealthActions(services, stopper).failing)
    health.on_probe = metrics.meters.probed if metrics is not None else None
    ooms, sockets = OomEvents(services), services.api_sockets
    hooks.remove = remover.auto_remove
    daemon_networks.add_hooks(hooks, services)
    hooks.on_start += [health.started, ooms.started]
    hooks.on_adopt += [health.adopted, ooms.adopted]
    hooks.on_adopt.append(lambda item: services.later(sockets.reopen(item), "API socket"))
    hooks.on_exit += [health.ended, execs.container_ended]
    hooks.on_removed.append(execs.container_removed)
    hooks.on_exit.append(lambda item: services.later(sockets.ended(item), "API socket"))
    hooks.on_exit.append(
        lambda item: services.later(volume_mounts.release(services, item), "unmount volumes")
    )


@dataclass(frozen=True, slots=True)
class _Store:
    """What keeps bytes and rows."""

    db: Database
    workers: ZygoteWorkers
    leases: Leases
    blobs: BlobStore
    layers: LayerStore
    snapshots: Snapshots
    images: ImageStore
    cache: BuildCache
    collector: Collector
    clock: SystemClock


def _open_store(settings: Settings, db: Database, zygote: Zygote, clock: SystemClock) -> _Store:
    workers = ZygoteWorkers(zygote)
    leases = Leases(db, clock)
    blobs = BlobStore(settings.data_root, db, clock)
    mounts = choose_mounts(settings.data_root, settings.exec_root, workers)
    layers = LayerStore(settings.data_root, db, workers, mounts, clock)
    snapshots = Snapshots(settings.data_root, settings.exec_root, db, layers, workers, clock)
    images = ImageStore(db, blobs, layers, clock)
    cache = BuildCache(db, clock)
    collector = Collector(db, leases, [blobs, layers, snapshots, images, cache])
    return _Store(db, workers, leases, blobs, layers, snapshots, images, cache, collector, clock)


def _services(
    settings: Settings, store: _Store, runtime: SupervisedRuntime, defaults: HostDefaults
) -> Services:
    events = EventBus(store.clock)
    background = Background("engine")
    catalog = Catalog(store.db, background)
    volumes = Volumes(
        db=store.db,
        workers=store.workers,
        events=events,
        clock=store.clock,
        root=os.path.join(settings.data_root, "volumes"),
        users=lambda name: _volume_users(catalog, name),
    )
    return Services(
        catalog=catalog,
        runtime=runtime,
        snapshots=store.snapshots,
        images=store.images,
        volumes=volumes,
        events=events,
        workers=store.workers,
        leases=store.leases,
        background=background,
        clock=store.clock,
        defaults=defaults,
        data_root=settings.data_root,
        exec_root=settings.exec_root,
        boot_id=read_boot_id(),
        apply_changes=apply_changes,
        user_maps=UserMaps(
            read_settings(settings.userns_mode, settings.userns_pool, settings.userns_remap),
        ),
        api_sockets=ApiSockets(os.path.join(settings.exec_root, "api")),
        endpoints=daemon_networks.open_endpoints(
            settings, _engine_id(settings.data_root), store.db, catalog, events, store.clock, background
        ),
    )


def _images(
    settings: Settings, services: Services, store: _Store, outside: int
) -> tuple[Images, Puller, Registry]:
    registry = open_registry(settings, os.environ, store.clock)
    parts = (registry, store.images, store.blobs, store.layers, store.leases)
    puller = Puller(*parts, concurrency=settings.max_downloads)
    pusher = Pusher(*parts, concurrency=settings.max_uploads)
    images = Images(
        store.images,
        store.layers,
        store.leases,
        store.collector,
        events=services.events,
        users=lambda: _image_users(services.catalog),
        apply_changes=apply_changes,
        clock=store.clock,
        transfers=ImageTransfers(puller, pusher, registry, services.events),
        extensions=ImageExtensions(
            ImageInsight(store.images, store.layers, store.leases),
            ImageMounts(store.images, store.layers, store.leases, store.workers, settings.exec_root, outside),
        ),
    )
    return images, puller, registry


def _budget(settings: Settings, services: Services, store: _Store, images: Images) -> ImageBudget:
    return ImageBudget(
        store.images,
        store.layers,
        store.cache,
        images,
        users=lambda: _image_users(services.catalog),
        clock=store.clock,
        budget=parse_budget(settings.image_gc),
    )


def _builds(services: Services, store: _Store, transfers: ImageTransfers) -> Builds:
    executor = RuntimeExecutor(
        services.runtime,
        services.snapshots,
        store.layers,
        defaults=services.defaults,
        background=services.background,
        exec_root=services.exec_root,
        endpoints=services.endpoints,
    )
    tools = BuildTools(
        store.cache,
        store.layers,
        services.snapshots,
        services.workers,
        executor,
        services.clock,
        services.data_root,
    )
    listing = BuildCacheService(
        store.cache, services.images, store.collector, services.events, services.clock, services.data_root
    )
    shared = BuildServices(
        tools, services.images, transfers, services.leases, services.events, services.background, listing
    )
    return Builds(shared, cache=listing, executor=executor)


def _defaults(settings: Settings, facts: HostFacts) -> HostDefaults:
    return HostDefaults(
        cgroupns_mode=settings.cgroupns_mode,
        has_init=settings.has_init,
        log_driver=settings.log_driver,
        log_options=tuple(settings.log_options.items()),
        ulimits=(*_own_ulimits(), *settings.ulimits),
        cgroup_parent=settings.cgroup_parent,
        dns=settings.dns,
        dns_options=settings.dns_options,
        dns_search=settings.dns_search,
        no_new_privileges=settings.no_new_privileges,
        default_security=settings.default_security,
        has_seccomp=settings.seccomp_profile != "unconfined",
        seccomp_profile=read_seccomp_profile(settings.seccomp_profile),
        apparmor_profile=ensure_apparmor_profile(),
        shm_size_bytes=settings.shm_size_bytes,
        processors=facts.cpu_count,
        support=facts.support,
        runtimes=find_runtimes(settings.runtimes, settings.default_runtime),
        cdi_spec_dirs=settings.cdi_spec_dirs,
        pids_limit=default_pids_limit(read_pid_max()),
    )


def _own_ulimits() -> tuple[tuple[str, int, int], ...]:
    """What containers get that ask for nothing: decided here, not by whatever launched the engine."""
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    _, core = resource.getrlimit(resource.RLIMIT_CORE)
    limit = _MAX_FILES if files == resource.RLIM_INFINITY else min(files, _MAX_FILES)
    return (("nofile", min(_FILES, limit), limit), ("core", 0, core))


def _volume_users(catalog: Catalog, name: str) -> Iterable[str]:
    return [item.id for item in catalog if _has_volume(item, name)]


def _has_volume(container: Container, name: str) -> bool:
    points = (mount.point for mount in container.record.all_mounts)
    return any(point.type == "volume" and point.name == name for point in points)


def _image_users(catalog: Catalog) -> Iterable[tuple[str, ImageUser]]:
    made = [(item.record.image_id, ImageUser(item.id, item.task is not None)) for item in catalog]
    made += [
        (Digest(mount.image), ImageUser(item.id, item.task is not None))
        for item in catalog
        for mount in item.record.all_mounts
        if mount.image
    ]
    being_made = [(image, ImageUser(one, is_running=False)) for one, image in catalog.being_made.items()]
    return [*made, *(use for use in being_made if use[1].container_id not in catalog)]


def _engine_id(data_root: str) -> str:
    """A stable id of this engine: of its state directory on this machine."""
    try:
        with open("/etc/machine-id", encoding="ascii") as file:
            machine = file.read().strip()
    except OSError:  # a chroot or a minimal image: its name has to do
        machine = os.uname().nodename
    return hashlib.sha256(f"{machine}:{data_root}".encode()).hexdigest()[:36]


def _system(  # noqa: PLR0913, PLR0917 - one call, one definition
    settings: Settings,
    facts: HostFacts,
    engine_id: str,
    containers: Containers,
    images: Images,
    registry: Registry,
    services: Services,
    builds: Builds,
    layers: LayerStore,
) -> System:
    runtimes = services.defaults.runtimes
    proxies = proxy_texts(settings, os.environ).shown
    filesystem = filesystem_of(os.path.realpath(settings.data_root), mount_table())
    return System(
        facts=facts,
        settings=SystemSettings(
            engine_id=engine_id,
            data_root=settings.data_root,
            api_version=version_text(MAX_VERSION),
            min_api_version=version_text(MIN_VERSION),
            driver_status=driver_status(layers.way, filesystem),
            layer_mounts=layers.way,
            logging_driver=settings.log_driver,
            labels=settings.labels,
            insecure_registries=settings.insecure_registries,
            mirrors=settings.registry_mirrors,
            http_proxy=proxies[0],
            https_proxy=proxies[1],
            no_proxy=proxies[2],
            default_runtime=runtimes.default,
            runtimes=runtimes.shown(),
            is_debug=settings.is_debug,
            is_experimental=settings.is_experimental,
            cdi_spec_dirs=settings.cdi_spec_dirs,
            default_security=settings.default_security,
            has_user_namespaces=settings.userns_mode != "host" or bool(settings.userns_remap),
            no_new_privileges=settings.no_new_privileges,
            seccomp_profile=settings.seccomp_profile,
            has_apparmor=facts.has_apparmor,
        ),
        sources=SystemSources(
            build_cache=builds.cache.usage,
            container_counts=containers.counts,
            image_count=images.count,
            layers_size=images.layers_size,
            images=images.usage,
            containers=lambda: containers.list(ListOptions(is_all=True), with_size=True),
            volumes=services.volumes.usage_views,
            login=lambda auth: _login(registry, auth),
        ),
        events=services.events,
    )


async def _login(registry: Registry, auth: AuthConfig) -> str:
    """Check credentials against the registry they are for; an empty address is Docker Hub."""
    address = auth.serveraddress.removeprefix("https://").removeprefix("http://").partition("/")[0]
    domain = DEFAULT_DOMAIN if address in ("", "index.docker.io", "registry-1.docker.io") else address
    return await registry.login(domain, auth.credentials())
