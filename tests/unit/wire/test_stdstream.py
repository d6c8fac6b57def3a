import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orlop.wire.stdstream import FrameDecoder, StreamInvalid, frame, header


def test_a_frame_is_dockers():
    assert frame(1, b"hello") == b"\x01\0\0\0\0\0\0\x05hello"
    assert header(2, 258) == b"\x02\0\0\0\0\0\x01\x02"


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.binary(max_size=40))),
    st.integers(1, 13),
)
def test_frames_survive_any_cutting(frames, size):
    data = b"".join(frame(stream, piece) for stream, piece in frames)
    decoder = FrameDecoder()

    decoded = []
    for start in range(0, len(data), size):
        decoded += decoder.feed(data[start : start + size])

    assert decoded == frames
    assert decoder.is_at_border


def test_half_a_frame_is_not_a_border():
    decoder = FrameDecoder()
    decoder.feed(frame(1, b"abc")[:-1])

    assert not decoder.is_at_border


@pytest.mark.parametrize("head", ["0400000000000001", "0101000000000001", "0100000001000001"])
def test_what_is_no_header_is_refused(head):
    with pytest.raises(StreamInvalid):
        FrameDecoder().feed(bytes.fromhex(head))
