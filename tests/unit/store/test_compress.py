"""Streaming codecs: members, damage, bombs, determinism."""

import bz2
import gzip
import lzma
import random

import pytest
import zstandard

from orlop.oci import mediatype as mt
from orlop.store.compress import (
    BadCompression,
    CompressionMismatch,
    ExpansionLimit,
    auto_decompressor,
    compressor,
    decompressor,
    layer_decompressor,
    sniff,
)

DATA = random.Random(1).randbytes(200_000) + bytes(3_000_000)
PACK = {"gzip": gzip.compress, "zstd": zstandard.compress, "xz": lzma.compress, "bzip2": bz2.compress}
PACKED = {name: pack(DATA) for name, pack in PACK.items()}
SKIPPABLE = b"\x50\x2a\x4d\x18\x04\x00\x00\x00wxyz"


def inflate(data, size=1 << 16, limit=1 << 40):
    machine = auto_decompressor(limit)
    pieces = [
        piece for start in range(0, len(data), size) for piece in machine.feed(data[start : start + size])
    ]
    machine.finish()
    assert all(len(piece) <= 33 << 20 for piece in pieces)
    return b"".join(pieces)


@pytest.mark.parametrize("name", PACKED)
@pytest.mark.parametrize("size", [997, 1 << 20])
def test_all_members_are_the_content(name, size):
    assert inflate(PACKED[name] + PACKED[name], size) == DATA + DATA


@pytest.mark.parametrize("name", PACKED)
@pytest.mark.parametrize("tail", [b"garbage", b"\0", bytes(600)])
def test_bytes_behind_the_last_member_are_refused(name, tail):
    with pytest.raises(BadCompression):
        inflate(PACKED[name] + tail)


@pytest.mark.parametrize("name", PACKED)
@pytest.mark.parametrize("keep", [7, 0.5, -1])
def test_truncated_streams_are_refused(name, keep):
    data = PACKED[name]

    with pytest.raises(BadCompression):
        inflate(data[: int(len(data) * keep) if isinstance(keep, float) else keep])


@pytest.mark.parametrize("name", ["gzip", "xz", "bzip2"])
def test_a_flipped_bit_is_found(name):
    data = bytearray(PACKED[name])
    data[len(data) // 2] ^= 4

    with pytest.raises(BadCompression):
        inflate(bytes(data))


def test_zstd_skippable_frames_are_skipped_and_large_windows_refused():
    packed = PACKED["zstd"]

    assert inflate(SKIPPABLE + packed + SKIPPABLE) == DATA
    parameters = zstandard.ZstdCompressionParameters(window_log=28, compression_level=1)
    machine = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    wide = machine.compress(b"x" * 100) + machine.flush()
    with pytest.raises(BadCompression):
        inflate(wide)


@pytest.mark.parametrize("name", PACKED)
def test_expansion_stops_at_the_budget(name):
    bomb = PACK[name](bytes(20_000_000))

    with pytest.raises(ExpansionLimit):
        inflate(bomb, limit=1_000_000)


def test_a_stream_of_nothing_is_nothing_but_not_gzip():
    assert inflate(b"") == b""
    with pytest.raises(BadCompression):
        decompressor("gzip", 10).finish()
    with pytest.raises(BadCompression):
        inflate(b"abc")


@pytest.mark.parametrize(
    ("media_type", "head", "is_fine"),
    [
        (mt.OCI_LAYER_GZIP, PACKED["gzip"], True),
        (mt.OCI_LAYER, b"etc/passwd\0", True),
        (mt.OCI_LAYER_ZSTD, PACKED["zstd"], True),
        (mt.OCI_LAYER_ZSTD, SKIPPABLE, True),
        (mt.OCI_LAYER, PACKED["gzip"], False),
        (mt.OCI_LAYER_GZIP, PACKED["zstd"], False),
        (mt.OCI_LAYER_GZIP, b"plain tar", False),
        ("application/octet-stream", PACKED["gzip"], False),
    ],
)
def test_a_layer_is_compressed_as_its_media_type_says(media_type, head, is_fine):
    if is_fine:
        assert layer_decompressor(media_type, head, 10)
    else:
        with pytest.raises(CompressionMismatch):
            layer_decompressor(media_type, head, 10)


@pytest.mark.parametrize("name", ["gzip", "zstd", "none"])
def test_compression_depends_on_the_content_only(name):
    def pack(size):
        machine = compressor(name)
        pieces = [machine.feed(DATA[start : start + size]) for start in range(0, len(DATA), size)]
        return b"".join([*pieces, machine.finish()])

    packed = pack(1 << 20)

    assert packed == pack(977) == pack(len(DATA))
    assert sniff(packed) == name
    assert inflate(packed) == DATA
    if name == "gzip":
        assert gzip.decompress(packed) == DATA
        assert packed[:10] == b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
