import struct

import pytest

from orlop.wire.websocket import (
    BadHandshake,
    Close,
    Data,
    FrameDecoder,
    Opcode,
    Ping,
    Pong,
    Status,
    Violation,
    accept_handshake,
    encode_close,
    encode_frame,
)

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
HANDSHAKE = {
    "upgrade": "websocket",
    "connection": "keep-alive, Upgrade",
    "sec-websocket-version": "13",
    "sec-websocket-key": KEY,
}
MASK = b"\x37\xfa\x21\x3d"


def masked(payload):
    return bytes(byte ^ MASK[at % 4] for at, byte in enumerate(payload))


def client_frame(opcode, payload=b"", *, final=True, length=None):
    size = len(payload) if length is None else length
    first = (0x80 if final else 0) | opcode
    if size < 126:
        head = struct.pack(">BB", first, 0x80 | size)
    elif size < 1 << 16:
        head = struct.pack(">BBH", first, 0x80 | 126, size)
    else:
        head = struct.pack(">BBQ", first, 0x80 | 127, size)
    return head + MASK + masked(payload)


def test_the_answer_to_a_handshake_is_that_of_the_rfc():
    assert accept_handshake(HANDSHAKE) == (("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),)


def test_one_offered_protocol_is_agreed_to_and_several_are_not():
    one = accept_handshake(HANDSHAKE | {"sec-websocket-protocol": "tty"})
    two = accept_handshake(HANDSHAKE | {"sec-websocket-protocol": "tty, chat"})

    assert ("Sec-WebSocket-Protocol", "tty") in one
    assert len(two) == 1


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("upgrade", "tcp", 426),
        ("upgrade", None, 426),
        ("connection", "keep-alive", 400),
        ("sec-websocket-version", "8", 426),
        ("sec-websocket-version", None, 426),
        ("sec-websocket-key", None, 400),
        ("sec-websocket-key", "c2hvcnQ=", 400),
        ("sec-websocket-key", "not base64 at all!", 400),
        ("sec-websocket-key", "\u00e9" * 24, 400),
    ],
)
def test_a_wrong_handshake_is_refused(name, value, status):
    headers = {key: item for key, item in (HANDSHAKE | {name: value}).items() if item is not None}

    with pytest.raises(BadHandshake) as caught:
        accept_handshake(headers)

    assert caught.value.status == status


def test_a_refused_version_is_told_the_right_one():
    with pytest.raises(BadHandshake) as caught:
        accept_handshake(HANDSHAKE | {"sec-websocket-version": "7"})

    assert caught.value.headers == (("Sec-WebSocket-Version", "13"),)


def test_frames_of_the_rfc():
    """Section 5.7."""
    hello = bytes.fromhex("818537fa213d7f9f4d5158")
    fragments = bytes.fromhex("01839eb1d7cc") + bytes(
        byte ^ mask for byte, mask in zip(b"Hel", bytes.fromhex("9eb1d7"), strict=True)
    )

    assert FrameDecoder().feed(hello) == [Data(b"Hello")]
    assert FrameDecoder().feed(fragments + client_frame(0, b"lo")) == [Data(b"Hel"), Data(b"lo")]
    assert encode_frame(Opcode.TEXT, b"Hello") == bytes.fromhex("810548656c6c6f")
    assert encode_frame(Opcode.BINARY, bytes(256))[:4] == bytes.fromhex("827e0100")
    assert encode_frame(Opcode.BINARY, bytes(65536))[:10] == bytes.fromhex("827f0000000000010000")


def test_control_frames_come_between_fragments():
    data = (
        client_frame(Opcode.BINARY, b"a", final=False)
        + client_frame(Opcode.PING, b"?")
        + client_frame(Opcode.PONG, b"!")
        + client_frame(Opcode.CONTINUATION, b"b")
        + client_frame(Opcode.CLOSE, b"\x03\xe8bye")
    )

    items = FrameDecoder().feed(data)

    assert items == [Data(b"a"), Ping(b"?"), Pong(b"!"), Data(b"b"), Close(1000, "bye")]


def test_nothing_follows_a_close():
    decoder = FrameDecoder()

    assert decoder.feed(client_frame(Opcode.CLOSE) + client_frame(Opcode.PING)) == [Close(None)]
    assert decoder.feed(client_frame(Opcode.PING)) == []


def test_a_huge_frame_is_handed_on_as_it_comes():
    decoder = FrameDecoder()
    start = client_frame(Opcode.BINARY, b"abc", length=1 << 60)

    assert decoder.feed(start) == [Data(b"abc")]
    assert len(decoder.feed(bytes(1000))[0].payload) == 1000
    assert not decoder._buffer


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x82\x01a", Status.PROTOCOL_ERROR),  # not masked
        (b"\xc2\x80" + MASK, Status.PROTOCOL_ERROR),  # a reserved bit
        (b"\x83\x80" + MASK, Status.PROTOCOL_ERROR),  # an unknown opcode
        (client_frame(Opcode.PING, final=False), Status.PROTOCOL_ERROR),
        (client_frame(Opcode.PING, bytes(126)), Status.PROTOCOL_ERROR),
        (client_frame(Opcode.CONTINUATION, b"a"), Status.PROTOCOL_ERROR),
        (client_frame(Opcode.BINARY, b"a", final=False) + client_frame(Opcode.BINARY), Status.PROTOCOL_ERROR),
        (b"\x82\xff" + b"\xff" * 8 + MASK, Status.PROTOCOL_ERROR),
        (b"\x82\xfe\x00\x01" + MASK, Status.PROTOCOL_ERROR),  # 1 in the long form
        (client_frame(Opcode.CLOSE, b"\x03"), Status.PROTOCOL_ERROR),
        (client_frame(Opcode.CLOSE, struct.pack(">H", 1005)), Status.PROTOCOL_ERROR),
        (client_frame(Opcode.CLOSE, struct.pack(">H", 999)), Status.PROTOCOL_ERROR),
        (client_frame(Opcode.CLOSE, b"\x03\xe8\xff"), Status.BAD_DATA),
        (client_frame(Opcode.TEXT, b"\xff"), Status.BAD_DATA),
        (client_frame(Opcode.TEXT, "\u20ac".encode()[:2]), Status.BAD_DATA),
    ],
)
def test_what_breaks_the_protocol_is_a_violation(data, status):
    with pytest.raises(Violation) as caught:
        FrameDecoder().feed(data)

    assert caught.value.status is status


def test_a_character_may_be_split_over_fragments():
    euro = "\u20ac".encode()
    data = client_frame(Opcode.TEXT, euro[:1], final=False) + client_frame(Opcode.CONTINUATION, euro[1:])

    assert b"".join(item.payload for item in FrameDecoder().feed(data)) == euro


def test_a_long_reason_is_cut_between_characters():
    frame = encode_close(Status.PROTOCOL_ERROR, "\u20ac" * 100)

    assert frame[1] == 2 + 41 * 3
    assert frame[4:].decode() == "\u20ac" * 41
