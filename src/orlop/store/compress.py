"""Compressed streams: chunk in, bounded chunks out, one policy for what the content is.

The content of a compressed stream is the concatenation of all its members (gzip members,
zstd frames, xz and bzip2 streams) to the last byte of the input: anything behind the last
member that is not another member is refused, so two readers never disagree. Output comes
in pieces of bounded size whatever the ratio, and stops at the caller's budget.

`feed` and `finish` do CPU work that releases the GIL: run them in a thread.

Specs: RFC 1952 (gzip), RFC 8878 (zstd), the xz file format.
"""

from __future__ import annotations

import bz2
import lzma
from collections.abc import Callable, Iterator
from typing import Any, Protocol, cast

import zstandard
from isal import isal_zlib

from orlop.base.errors import Kind, OrlopError
from orlop.oci.mediatype import LAYER_COMPRESSION

__all__ = [
    "SNIFF_BYTES",
    "BadCompression",
    "CompressionMismatch",
    "Compressor",
    "Decompressor",
    "ExpansionLimit",
    "auto_decompressor",
    "compressor",
    "decompressor",
    "layer_decompressor",
    "sniff",
]

SNIFF_BYTES = 6
_PIECE_BYTES = 1 << 20
# A zstd block of 4 bytes can stand for 128 KiB and the binding has no output bound:
# an input slice of 1 KiB keeps one call below 32 MiB. Measured: no slower than 1 MiB slices.
_ZSTD_SLICE_BYTES = 1 << 10
_ZSTD_MAX_WINDOW_BYTES = 1 << 27  # what the zstd tool accepts without being asked
_XZ_MEMORY_BYTES = 1 << 28
_GZIP_LEVEL = 2
_ZSTD_LEVEL = 3
_GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"  # no name, no time, unknown system
_MAGIC = (
    ("gzip", b"\x1f\x8b\x08"),
    ("zstd", b"\x28\xb5\x2f\xfd"),
    ("xz", b"\xfd7zXZ\x00"),
    ("bzip2", b"BZh"),
)


_DAMAGE: tuple[type[Exception], ...] = (
    cast("type[Exception]", isal_zlib.error),  # its stub names an instance
    zstandard.ZstdError,
    lzma.LZMAError,
    OSError,
    EOFError,
)


class BadCompression(OrlopError):
    """The stream is damaged, truncated, or followed by bytes that belong to nothing."""

    kind = Kind.INVALID
    code = "bad-compression"


class CompressionMismatch(OrlopError):
    """The media type says one compression, the bytes are another."""

    kind = Kind.INVALID
    code = "compression-mismatch"


class ExpansionLimit(OrlopError):
    """The stream expands to more than the caller's budget."""

    kind = Kind.INVALID
    code = "expansion-limit"


class Decompressor(Protocol):
    """One stream being inflated."""

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[bytes]:
        """The content that `data` completes; exhaust it before the next call.

        Raises:
            BadCompression, ExpansionLimit: as named.
        """

    def finish(self) -> None:
        """Declare the end of the input. Raises BadCompression when the stream is not complete."""


class Compressor(Protocol):
    """One stream being deflated; equal input gives equal output, however it is cut into chunks."""

    def feed(self, data: bytes | bytearray | memoryview) -> bytes:
        """Compressed bytes that are ready; often none."""

    def finish(self) -> bytes:
        """The rest."""


def sniff(head: bytes | bytearray | memoryview) -> str:
    """`gzip`, `zstd`, `xz`, `bzip2` or `none`, from the first `SNIFF_BYTES` bytes."""
    start = bytes(head[:SNIFF_BYTES])
    for name, magic in _MAGIC:
        if start.startswith(magic):
            return name
    if len(start) >= 4 and 0x50 <= start[0] <= 0x5F and start[1:4] == b"\x2a\x4d\x18":
        return "zstd"  # begins with a skippable frame
    return "none"


def decompressor(name: str, limit_bytes: int) -> Decompressor:
    """A decompressor for a compression named as by `sniff`; output beyond the limit is refused."""
    if name == "none":
        return _Identity(limit_bytes)
    return _Members(name, limit_bytes)


def layer_decompressor(media_type: str, head: bytes, limit_bytes: int) -> Decompressor:
    """A decompressor for a layer whose first bytes are `head`; feed it those bytes too.

    Raises:
        CompressionMismatch: unknown layer media type, or one that the bytes contradict.
    """
    named = LAYER_COMPRESSION.get(media_type)
    if named is None:
        raise CompressionMismatch(f"unsupported layer media type {media_type[:120]!r}")
    found = sniff(head)
    if found != named:
        raise CompressionMismatch(f"layer media type {media_type!r} says {named}, but the bytes are {found}")
    return decompressor(named, limit_bytes)


def auto_decompressor(limit_bytes: int) -> Decompressor:
    """A decompressor that looks at the first bytes it is fed."""
    return _Auto(limit_bytes)


def compressor(name: str) -> Compressor:
    """A compressor for `gzip`, `zstd` or `none`, at the one level we publish with."""
    return _COMPRESSORS[name]()


class _Budget:
    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._total_bytes = 0

    def take(self, piece: bytes) -> bytes:
        self._total_bytes += len(piece)
        if self._total_bytes > self._limit_bytes:
            raise ExpansionLimit(
                f"the content is larger than {self._limit_bytes} bytes", limit_bytes=self._limit_bytes
            )
        return piece


class _Identity:
    def __init__(self, limit_bytes: int) -> None:
        self._budget = _Budget(limit_bytes)

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[bytes]:
        view = memoryview(data)
        for start in range(0, len(view), _PIECE_BYTES):
            yield self._budget.take(bytes(view[start : start + _PIECE_BYTES]))

    def finish(self) -> None:
        return


class _Auto:
    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._head = bytearray()
        self._chosen: Decompressor | None = None

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[bytes]:
        if self._chosen is None:
            self._head += data
            if len(self._head) < SNIFF_BYTES:
                return
            data, self._head = self._head, bytearray()
            self._chosen = decompressor(sniff(data), self._limit_bytes)
        yield from self._chosen.feed(data)

    def finish(self) -> None:
        if self._chosen is None and self._head:
            raise BadCompression("the stream ends after a few bytes")
        if self._chosen is not None:
            self._chosen.finish()


class _Member(Protocol):
    """One gzip member, zstd frame, xz or bzip2 stream."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Its content; stops at its end."""

    @property
    def rest(self) -> bytes | None:
        """None while it wants more input, then the input behind its end."""


class _Members:
    """A sequence of members up to the end of the input."""

    def __init__(self, name: str, limit_bytes: int) -> None:
        self._name = name
        self._new_member = _MEMBERS[name]
        self._budget = _Budget(limit_bytes)
        self._member: _Member | None = None
        self._head = b""  # start of a member, too short to be recognised
        self._seen = False

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[bytes]:
        pending = self._head + bytes(data)
        self._head = b""
        while pending:
            if self._member is None:
                if len(pending) < SNIFF_BYTES:
                    self._head = pending
                    return
                if sniff(pending) != self._name:
                    raise BadCompression(f"bytes that are not {self._name} follow the {self._name} data")
                self._member = self._new_member()
                self._seen = True
            try:
                for piece in self._member.feed(pending):
                    yield self._budget.take(piece)
            except _DAMAGE as error:
                raise BadCompression(f"damaged {self._name} data: {error}") from error
            rest = self._member.rest
            if rest is None:
                return
            self._member, pending = None, rest

    def finish(self) -> None:
        if self._member is not None or not self._seen:
            raise BadCompression(f"the {self._name} data ends early")
        if self._head:
            raise BadCompression(f"bytes that are not {self._name} follow the {self._name} data")


class _GzipMember:
    def __init__(self) -> None:
        self._inflate: Any = isal_zlib.decompressobj(wbits=31)

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data and not self._inflate.eof:
            piece = self._inflate.decompress(data, _PIECE_BYTES)
            data = self._inflate.unconsumed_tail
            if piece:
                yield piece
        # The window may still hold output after the last input byte was taken.
        while not self._inflate.eof and (piece := self._inflate.decompress(b"", _PIECE_BYTES)):
            yield piece

    @property
    def rest(self) -> bytes | None:
        return bytes(self._inflate.unused_data) if self._inflate.eof else None


class _ZstdFrame:
    def __init__(self) -> None:
        self._context = zstandard.ZstdDecompressor(max_window_size=_ZSTD_MAX_WINDOW_BYTES)
        self._frame = self._context.decompressobj()
        self._rest: bytes | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), _ZSTD_SLICE_BYTES):
            end = start + _ZSTD_SLICE_BYTES
            piece = self._frame.decompress(data[start:end])
            if piece:
                yield piece
            if self._frame.eof:
                self._rest = self._frame.unused_data + data[end:]
                return

    @property
    def rest(self) -> bytes | None:
        return self._rest


class _StandardMember:
    """The interface that bz2 and lzma share."""

    def __init__(self, inflate: bz2.BZ2Decompressor | lzma.LZMADecompressor) -> None:
        self._inflate = inflate

    def feed(self, data: bytes) -> Iterator[bytes]:
        piece = self._inflate.decompress(data, _PIECE_BYTES)
        while piece:
            yield piece
            if self._inflate.eof or self._inflate.needs_input:
                return
            piece = self._inflate.decompress(b"", _PIECE_BYTES)

    @property
    def rest(self) -> bytes | None:
        return self._inflate.unused_data if self._inflate.eof else None


_MEMBERS: dict[str, Callable[[], _Member]] = {
    "gzip": _GzipMember,
    "zstd": _ZstdFrame,
    "xz": lambda: _StandardMember(lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES)),
    "bzip2": lambda: _StandardMember(bz2.BZ2Decompressor()),
}


class _Gzip:
    """A gzip member with a header of ours: no time, no name, so equal content is equal bytes."""

    def __init__(self) -> None:
        self._deflate: Any = isal_zlib.compressobj(level=_GZIP_LEVEL, wbits=-15)
        self._crc = 0
        self._size = 0
        self._out = bytearray(_GZIP_HEADER)
        self._block = bytearray()

    def feed(self, data: bytes | bytearray | memoryview) -> bytes:
        view = memoryview(data)
        while view.nbytes:
            # isal's output depends on how its input is cut: always cut at the same places.
            taken = min(_PIECE_BYTES - len(self._block), view.nbytes)
            self._block += view[:taken]
            view = view[taken:]
            if len(self._block) == _PIECE_BYTES:
                self._deflate_block()
        ready, self._out = bytes(self._out), bytearray()
        return ready

    def finish(self) -> bytes:
        self._deflate_block()
        trailer = self._crc.to_bytes(4, "little") + (self._size & 0xFFFFFFFF).to_bytes(4, "little")
        return bytes(self._out) + bytes(self._deflate.flush()) + trailer

    def _deflate_block(self) -> None:
        self._crc = isal_zlib.crc32(self._block, self._crc)
        self._size += len(self._block)
        self._out += self._deflate.compress(self._block)
        self._block = bytearray()


class _Zstd:
    def __init__(self) -> None:
        self._deflate = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=True).compressobj()

    def feed(self, data: bytes | bytearray | memoryview) -> bytes:
        return self._deflate.compress(data)

    def finish(self) -> bytes:
        return self._deflate.flush()


class _Verbatim:
    def feed(self, data: bytes | bytearray | memoryview) -> bytes:
        return bytes(data)

    def finish(self) -> bytes:
        return b""


_COMPRESSORS: dict[str, Callable[[], Compressor]] = {"gzip": _Gzip, "zstd": _Zstd, "none": _Verbatim}
