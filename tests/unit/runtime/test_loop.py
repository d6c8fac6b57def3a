import os

import pytest

from orlop.runtime.loop import READ, Loop


def test_readable_descriptors_and_timers_call_back():
    loop = Loop()
    reader, writer = os.pipe()
    seen = []

    def readable():
        seen.append(os.read(reader, 10))
        loop.call_later(0.001, lambda: (seen.append("timer"), loop.stop()))

    loop.watch(reader, READ, readable)
    os.write(writer, b"x")
    loop.run()

    assert seen == [b"x", "timer"]
    loop.close()
    os.close(reader)
    os.close(writer)


def test_a_cancelled_timer_stays_silent_and_order_is_kept():
    loop = Loop()
    seen = []
    loop.call_later(0.002, lambda: seen.append("never")).cancel()
    loop.call_later(0.003, loop.stop)
    loop.call_later(0.001, lambda: seen.append(1))
    loop.call_later(0.001, lambda: seen.append(2))

    loop.run()

    assert seen == [1, 2]
    loop.close()


def test_what_was_unwatched_in_the_same_round_is_not_called():
    loop = Loop()
    pipes = [os.pipe() for _ in range(2)]
    seen = []

    def callback(own, other):
        seen.append(own)
        loop.unwatch(other)
        loop.stop()

    (one, one_in), (two, two_in) = pipes
    loop.watch(one, READ, lambda: callback(one, two))
    loop.watch(two, READ, lambda: callback(two, one))
    os.write(one_in, b"x")
    os.write(two_in, b"x")
    loop.run()

    assert len(seen) == 1
    loop.close()
    for pair in pipes:
        os.close(pair[0])
        os.close(pair[1])


def test_trouble_with_a_guest_costs_the_guest_only():
    loop = Loop()
    reader, writer = os.pipe()
    seen = []

    def drop():
        loop.unwatch(reader)
        seen.append("dropped")
        loop.stop()

    loop.watch(reader, READ, lambda: 1 // 0, drop)
    os.write(writer, b"x")
    loop.run()

    assert seen == ["dropped"]
    loop.close()
    os.close(reader)
    os.close(writer)


def test_trouble_of_our_own_ends_the_loop():
    loop = Loop()
    reader, writer = os.pipe()
    loop.watch(reader, READ, lambda: 1 // 0)
    os.write(writer, b"x")

    with pytest.raises(ZeroDivisionError):
        loop.run()

    loop.close()
    os.close(reader)
    os.close(writer)
