import pytest

from orlop.base.errors import InvalidInput
from orlop.cli.units import human_duration, human_size, parse_duration_ns, parse_size


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0B"), (999, "999B"), (1240, "1.24kB"), (5_592_405, "5.592MB"), (10**12, "1TB")]
)
def test_sizes_are_decimal(size, text):
    assert human_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (3599, "59 minutes"),
        (3600, "About an hour"),
        (86400, "24 hours"),
        (86400 * 3, "3 days"),
        (86400 * 15, "2 weeks"),
        (86400 * 70, "2 months"),
        (86400 * 800, "2 years"),
    ],
)
def test_durations_are_dockers_words(seconds, text):
    assert human_duration(seconds) == text


def test_typed_sizes_are_binary():
    assert [parse_size(text) for text in ("512", "64m", "1.5g", "2GiB", "1kb", "-1")] == [
        512,
        64 << 20,
        3 << 29,
        2 << 30,
        1024,
        -1,
    ]


def test_go_durations():
    assert parse_duration_ns("1m30s") == 90_000_000_000
    assert parse_duration_ns("1.5s") == 1_500_000_000


@pytest.mark.parametrize("text", ["", "x", "12q", "1m m"])
def test_nonsense_is_refused(text):
    with pytest.raises(InvalidInput):
        parse_size(text)
    with pytest.raises(InvalidInput):
        parse_duration_ns(text)
