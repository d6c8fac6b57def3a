import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orlop.base.errors import InvalidInput
from orlop.engine.detach import DetachFilter, parse_detach_keys

KEYS = parse_detach_keys("ctrl-p,ctrl-q")


def test_key_names_become_bytes():
    assert KEYS == b"\x10\x11"
    assert parse_detach_keys("a,ctrl-@,ctrl-_") == b"a\x00\x1f"
    assert parse_detach_keys("ctrl-[,ctrl-\\,DEL") == b"\x1b\x1c\x7f"


@pytest.mark.parametrize("text", ["", "ctrl-", "ctrl-!", "ctrl-P", "ab", "a,,b", "a,", "\u00e9"])
def test_other_names_are_refused(text):
    with pytest.raises(InvalidInput, match="Invalid detach keys"):
        parse_detach_keys(text)


def test_the_sequence_detaches_and_is_not_passed_on():
    watch = DetachFilter(KEYS)

    assert watch(b"abc\x10") == (b"abc", False)
    assert watch(b"\x11later") == (b"", True)


def test_a_broken_sequence_is_passed_on_in_order():
    watch = DetachFilter(KEYS)

    assert watch(b"\x10x\x10\x10\x10") == (b"\x10x\x10\x10", False)
    assert watch(b"y") == (b"\x10y", False)


@settings(max_examples=60)
@given(st.lists(st.binary(max_size=6), max_size=6))
def test_without_the_sequence_nothing_is_lost(pieces):
    data = b"".join(pieces).replace(KEYS, b"")
    watch = DetachFilter(KEYS)
    out = b"".join(watch(bytes([value]))[0] for value in data + b"!")
    assert out == data + b"!"
