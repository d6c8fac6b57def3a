"""What log services are sent: syslog, fluentd's forward protocol, systemd's journal, GELF."""

import gzip
import json
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orlop.wire import fluentforward, gelf, journalentry, syslogmsg

NOON = 1_700_000_000_123_456_789


def syslog(kind, text=b"hello", *, is_local=False, tag="box", hostname="host"):
    return syslogmsg.format_message(
        kind, priority=30, time_ns=NOON, hostname=hostname, tag=tag, pid=7, text=text, is_local=is_local
    )


def test_syslog_in_every_form():
    assert syslog("") == b"<30>2023-11-14T22:13:20Z host box[7]: hello"
    assert syslog("rfc5424") == b"<30>1 2023-11-14T22:13:20Z host box 7 box - hello"
    assert syslog("rfc5424micro") == b"<30>1 2023-11-14T22:13:20.123456Z host box 7 box - hello"
    assert syslog("rfc3164").endswith(b" host box[7]: hello")
    assert syslog("", is_local=True).endswith(b" box[7]: hello")
    assert b"host" not in syslog("", is_local=True)


def test_no_text_can_forge_a_second_message():
    message = syslog("rfc5424", b"one\n<0>1 two\r\0three", tag="a b\nc", hostname="")

    assert message == b"<30>1 2023-11-14T22:13:20Z - a_b_c 7 a_b_c - one <0>1 two three"


def test_a_forwarded_message():
    whole = fluentforward.forward_message("t", NOON, {"log": b"\xff"}, has_nanoseconds=False, chunk="c")

    seconds = (1_700_000_000).to_bytes(8, "big")
    assert whole == b"\x94\xa1t\xcf" + seconds + b"\x81\xa3log\xa1\xff" + b"\x81\xa5chunk\xa1c"
    fine = fluentforward.forward_message("t", NOON, {}, has_nanoseconds=True)
    assert (
        fine
        == b"\x93\xa1t\xd7\x00"
        + (1_700_000_000).to_bytes(4, "big")
        + (123456789).to_bytes(4, "big")
        + b"\x80"
    )


@pytest.mark.parametrize(
    ("value", "head"),
    [
        ("x" * 31, b"\xbf"),
        ("x" * 32, b"\xd9\x20"),
        ("x" * 256, b"\xda\x01\x00"),
        ("x" * 65536, b"\xdb\x00\x01\x00\x00"),
        (127, b"\x7f"),
        (128, b"\xcf" + bytes(7) + b"\x80"),
        (-1, b"\xd3" + b"\xff" * 8),
        (True, b"\xc3"),
        (None, b"\xc0"),
        ({str(n): 0 for n in range(16)}, b"\xde\x00\x10"),
    ],
)
def test_packed_sizes(value, head):
    assert fluentforward.pack(value).startswith(head)


def test_a_journal_entry_carries_the_length_of_what_has_newlines():
    data = journalentry.encode_entry({"MESSAGE": b"a\nPRIORITY=0", "PRIORITY": b"6"})

    assert data == b"MESSAGE\n" + (12).to_bytes(8, "little") + b"a\nPRIORITY=0\nPRIORITY=6\n"


@pytest.mark.parametrize(
    ("name", "field"),
    [("com.example/app", "COM_EXAMPLE_APP"), ("__x", "X"), ("1", ""), ("é", ""), ("a" * 99, "A" * 64)],
)
def test_names_of_fields_are_what_the_journal_takes(name, field):
    assert journalentry.field_name(name) == field


@pytest.mark.parametrize(
    ("kind", "expand"), [("gzip", gzip.decompress), ("zlib", zlib.decompress), ("none", bytes)]
)
def test_gelf_messages(kind, expand):
    data = gelf.encode("host", b"caf\xc3\xa9 \xff", NOON, 3, {"tag": "t"})

    message = json.loads(expand(gelf.compress(data, kind, 1)))

    assert message["short_message"] == "café \ufffd"
    assert (message["_tag"], message["level"], message["timestamp"]) == ("t", 3, 1700000000.123)


@settings(max_examples=30)
@given(st.integers(0, 128 * 1408))
def test_chunks_join_to_the_message(size):
    data = bytes(n % 251 for n in range(size))

    chunks = gelf.chunks(data, b"12345678")

    if len(chunks) > 1:
        assert {chunk[:10] for chunk in chunks} == {b"\x1e\x0f12345678"}
        assert [chunk[10] for chunk in chunks] == list(range(len(chunks)))
        chunks = [chunk[12:] for chunk in chunks]
    assert b"".join(chunks) == data


def test_what_does_not_fit_in_128_chunks_is_refused():
    with pytest.raises(ValueError, match="does not fit"):
        gelf.chunks(bytes(128 * 1408 + 1), b"12345678")
