"""A WebSocket stream may be cut anywhere, and may be anything."""

import struct
from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st

from orlop.wire.websocket import Close, Data, FrameDecoder, Opcode, Ping, Pong, Violation

FRAGMENTS = st.lists(st.binary(max_size=300), min_size=1, max_size=4)
CONTROLS = st.lists(
    st.tuples(st.sampled_from([Opcode.PING, Opcode.PONG]), st.binary(max_size=125)), max_size=2
)
MESSAGES = st.lists(st.tuples(FRAGMENTS, CONTROLS), max_size=5)


def masked_frame(opcode, payload, mask, *, is_final):
    first = (0x80 if is_final else 0) | opcode
    size = len(payload)
    head = (
        struct.pack(">BB", first, 0x80 | size) if size < 126 else struct.pack(">BBH", first, 0x80 | 126, size)
    )
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


@settings(max_examples=60, deadline=None)
@given(messages=MESSAGES, mask=st.binary(min_size=4, max_size=4), step=st.integers(1, 700))
def test_messages_survive_any_cutting(messages, mask, step):
    stream = b""
    for fragments, controls in messages:
        for at, fragment in enumerate(fragments):
            opcode = Opcode.CONTINUATION if at else Opcode.BINARY
            stream += masked_frame(opcode, fragment, mask, is_final=at == len(fragments) - 1)
            for control, payload in controls:
                stream += masked_frame(control, payload, mask, is_final=True)
    stream += masked_frame(Opcode.CLOSE, b"", mask, is_final=True)
    decoder = FrameDecoder()

    items = []
    for start in range(0, len(stream), step):
        items += decoder.feed(stream[start : start + step])

    sent = b"".join(fragment for fragments, _ in messages for fragment in fragments)
    assert b"".join(item.payload for item in items if isinstance(item, Data)) == sent
    shown = [
        (Opcode.PING if isinstance(item, Ping) else Opcode.PONG, item.payload)
        for item in items
        if isinstance(item, Ping | Pong)
    ]
    assert shown == [control for fragments, controls in messages for _ in fragments for control in controls]
    assert items[-1] == Close(None)


@settings(max_examples=150, deadline=None)
@given(pieces=st.lists(st.binary(max_size=200), max_size=8))
def test_any_bytes_are_items_or_a_violation_and_are_not_collected(pieces):
    decoder = FrameDecoder()

    with suppress(Violation):
        for piece in pieces:
            items = decoder.feed(piece)
            assert sum(len(getattr(item, "payload", b"")) for item in items) <= sum(map(len, pieces))
            assert len(decoder._buffer) < 14 + 125
