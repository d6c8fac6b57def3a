"""A store with layers and snapshots, in a mount namespace of the test process."""

import os

import pytest

from orlop.base import failpoints
from orlop.base.clock import ManualClock
from orlop.kernel.filesystems import mount_table
from orlop.kernel.mount import MNT_DETACH, umount2
from orlop.procs.workers import InlineWorkers
from orlop.store import layerjobs, treejobs
from orlop.store.db import Database
from orlop.store.layers import LayerStore
from orlop.store.leases import Leases
from orlop.store.mounts import choose_mounts
from orlop.store.snapshots import Snapshots


class Store:
    def __init__(self, root, way="file"):
        self.root = root / "data"
        self.run = root / "run"
        self.root.mkdir(exist_ok=True)
        self.run.mkdir(exist_ok=True)
        self.way = way
        self.clock = ManualClock()
        self.workers = InlineWorkers(layerjobs.JOBS | treejobs.JOBS)
        self.open()

    def open(self):
        self.db = Database.open(str(self.root / "state.db"))
        self.leases = Leases(self.db, self.clock, boot_id="boot-1")
        self.mounts = choose_mounts(str(self.root), str(self.run), self.workers, self.way)
        self.layers = LayerStore(str(self.root), self.db, self.workers, self.mounts, self.clock)
        self.snapshots = Snapshots(
            str(self.root), str(self.run), self.db, self.layers, self.workers, self.clock
        )

    def reopen(self):
        self.db.close()
        self.open()

    async def add(self, data, lease=None, expected=None):
        lease = lease or await self.leases.create("test")
        async with self.layers.writer(lease) as writer:
            await writer.write(data)
            return await writer.commit(expected)


def unmount_below(path):
    prefix = os.fsencode(str(path)) + b"/"
    for entry in reversed(mount_table()):
        if entry.target.startswith(prefix):
            umount2(entry.target, MNT_DETACH)


@pytest.fixture
def make_store(tmp_path):
    made = []

    def make(way="file"):
        made.append(Store(tmp_path, way))
        return made[-1]

    yield make
    failpoints.configure("")
    for store in made:
        store.db.close()
    unmount_below(tmp_path)


@pytest.fixture
def store(make_store):
    return make_store()
