import fcntl
import os
import socket

import pytest

from orlop.procs.channel import INLINE_LIMIT_BYTES, MAX_FDS, Channel, ChannelBroken, channel_pair, close_all


@pytest.fixture
def pair():
    one, two = channel_pair()
    yield one, two
    one.close()
    two.close()


def test_a_message_arrives_with_its_descriptors(pair):
    one, two = pair
    reader, writer = os.pipe()

    one.send({"op": "x", "text": "hällo"}, [writer])
    message = two.receive()

    assert message.body == {"op": "x", "text": "hällo"}
    os.write(message.fds[0], b"through")
    assert os.read(reader, 10) == b"through"
    assert fcntl.fcntl(message.fds[0], fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    close_all([reader, writer, *message.fds])


def test_messages_keep_their_borders(pair):
    one, two = pair

    for number in range(5):
        one.send({"n": number})

    assert [two.receive().body["n"] for _ in range(5)] == list(range(5))


def test_a_large_body_travels_in_a_sealed_memfd_before_the_other_descriptors(pair):
    one, two = pair
    reader, writer = os.pipe()
    body = {"data": "x" * (3 * INLINE_LIMIT_BYTES)}

    one.send(body, [reader])
    message = two.receive()

    assert message.body == body
    assert len(message.fds) == 1
    assert os.fstat(message.fds[0]).st_ino == os.fstat(reader).st_ino
    close_all([reader, writer, *message.fds])


def test_the_end_of_the_peer_is_none(pair):
    one, two = pair
    one.close()

    assert two.receive() is None


def test_last_words_are_heard_although_the_peer_did_not_listen(pair):
    one, two = pair
    two.send({"unread": True})
    one.send({"last": "words"})
    one.close()

    assert two.receive().body == {"last": "words"}
    assert two.receive() is None


@pytest.mark.parametrize("packet", [b"", b"X{}", b"J{", b"J[1]", b'J"x"', b"M", b"J" + b"[" * 20000])
def test_what_is_no_message_is_refused(pair, packet):
    one, two = pair
    one.socket.send(packet)

    if packet:
        with pytest.raises(ChannelBroken):
            two.receive()
    else:
        assert two.receive() is None


def test_an_unsealed_memfd_is_refused_and_nothing_leaks(pair):
    one, two = pair
    memfd = os.memfd_create("loose", os.MFD_ALLOW_SEALING)
    os.write(memfd, b"{}")
    before = len(os.listdir("/proc/self/fd"))

    one._send_packet(b"M", [memfd])
    with pytest.raises(ChannelBroken, match="not sealed"):
        two.receive()

    assert len(os.listdir("/proc/self/fd")) == before
    os.close(memfd)


def test_a_memfd_that_is_none_is_refused(pair):
    one, two = pair
    reader, writer = os.pipe()

    one._send_packet(b"M", [reader])
    with pytest.raises(ChannelBroken, match="not in a memfd"):
        two.receive()

    close_all([reader, writer])


def test_too_many_descriptors_are_refused_and_closed(pair):
    one, two = pair
    before = len(os.listdir("/proc/self/fd"))

    one._send_packet(b"J{}", [0] * (MAX_FDS + 4))
    with pytest.raises(ChannelBroken, match="cut off"):
        two.receive()

    assert len(os.listdir("/proc/self/fd")) == before


def test_a_packet_beyond_the_limit_is_refused():
    one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, two:
        one.send(b"J" + b" " * (INLINE_LIMIT_BYTES + 10))
        with pytest.raises(ChannelBroken, match="cut off"):
            Channel(two).receive()
