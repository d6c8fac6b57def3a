import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orlop.wire import logframe
from orlop.wire.logframe import Frame


def encoded(stream, time_ns, sequence, data):
    head, tail = logframe.encode_around(stream, time_ns, sequence, data)
    return head + data + tail


@settings(max_examples=50)
@given(
    st.sampled_from([1, 2, 3]), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.binary(max_size=200)
)
def test_what_was_encoded_is_decoded(stream, time_ns, sequence, data):
    raw = encoded(stream, time_ns, sequence, data)

    frame = logframe.decode(b"xx" + raw + b"yy", 2)

    assert frame == Frame(stream, time_ns, sequence, data)
    assert frame.size_bytes == len(raw)
    assert logframe.size_from_trailer(raw[-4:]) == len(raw)


def test_layout_is_stable():
    raw = encoded(1, 0x0102030405060708, 9, b"hi")

    assert (
        raw.hex() == "9f4f4c31"
        "01000000"
        "02000000"
        "0807060504030201"
        "0900000000000000" + raw[28:32].hex() + "6869"
        "26000000"
    )


def test_a_short_buffer_tells_what_is_missing():
    raw = encoded(1, 1, 1, b"data")

    assert logframe.decode(raw[:10]) == logframe.HEADER_BYTES
    assert logframe.decode(raw[:-1]) == len(raw)
    assert logframe.decode(b"\x9f") == logframe.HEADER_BYTES


@settings(max_examples=60)
@given(st.integers(0, 39), st.integers(0, 7))
def test_every_flipped_bit_is_noticed(position, bit):
    raw = bytearray(encoded(2, 123456789, 7, b"data"))
    raw[position] ^= 1 << bit

    result = logframe.decode(bytes(raw))

    assert not isinstance(result, Frame)


@pytest.mark.parametrize("junk", [b"", b"\x9f", b"junk\x9fOL", b"\x9f\x9f\x9f"])
def test_the_next_frame_is_found_behind_junk(junk):
    raw = encoded(1, 1, 1, b"x")

    assert logframe.find_frame(junk + raw, 0) == len(junk)


def test_a_magic_cut_off_by_the_end_is_kept():
    assert logframe.find_frame(b"abc\x9fO", 0) == 3
    assert logframe.find_frame(b"abc", 0) == 3


def test_an_absurd_length_is_no_frame():
    raw = bytearray(encoded(1, 1, 1, b"x"))
    raw[8:12] = b"\xff\xff\xff\x7f"

    assert logframe.decode(bytes(raw)) == 0
    assert logframe.size_from_trailer(b"\xff\xff\xff\x7f") == 0
