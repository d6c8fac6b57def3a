"""An image store over layers that are files without a kernel behind them."""

import hashlib
import io
import os
import tarfile
from contextlib import asynccontextmanager
from dataclasses import dataclass

from orlop.base.clock import ManualClock
from orlop.base.errors import InvalidInput, NotFound
from orlop.images.store import ImageStore
from orlop.oci.imageconfig import HistoryEntry, RunConfig, derive_config
from orlop.oci.platform import Platform
from orlop.oci.reference import parse_reference
from orlop.procs.workers import InlineWorkers
from orlop.store import layerjobs
from orlop.store.blobs import BlobStore
from orlop.store.db import Database
from orlop.store.layers import LayerStore
from orlop.store.leases import Leases, tx_hold
from orlop.store.mounts import UnpackedLayers

AMD64 = Platform("linux", "amd64")


@dataclass
class Info:
    diff_id: str
    size_bytes: int
    content_bytes: int


class MemoryWriter:
    def __init__(self, layers, lease):
        self.layers, self.lease, self.data = layers, lease, bytearray()

    async def write(self, data):
        self.data += data

    async def commit(self, expected=None):
        return await self.layers.add(bytes(self.data), self.lease, expected)


class MemoryLayers:
    """The layer store's contract, as far as images use it."""

    def __init__(self, root, db):
        self.root, self.db, self.infos = root, db, {}

    async def add(self, data, lease, expected=None):
        try:
            with tarfile.open(fileobj=io.BytesIO(data)) as tar:
                content = sum(member.size for member in tar)
        except tarfile.TarError as error:
            raise InvalidInput(f"not a tar: {error}") from error
        diff_id = "sha256:" + hashlib.sha256(data).hexdigest()
        if expected not in (None, diff_id):
            raise InvalidInput("other diff id")
        (self.root / diff_id[7:]).write_bytes(b"head" + data)
        await self.db.write(lambda tx: tx_hold(tx, lease, "layer", diff_id))
        self.infos[diff_id] = Info(diff_id, len(data), content)
        return self.infos[diff_id]

    @asynccontextmanager
    async def writer(self, lease):
        yield MemoryWriter(self, lease)

    async def info(self, diff_id):
        if diff_id not in self.infos:
            raise NotFound(f"no layer {diff_id}")
        return self.infos[diff_id]

    async def delete(self, diff_id):
        del self.infos[diff_id]

    async def hold(self, diff_id, lease):
        if diff_id in self.infos:
            await self.db.write(lambda tx: tx_hold(tx, lease, "layer", diff_id))
        return self.infos.get(diff_id)

    def open(self, diff_id):
        return os.open(self.root / diff_id[7:], os.O_RDONLY), 4, self.infos[diff_id].size_bytes


def real_layers(root, db, clock):
    """The real layer store; nothing is mounted, so root is not needed."""
    workers = InlineWorkers(layerjobs.JOBS)
    return LayerStore(str(root), db, workers, UnpackedLayers(str(root), workers), clock)


async def add_layer(layers, data, lease):
    async with layers.writer(lease) as writer:
        await writer.write(data)
        return await writer.commit()


class World:
    def __init__(self, root, *, is_real=False):
        self.root = root
        self.clock = ManualClock()
        self.db = Database.open(str(root / "state.db"))
        self.leases = Leases(self.db, self.clock, boot_id="boot")
        self.blobs = BlobStore(str(root), self.db, self.clock)
        if is_real:
            self.layers = real_layers(root, self.db, self.clock)
        else:
            (root / "layers").mkdir()
            self.layers = MemoryLayers(root / "layers", self.db)
        self.images = ImageStore(self.db, self.blobs, self.layers, self.clock)

    async def add_image(self, text, *names, base=None, parent="", **run):
        """Store an image with a layer whose only file says `text`, on top of `base`."""
        self.clock.advance(1)
        async with self.leases.hold("test") as lease:
            layer = await add_layer(self.layers, layer_tar({"file": text.encode()}), lease)
            config = derive_config(
                base.config if base else None,
                run=RunConfig(**run),
                history=HistoryEntry(self.clock.now_ns(), f"RUN {text}"),
                layer=layer.diff_id,
                platform=AMD64,
            )
            return await self.images.put(
                config, lease=lease, names=[parse_reference(name) for name in names], parent=parent
            )


def layer_tar(files, **links):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        for name, target in links.items():
            member = tarfile.TarInfo(name.replace("__", "/"))
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    return buffer.getvalue()


async def chunks(data, size=10_000):
    for start in range(0, len(data), size):
        yield data[start : start + size]
