"""Real stores in a temporary directory, with everything a transfer needs around them."""

import contextlib
import os

from orlop.images.store import ImageStore
from orlop.procs.workers import InlineWorkers
from orlop.registry.client import Registry
from orlop.registry.endpoints import RegistryOptions
from orlop.registry.retry import RetryPolicy
from orlop.store import layerjobs
from orlop.store.blobs import BlobStore
from orlop.store.db import Database
from orlop.store.layers import LayerStore
from orlop.store.leases import Leases
from orlop.store.mounts import UnpackedLayers
from orlop.transfer.pull import Puller
from orlop.transfer.push import Pusher

FAST = RetryPolicy(attempts=3, first_delay_s=0.001, max_delay_s=0.002, max_retry_after_s=0.05)


class Stores:
    def __init__(self, root, fakes):
        self.root = str(root)
        self.db = Database.open(os.path.join(self.root, "state.db"))
        workers = InlineWorkers(layerjobs.JOBS)
        self.blobs = BlobStore(self.root, self.db)
        self.layers = LayerStore(self.root, self.db, workers, UnpackedLayers(self.root, workers))
        self.leases = Leases(self.db)
        self.images = ImageStore(self.db, self.blobs, self.layers)
        self.registry = Registry(RegistryOptions(), user_agent="test", retry=FAST, stall_s=2)
        for fake in fakes:
            self.registry.note_scheme(fake.domain, "http")
        self.puller = Puller(self.registry, self.images, self.blobs, self.layers, self.leases)
        self.pusher = Pusher(self.registry, self.images, self.blobs, self.layers, self.leases)

    async def close(self):
        await self.puller.close()
        await self.layers.close()
        self.registry.close()
        self.db.close()

    def files(self, folder):
        """Names and sizes of the files below a folder of the data root."""
        top = os.path.join(self.root, folder)
        return {
            os.path.join(where, name): os.path.getsize(os.path.join(where, name))
            for where, _, names in os.walk(top)
            for name in names
        }

    def partial_bytes(self):
        return sum(size for name, size in self.files("ingest").items() if name.endswith("/data"))


@contextlib.asynccontextmanager
async def stores(root, *fakes):
    opened = Stores(root, fakes)
    try:
        yield opened
    finally:
        await opened.close()
