"""An engine's containers without a kernel: a runtime whose programs end when the test says so."""

import asyncio
import contextlib
import os

from orlop.aio.scope import Background
from orlop.base.clock import ManualClock
from orlop.engine.catalog import Catalog
from orlop.engine.containers import Containers
from orlop.engine.events import EventBus
from orlop.engine.execs import Execs
from orlop.engine.health import HealthChecks
from orlop.engine.health_actions import HealthActions
from orlop.engine.hostconfig import HostDefaults
from orlop.engine.reconcile import Reconciler
from orlop.engine.removal import Remover
from orlop.engine.requests import ContainerConfig, CreateRequest, HostConfig
from orlop.engine.running import Hooks, Runner
from orlop.engine.services import Services
from orlop.engine.stopping import Stopper
from orlop.engine.volumes import Volumes
from orlop.images.model import Image, ImageNotFound
from orlop.oci.imageconfig import parse_image_config
from orlop.procs.workers import InlineWorkers
from orlop.runtime.contract import StartFailed, TaskGone
from orlop.runtime.spec import ExitRecord
from orlop.store import treejobs
from orlop.store.db import Database
from orlop.store.leases import Leases
from orlop.store.snapshots import SnapshotNotFound, Workspace

CONFIG = (
    b'{"architecture":"amd64","os":"linux","config":{"Cmd":["sh"],"Env":["PATH=/bin"]},'
    b'"rootfs":{"type":"layers","diff_ids":[]},"history":[]}'
)


JOBS = {
    "trees.empty": treejobs.empty,
    "trees.usage": treejobs.usage,
    "files.copy-up": lambda payload, fds, report: {"copied": False},
}


class FakeTask:
    """A program that runs until `end`; ignores TERM when told to."""

    def __init__(self, spec, clock, *, obeys=True):
        self.id = spec.id
        self.pid = 4242
        self.started_at_ns = clock.now_ns()
        self.signals = []
        self.is_frozen = False
        self._clock = clock
        self._obeys = obeys
        self._exit = asyncio.get_running_loop().create_future()

    def end(self, code=0, **facts):
        if not self._exit.done():
            self._exit.set_result(ExitRecord(code, self._clock.now_ns() + 1, **facts))

    async def wait(self):
        return await asyncio.shield(self._exit)

    async def signal(self, number, *, all_processes=False):
        if self._exit.done():
            raise TaskGone("gone")
        self.signals.append(number)
        if number == 9 or self._obeys:
            self.end(128 + number)

    async def put_down(self):
        self.end(137)

    async def wait_oom(self, seen):
        await asyncio.shield(self._exit)
        raise TaskGone("gone")

    async def pause(self):
        self.is_frozen = True

    async def unpause(self):
        self.is_frozen = False

    async def clear_log(self):
        self.log_cleared = True

    async def is_paused(self):
        return self.is_frozen

    async def update(self, resources):
        self.resources = resources


class FakeRuntime:
    """Starts `FakeTask`s; `fails` makes the next start fail; `found` is what `adopt` finds, by id."""

    def __init__(self, clock):
        self.clock = clock
        self.tasks = []
        self.specs = []
        self.fails = None
        self.found = {}
        self.obeys = True

    async def start(self, spec, attachments=()):
        for attachment in attachments:
            attachment.socket.close()
        if self.fails:
            raise StartFailed(self.fails, exit_code=127, step="exec")
        task = FakeTask(spec, self.clock, obeys=self.obeys)
        self.tasks.append(task)
        self.specs.append(spec)
        return task

    async def adopt(self, run_dir):
        return self.found.get(os.path.basename(run_dir))


class FakeSnapshots:
    """Keys in memory."""

    def __init__(self, db):
        self.db = db
        self.stored = {}

    async def prepare(self, key, layers, lease=None, *, owner_row=None):
        self.stored[key] = tuple(layers)
        if owner_row is not None:
            await self.db.write(owner_row)
        return await self.open(key)

    async def open(self, key):
        if key not in self.stored:
            raise SnapshotNotFound(key)
        return Workspace(key, ("/lower",), "/upper", "/work")

    async def discard(self, key):
        self.stored.pop(key, None)

    async def usage(self, key):
        return 7

    async def all_keys(self):
        return list(self.stored)


class FakeImages:
    """One image, `busybox`."""

    def __init__(self):
        config = parse_image_config(CONFIG)
        self.image = Image(config.digest, config, None, (), (), (), 0, 0, 0)
        self.is_gone = False

    async def resolve(self, name, platform=None):
        if name not in ("busybox", "busybox:latest", self.image.id):
            raise ImageNotFound(f"No such image: {name}")
        return self.image

    def tx_require(self, tx, image_id, asked):
        if self.is_gone:
            raise ImageNotFound(f"No such image: {asked}")

    async def find_ids(self, names):
        return {name: self.image.id for name in names if name in ("busybox", "busybox:latest", self.image.id)}


class Plant:
    """The wiring of the composition root, with fakes below."""

    def __init__(self, root, db=None):
        self.root = str(root)
        self.clock = ManualClock()
        self.db = db or Database.open(os.path.join(self.root, "state.db"))
        self.background = Background("test")
        self.runtime = FakeRuntime(self.clock)
        self.snapshots = FakeSnapshots(self.db)
        self.events = EventBus(self.clock)
        self.catalog = Catalog(self.db, self.background)
        workers = InlineWorkers(JOBS)
        self.volumes = Volumes(
            db=self.db,
            workers=workers,
            events=self.events,
            clock=self.clock,
            root=os.path.join(self.root, "volumes"),
            users=lambda name: [
                item.id for item in self.catalog if any(m.point.name == name for m in item.record.all_mounts)
            ],
        )
        self.services = Services(
            catalog=self.catalog,
            runtime=self.runtime,
            snapshots=self.snapshots,
            images=FakeImages(),
            volumes=self.volumes,
            events=self.events,
            workers=workers,
            leases=Leases(self.db, self.clock, "boot"),
            background=self.background,
            clock=self.clock,
            defaults=HostDefaults(processors=2),
            data_root=self.root,
            exec_root=os.path.join(self.root, "run"),
            boot_id="boot",
            apply_changes=lambda run, _: run,
        )
        hooks = Hooks()
        self.runner = Runner(self.services, hooks)
        self.stopper = Stopper(self.services, self.runner)
        self.remover = Remover(self.services, self.runner, self.stopper)
        self.execs = Execs(self.services)
        health = HealthChecks(self.services, HealthActions(self.services, self.stopper).failing)
        hooks.remove = self.remover.auto_remove
        hooks.on_start.append(health.started)
        hooks.on_adopt.append(health.adopted)
        hooks.on_exit.append(health.ended)
        self.containers = Containers(self.services, self.runner, self.stopper, self.remover)
        self.reconciler = Reconciler(self.services, self.runner, self.remover)
        self.subscription = self.events.subscribe()

    async def create(self, name="web", host=None, **config):
        """A container of busybox; its id."""
        given = ContainerConfig(image="busybox", **config)
        host = host or HostConfig(network_mode="none")
        return (await self.containers.create(CreateRequest(given, host, name=name))).id

    async def run(self, name="web", host=None, **config):
        """A started one: its entry and task."""
        container_id = await self.create(name, host, **config)
        await self.containers.start(container_id)
        return self.containers.get(container_id), self.runtime.tasks[-1]

    def actions(self):
        """What was published so far."""
        out = []
        while self.subscription._queue:
            out.append(self.subscription._queue.popleft().action)
        return out

    async def until(self, type_, action):
        """Wait for an event."""
        async for event in self.subscription:
            if (event.type, event.action) == (type_, action):
                return event
        raise AssertionError("the events ended")

    async def settle(self):
        """Let everything that can run, run."""
        for _ in range(200):
            await asyncio.sleep(0)
        await self.catalog.flush()

    async def close(self, *, keeps_database=False):
        await self.catalog.flush()
        await self.background.close()
        if not keeps_database:
            self.db.close()


@contextlib.asynccontextmanager
async def plant(root):
    made = Plant(root)
    try:
        await made.catalog.load()
        await made.volumes.load()
        yield made
    finally:
        await made.close()


def scenario(function):
    """Run a coroutine test with a plant of its own."""

    def test(tmp_path):
        async def run():
            async with plant(tmp_path) as made:
                await asyncio.wait_for(function(made), 20)

        asyncio.run(run())

    test.__name__ = function.__name__
    return test
