"""The jobs over real layer files, without a kernel."""

import asyncio
import io
import os
import tarfile

import pytest

from orlop.base.errors import InvalidInput
from orlop.procs.workers import InlineWorkers
from orlop.store import comparejobs, layerjobs
from orlop.store.db import Database
from orlop.store.layers import LayerStore
from orlop.store.leases import Leases
from orlop.store.mounts import UnpackedLayers


def tar_of(*entries):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in entries:
            entry = tarfile.TarInfo(name)
            if content is None:
                entry.type = tarfile.DIRTYPE
                entry.mode = 0o755
            elif isinstance(content, str):
                entry.type, entry.linkname = tarfile.LNKTYPE, content
            else:
                entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content) if isinstance(content, bytes) else None)
    return buffer.getvalue()


@pytest.fixture
def ask(tmp_path):
    """Store tars as layers and run a job over them."""
    db = Database.open(str(tmp_path / "state.db"))
    workers = InlineWorkers(layerjobs.JOBS | comparejobs.JOBS)
    layers = LayerStore(str(tmp_path), db, workers, UnpackedLayers(str(tmp_path), workers))
    leases = Leases(db, boot_id="boot")

    async def store(data, lease):
        async with layers.writer(lease) as writer:
            await writer.write(data)
            return (await writer.commit()).diff_id

    async def main(job, stacks):
        async with leases.hold("test") as lease:
            payload = {key: [await store(data, lease) for data in tars] for key, tars in stacks.items()}
            return await layers.inspect(job, payload)

    yield lambda job, **stacks: asyncio.run(main(job, stacks))
    db.close()


def test_whiteouts_and_hard_links_are_understood(ask):
    below = tar_of(("d", None), ("d/a", b"12345"), ("d/b", "d/a"))
    above = tar_of(("d/.wh.a", b""), ("new", b"x"))

    found = ask("layers.inventory", layers=[below, above])

    first, second = found["layers"]
    assert (first["added"], first["size_bytes"], first["hidden_bytes"]) == (3, 5, 0)  # d/b shows it still
    assert sorted(map(tuple, second["changes"])) == [("A", "/new", 1), ("D", "/d/a", 0)]
    last = ask("layers.inventory", layers=[below, above, tar_of((".wh.d", b""))])
    assert [layer["hidden_bytes"] for layer in last["layers"]] == [5, 0, 0]


def test_equal_bytes_in_other_layers_do_not_differ(ask):
    one = tar_of(("a", b"same"), ("b", b"left"))
    other = tar_of(("b", b"then"), ("a", b"same"))

    found = ask("layers.difference", old=[one], new=[other])

    assert found["changes"] == [["C", "/b", 0]]


def test_names_that_are_no_text_are_carried(ask):
    found = ask("layers.inventory", layers=[tar_of((os.fsdecode(b"caf\xe9"), b"1"))])

    assert found["layers"][0]["changes"] == [["A", "/caf\udce9", 1]]


def test_long_lists_end_and_counts_go_on(ask, monkeypatch):
    monkeypatch.setattr(comparejobs, "_MAX_CHANGES", 2)

    found = ask("layers.difference", old=[tar_of()], new=[tar_of(*((str(n), b"") for n in range(5)))])

    assert (len(found["changes"]), found["is_cut"], found["counts"]["A"]) == (2, True, 5)


def test_too_many_entries_are_refused(ask, monkeypatch):
    monkeypatch.setattr(comparejobs, "_MAX_ENTRIES", 4)

    with pytest.raises(InvalidInput, match="too many to compare"):
        ask("layers.inventory", layers=[tar_of(*((str(n), b"") for n in range(5)))])
