"""The head of a layer file and the jobs that need no root: index, verify."""

import os

import pytest

from orlop.oci.digest import digest_of
from orlop.store import layerjobs
from orlop.store.layerfile import TAR_OFFSET, LayerCorrupt, decode_head, read_head
from orlop.wire.erofsread import ErofsReader
from orlop.wire.tarheader import EntryKind, TarEntry
from orlop.wire.tarwrite import END, encode_header, padding

TAR = encode_header(TarEntry(b"a/b", EntryKind.FILE, size=3)) + b"abc" + padding(3) + END


@pytest.fixture
def layer(tmp_path):
    fd = os.open(tmp_path / "layer", os.O_CREAT | os.O_RDWR)
    os.pwrite(fd, TAR, TAR_OFFSET)
    yield fd
    os.close(fd)


def index(fd, **payload):
    return layerjobs.index({"tar_size": len(TAR), **payload}, [fd], lambda _: None)


def test_index_frames_the_tar_and_says_what_it_found(layer):
    result = index(layer, algorithm="sha256")

    head = read_head(layer, "x")
    data = os.pread(layer, head.file_size, 0)
    reader = ErofsReader(data)
    assert result["diff_id"] == head.diff_id == digest_of(TAR)
    assert result["file_bytes"] == len(data) == os.fstat(layer).st_size
    assert (result["content_bytes"], result["entry_count"], result["is_opaque"]) == (3, 1, False)
    assert data[TAR_OFFSET : TAR_OFFSET + len(TAR)] == TAR
    assert {path: inode.size for path, inode in reader.walk() if path == b"a/b"} == {b"a/b": 3}
    assert head.diff_id.endswith(reader.uuid.hex() + head.diff_id[39:])


def test_index_depends_on_nothing_but_the_tar(layer):
    index(layer, diff_id=digest_of(TAR))
    first = os.pread(layer, 1 << 20, 0)

    os.utime(layer, (1, 1))
    index(layer, algorithm="sha256")

    assert os.pread(layer, 1 << 20, 0) == first


def test_verify_finds_every_flipped_byte_of_head_tar_and_index(layer):
    index(layer, algorithm="sha256")
    whole = os.pread(layer, 1 << 20, 0)
    payload = {"diff_id": digest_of(TAR)}
    layerjobs.verify(payload, [layer], lambda _: None)

    for at in [*range(0, 300, 7), *range(1024, 1152, 5), *range(TAR_OFFSET, len(whole), 111)]:
        os.pwrite(layer, bytes([whole[at] ^ 0x10]), at)
        with pytest.raises(LayerCorrupt):
            layerjobs.verify(payload, [layer], lambda _: None)
        os.pwrite(layer, whole[at : at + 1], at)


def test_verify_wants_the_layer_asked_for(layer):
    index(layer, algorithm="sha256")

    with pytest.raises(LayerCorrupt):
        layerjobs.verify({"diff_id": digest_of(b"other")}, [layer], lambda _: None)


@pytest.mark.parametrize("length", [0, 8, 1000, TAR_OFFSET - 1])
def test_short_heads_are_corrupt(layer, length):
    index(layer, algorithm="sha256")

    with pytest.raises(LayerCorrupt):
        decode_head(os.pread(layer, length, 0), length, "x")
