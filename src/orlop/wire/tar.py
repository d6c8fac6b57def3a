"""Read tar archives: entries in order, all dialects, no I/O, nothing trusted.

`scan` reads a whole archive from memory (an mmap: data bytes are never touched). `TarFeed` takes
it in chunks from a stream and gives data back. Both drive the same `Assembler`, which turns header
blocks and the payloads of extension headers into entries.

One policy for what an archive is: headers up to two zero blocks, and only zeros behind them.
A missing end marker is accepted (Go's reader, hence Docker, accepts it), a torn entry is not.

Spec: POSIX.1-2017 pax; GNU tar manual, "Tar Internals".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from orlop.wire.tarheader import (
    BLOCK,
    MAX_ENTRIES,
    MAX_PATH_BYTES,
    MAX_SIZE_BYTES,
    EntryKind,
    TarEntry,
    TarError,
    decode_block,
    parse_number,
    show,
)
from orlop.wire.tarpax import (
    MAX_PAX_BYTES,
    MAX_SPARSE_PIECES,
    MapReader,
    Records,
    apply_pax,
    check_names,
    checked_map,
    old_gnu_pieces,
    parse_records,
    pax_sparse,
)

__all__ = ["Buffer", "EntryKind", "TarEntry", "TarError", "TarFeed", "scan"]

_ZEROS = bytes(BLOCK)
_ZERO_CHUNK = bytes(1 << 16)
_PLAIN = frozenset((b"0", b"5", b"2", b"1", b"\0"))
_OTHER = frozenset((b"3", b"4", b"6", b"7"))


class Buffer(Protocol):
    """What bytes and mmap share."""

    def __len__(self) -> int: ...
    def __getitem__(self, key: slice, /) -> bytes: ...


def padded(size: int) -> int:
    """`size` rounded up to whole blocks."""
    return (size + BLOCK - 1) // BLOCK * BLOCK


class Assembler:
    """Header blocks in, entries out. Feed `block`, and `payload` while it asks for bytes."""

    def __init__(self) -> None:
        self._globals: dict[bytes, bytes] = {}
        self._records: Records = []
        self._long_name: bytes | None = None
        self._long_link: bytes | None = None
        self._pending = False  # an extension header waits for its entry
        self._want: bytes = b""  # type byte of the payload asked for
        self._size = 0
        self._entry: TarEntry | None = None
        self._pieces: list[tuple[int, int]] = []
        self._map = MapReader()
        self._at = 0

    @property
    def is_between_entries(self) -> bool:
        """True when no extension header waits for the entry it belongs to."""
        return not self._pending

    def block(self, block: bytes, offset: int) -> TarEntry | int:
        """Take a header block that is not all zeros.

        Returns:
            The entry, or the number of bytes (whole blocks) that `payload` needs next.

        Raises:
            TarError: what stands there is not acceptable.
        """
        code, entry = decode_block(block, offset)
        if code in _PLAIN and not self._pending and not self._globals:
            if code == b"\0" and entry.path.endswith(b"/"):  # v7 had no other way to say directory
                _become_directory(entry)
            if not entry.path:
                check_names(entry)
            return entry
        return self._special(code, entry, block)

    def payload(self, data: bytes) -> TarEntry | int:
        """Take the bytes asked for.

        Returns:
            The entry, the number of bytes still needed, or 0: go on with the next header block.
        """
        want = self._want
        if want in (b"S", b"sparse-1.0"):
            return self._sparse_payload(data)
        content = data[: self._size]
        if want == b"x":
            self._records = parse_records(content, self._at)
        elif want == b"g":
            for key, value in parse_records(content, self._at, is_global=True):
                if value:
                    self._globals[key] = value
                else:
                    self._globals.pop(key, None)
        elif want == b"L":
            self._long_name = content.partition(b"\0")[0]
        else:
            self._long_link = content.partition(b"\0")[0]
        self._pending = self._pending or want != b"g"
        return 0

    def _special(self, code: bytes, entry: TarEntry, block: bytes) -> TarEntry | int:
        self._at = entry.offset
        if code in (b"x", b"g", b"L", b"K"):
            limit = MAX_PAX_BYTES if code in (b"x", b"g") else MAX_PATH_BYTES + 1
            if entry.size > limit:
                raise TarError(
                    f"extension header of {entry.size} bytes at offset {entry.offset}: the limit is {limit}"
                )
            self._want, self._size = code, entry.size
            return padded(entry.size) or self.payload(b"")
        if code not in _PLAIN and code not in _OTHER and code != b"S":
            raise TarError(
                f"unknown entry type {show(code)} of {show(entry.path)} at offset {entry.offset}",
                hint="multi-volume archives, volume labels and vendor types are not accepted",
            )
        return self._finish(code, entry, block)

    def _finish(self, code: bytes, entry: TarEntry, block: bytes) -> TarEntry | int:
        """Apply what waits, then see whether a sparse map still has to be read."""
        sparse: Records = []
        if self._globals:
            apply_pax(entry, list(self._globals.items()))
        if self._records:
            sparse = apply_pax(entry, self._records)
        if self._long_name is not None:
            entry.path = self._long_name
        if self._long_link is not None:
            entry.link = self._long_link
        self._records, self._long_name, self._long_link, self._pending = [], None, None, False
        if code == b"\0" and entry.path.endswith(b"/"):
            _become_directory(entry)
        elif entry.kind is not EntryKind.FILE:
            entry.size = entry.stored_size = 0  # Go ignores the size of all but files
        self._entry = entry
        try:
            if code == b"S":
                return self._begin_old_sparse(entry, block)
            if sparse and entry.kind is EntryKind.FILE and pax_sparse(entry, sparse):
                self._want, self._map = b"sparse-1.0", MapReader()
                return self._more_map(entry)
        except ValueError as error:
            raise self._bad_sparse(entry, error) from error
        check_names(entry)
        return entry

    def _begin_old_sparse(self, entry: TarEntry, block: bytes) -> TarEntry | int:
        entry.size = parse_number(block[483:495])
        if not 0 <= entry.size <= MAX_SIZE_BYTES:
            raise ValueError(f"size {entry.size}")
        self._pieces = old_gnu_pieces(block, 386, 4)
        if block[482]:
            self._want = b"S"
            return BLOCK
        return self._end_sparse(entry)

    def _sparse_payload(self, data: bytes) -> TarEntry | int:
        entry = self._entry
        assert entry is not None
        try:
            entry.data_offset += BLOCK
            if self._want == b"S":
                return self._next_old_map(entry, data)
            entry.stored_size = max(entry.stored_size - BLOCK, 0)
            pieces = self._map.feed(data)
            if pieces is None:
                return self._more_map(entry)
            self._pieces = pieces
            return self._end_sparse(entry)
        except ValueError as error:
            raise self._bad_sparse(entry, error) from error

    def _next_old_map(self, entry: TarEntry, data: bytes) -> TarEntry | int:
        self._pieces += old_gnu_pieces(data, 0, 21)
        if len(self._pieces) > MAX_SPARSE_PIECES:
            raise ValueError(f"more than {MAX_SPARSE_PIECES} pieces")
        return BLOCK if data[504] else self._end_sparse(entry)

    @staticmethod
    def _more_map(entry: TarEntry) -> int:
        if not entry.stored_size:
            raise ValueError("the map is longer than the data")
        return BLOCK

    def _end_sparse(self, entry: TarEntry) -> TarEntry:
        entry.sparse = checked_map(self._pieces, entry.size, entry.stored_size)
        check_names(entry)
        return entry

    @staticmethod
    def _bad_sparse(entry: TarEntry, error: ValueError) -> TarError:
        return TarError(
            f"invalid sparse map of {show(entry.path)} at offset {entry.offset}: {error}", offset=entry.offset
        )


def _become_directory(entry: TarEntry) -> None:
    entry.kind = EntryKind.DIRECTORY
    entry.size = entry.stored_size = 0


def scan(buffer: Buffer, start: int = 0) -> Iterator[TarEntry]:
    """All entries of an archive in memory, which begins at `start` and fills the buffer to its end.

    Data is checked to be present, not read. Offsets in entries count from `start`.

    Raises:
        TarError: at the first thing that is not acceptable.
    """
    assembler = Assembler()
    take = assembler.block
    at, end, count = start, len(buffer), 0
    while at < end:
        block = buffer[at : at + BLOCK]
        if block == _ZEROS or len(block) < BLOCK:
            break
        found = take(block, at - start)
        at += BLOCK
        if isinstance(found, int):
            entry, at = _read_payloads(assembler, buffer, at, found, start)
            if entry is None:
                continue
            found = entry
        stored = found.stored_size
        if stored:
            if at + stored > end:
                raise TarError(f"truncated archive: {show(found.path)} at offset {found.offset} is cut off")
            at += (stored + BLOCK - 1) // BLOCK * BLOCK
        count += 1
        if count > MAX_ENTRIES:
            raise TarError(f"archive with more than {MAX_ENTRIES} entries")
        yield found
    _check_end(buffer, min(at, end), assembler, start)


def _read_payloads(
    assembler: Assembler, buffer: Buffer, at: int, wanted: int, start: int
) -> tuple[TarEntry | None, int]:
    """Feed the assembler until it has what it wants; the entry, if that completed one, and the new offset."""
    while wanted:
        if at + wanted > len(buffer):
            raise TarError(f"truncated archive: an extension header at offset {at - start} is cut off")
        found = assembler.payload(buffer[at : at + wanted])
        at += wanted
        if isinstance(found, TarEntry):
            return found, at
        wanted = found
    return None, at


def _check_end(buffer: Buffer, at: int, assembler: Assembler, start: int) -> None:
    shown = at - start
    if not assembler.is_between_entries:
        raise TarError(f"truncated archive: an extension header before offset {shown} has no entry")
    end = len(buffer)
    if 0 < end - at < BLOCK:
        raise TarError(f"truncated archive: {end - at} bytes at offset {shown} are no block")
    while at < end:
        chunk = buffer[at : at + len(_ZERO_CHUNK)]
        if chunk != _ZERO_CHUNK[: len(chunk)]:
            raise TarError(f"garbage behind the end of the archive, after offset {shown}", offset=shown)
        at += len(chunk)


class TarFeed:
    """The same for a stream: chunks in, events out.

    `feed` returns a list of `TarEntry` (its data follows) and `bytes` (stored data of the latest
    entry, without padding). Nothing but one partial header or extension is buffered.
    """

    def __init__(self) -> None:
        self._assembler = Assembler()
        self._buffer = bytearray()
        self._at = 0  # offset of the first buffered byte
        self._need = BLOCK
        self._is_payload = False
        self._data = 0
        self._padding = 0
        self._ended = False
        self._count = 0
        self._path = b""

    def feed(self, chunk: bytes | memoryview) -> list[TarEntry | bytes]:
        """Take the next bytes of the archive.

        Raises:
            TarError: at the first thing that is not acceptable; the feed is then unusable.
        """
        events: list[TarEntry | bytes] = []
        view = memoryview(chunk)
        while view:
            if self._ended:
                self._check_zeros(bytes(view))
                break
            if self._data:
                part = bytes(view[: self._data])
                self._data -= len(part)
                events.append(part)
                used = len(part)
            elif self._padding:
                used = min(self._padding, len(view))
                self._padding -= used
            else:
                used = self._take(view, events)
            self._at += used
            view = view[used:]
        return events

    def close(self) -> None:
        """State that the archive is complete.

        Raises:
            TarError: it ended inside an entry.
        """
        if self._data or self._buffer or self._is_payload or not self._assembler.is_between_entries:
            raise TarError(f"truncated archive: it ends at offset {self._at} inside {show(self._path)}")

    def _take(self, view: memoryview, events: list[TarEntry | bytes]) -> int:
        used = min(self._need - len(self._buffer), len(view))
        self._buffer += view[:used]
        if len(self._buffer) < self._need:
            return used
        block = bytes(self._buffer)
        self._buffer.clear()
        if self._is_payload:
            found = self._assembler.payload(block)
        elif block == _ZEROS:
            if not self._assembler.is_between_entries:
                raise TarError(
                    f"truncated archive: an extension header before offset {self._at} has no entry"
                )
            self._ended = True
            return used
        else:
            found = self._assembler.block(block, self._at + used - BLOCK)
        self._is_payload = isinstance(found, int) and found > 0
        self._need = found if isinstance(found, int) and found else BLOCK
        if isinstance(found, TarEntry):
            self._begin(found)
            events.append(found)
        return used

    def _begin(self, entry: TarEntry) -> None:
        self._path = entry.path
        self._data = entry.stored_size
        self._padding = -entry.stored_size % BLOCK
        self._count += 1
        if self._count > MAX_ENTRIES:
            raise TarError(f"archive with more than {MAX_ENTRIES} entries")

    def _check_zeros(self, data: bytes) -> None:
        if data.strip(b"\0"):
            raise TarError(f"garbage behind the end of the archive, after offset {self._at}", offset=self._at)
        self._at += len(data)
