import pytest

from orlop.base.clock import ManualClock, format_rfc3339_nano, parse_rfc3339_nano


@pytest.mark.parametrize(
    ("value_ns", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1_700_000_000_123_456_789, "2023-11-14T22:13:20.123456789Z"),
        (1_700_000_000_500_000_000, "2023-11-14T22:13:20.5Z"),
    ],
)
def test_rfc3339_nano_round_trip(value_ns, text):
    assert format_rfc3339_nano(value_ns) == text
    assert parse_rfc3339_nano(text) == value_ns


def test_a_zone_offset_is_applied():
    assert parse_rfc3339_nano("2023-11-15T00:13:20+02:00") == 1_700_000_000_000_000_000


@pytest.mark.parametrize("text", ["", "2023", "2023-11-14T22:13:20.1234567890Z", "2023-11-14T22:13:20.xZ"])
def test_nonsense_is_refused(text):
    with pytest.raises(ValueError, match=r"."):
        parse_rfc3339_nano(text)


def test_a_manual_clock_moves_both_times():
    clock = ManualClock(now_ns=5)

    clock.advance(1.5)

    assert (clock.now_ns(), clock.monotonic_s()) == (1_500_000_005, 1.5)
