"""Write tar archives whose bytes depend on nothing but the entries.

ustar headers where they suffice; a PAX header in front where they do not (long or non-ASCII names,
large numbers, fractions of a second, extended attributes). No user names, no access times, records
sorted by key: the same entries always give the same bytes.
"""

from __future__ import annotations

from orlop.wire.tarheader import BLOCK, EntryKind, TarEntry, TarError, show

__all__ = ["END", "encode_header", "padding"]

END = bytes(2 * BLOCK)  # what closes an archive

_NANO = 1_000_000_000
_MAX_ID = 0o7777777
_MAX_SIZE = 0o77777777777
_MAX_SECONDS = 0o77777777777


def padding(size: int) -> bytes:
    """The zeros that follow `size` bytes of data."""
    return bytes(-size % BLOCK)


def encode_header(entry: TarEntry) -> bytes:
    """All header blocks of an entry; its data (if any) and `padding(entry.size)` come next.

    Of the entry, `offset`, `data_offset`, `stored_size` and `sparse` are ignored: files are
    written in full. Directories get their trailing slash here.

    Raises:
        TarError: a name with NUL, an attribute name with `=` or NUL, a negative size.
    """
    path = entry.path
    if entry.kind is EntryKind.DIRECTORY and not path.endswith(b"/"):
        path += b"/"
    if not path or b"\0" in path or b"\0" in entry.link or entry.size < 0:
        raise TarError(f"cannot write {show(path)} to a tar archive: bad name or size")
    size = entry.size if entry.kind is EntryKind.FILE else 0
    records: dict[bytes, bytes] = {}
    name, prefix = _split_path(path)
    if name is None:
        records[b"path"] = path
        name, prefix = _ascii(path)[:100], b""
    link = entry.link
    if len(link) > 100 or not link.isascii():
        records[b"linkpath"] = link
        link = _ascii(link)[:100]
    seconds, nanos = divmod(entry.mtime_ns, _NANO)
    if nanos or not 0 <= seconds <= _MAX_SECONDS:
        records[b"mtime"] = _decimal_time(entry.mtime_ns)
        seconds = min(max(seconds, 0), _MAX_SECONDS)
    fields = ((b"uid", entry.uid, _MAX_ID), (b"gid", entry.gid, _MAX_ID), (b"size", size, _MAX_SIZE))
    records |= {field: b"%d" % number for field, number, limit in fields if number > limit}
    for key, value in entry.xattrs.items():
        if b"=" in key or b"\0" in key or not key:
            raise TarError(f"cannot write extended attribute {show(key)} of {show(path)} to a tar archive")
        records[b"SCHILY.xattr." + key] = value
    numbers = (
        entry.mode & 0o7777,
        min(entry.uid, _MAX_ID),
        min(entry.gid, _MAX_ID),
        min(size, _MAX_SIZE),
        seconds,
    )
    header = _block(name, prefix, numbers, entry.kind.value, link, (entry.major, entry.minor))
    return _pax_blocks(path, records) + header if records else header


def _split_path(path: bytes) -> tuple[bytes | None, bytes]:
    """Name and prefix as ustar has them; None if the path does not fit."""
    if not path.isascii():
        return None, b""
    if len(path) <= 100:
        return path, b""
    if len(path) > 256:
        return None, b""
    slash = path.rfind(b"/", 0, min(len(path) - 1, 156))
    if slash <= 0 or len(path) - slash - 1 > 100:
        return None, b""
    return path[slash + 1 :], path[:slash]


def _ascii(text: bytes) -> bytes:
    return text if text.isascii() else bytes(byte if byte < 128 else 0x3F for byte in text)


def _decimal_time(time_ns: int) -> bytes:
    sign = b"-" if time_ns < 0 else b""
    seconds, nanos = divmod(abs(time_ns), _NANO)
    fraction = (b".%09d" % nanos).rstrip(b"0") if nanos else b""
    return sign + b"%d" % seconds + fraction


def _block(
    name: bytes,
    prefix: bytes,
    numbers: tuple[int, int, int, int, int],
    code: bytes,
    link: bytes,
    device: tuple[int, int],
) -> bytes:
    head = name.ljust(100, b"\0") + b"%07o\0%07o\0%07o\0%011o\0%011o\0" % numbers
    tail = code + link.ljust(100, b"\0") + b"ustar\x0000" + bytes(64) + b"%07o\0%07o\0" % device
    tail += prefix.ljust(167, b"\0")
    checksum = sum(head) + sum(tail) + 8 * 0x20
    return head + b"%06o\0 " % checksum + tail


def _pax_blocks(path: bytes, records: dict[bytes, bytes]) -> bytes:
    body = b"".join(_record(key, records[key]) for key in sorted(records))
    name = b"PaxHeaders.0/" + _ascii(path.rstrip(b"/").rpartition(b"/")[2])[:80]
    header = _block(name, b"", (0o644, 0, 0, len(body), 0), b"x", b"", (0, 0))
    return header + body + padding(len(body))


def _record(key: bytes, value: bytes) -> bytes:
    body = b" " + key + b"=" + value + b"\n"
    length = len(body) + len(str(len(body)))
    if len(str(length)) + len(body) != length:  # one more digit made the number longer
        length = len(str(length)) + len(body)
    return b"%d" % length + body
