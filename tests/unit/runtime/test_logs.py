import os
import select

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orlop.runtime.logarchive import compress_file
from orlop.runtime.logs import LogQuery, LogReader
from orlop.runtime.logwriter import LogWriter, file_name, log_files
from orlop.wire import logframe


class Ticks:
    """One nanosecond per frame."""

    def __init__(self):
        self.now = 1000

    def __call__(self):
        self.now += 1
        return self.now


@pytest.fixture
def directory(tmp_path):
    return str(tmp_path / "log")


def open_writer(directory, **options):
    return LogWriter(directory, **{"max_size_bytes": 1 << 20, "max_files": 3, "now_ns": Ticks(), **options})


def write(directory, *pieces, **options):
    writer = open_writer(directory, **options)
    for stream, data in pieces:
        writer.write(stream, memoryview(data))
    writer.close()


def lines(directory, **query):
    with LogReader(directory, LogQuery(**query)) as reader:
        return [(entry.stream, entry.data) for entry in reader]


def test_reads_become_lines_per_stream(directory):
    write(directory, (1, b"one\ntw"), (2, b"err"), (1, b"o\n"), (2, b"or\nlast"))

    assert lines(directory) == [(1, b"one\n"), (1, b"two\n"), (2, b"error\n"), (2, b"last")]


def test_a_line_has_the_time_of_its_end(directory):
    write(directory, (1, b"a"), (1, b"b\nc"), (1, b"d\n"))

    with LogReader(directory) as reader:
        assert [(entry.time_ns, entry.data) for entry in reader] == [(1002, b"ab\n"), (1003, b"cd\n")]


def test_streams_and_times_can_be_chosen(directory):
    write(directory, *((1 + n % 2, b"%d\n" % n) for n in range(6)))

    assert lines(directory, has_stdout=False) == [(2, b"1\n"), (2, b"3\n"), (2, b"5\n")]
    assert lines(directory, since_ns=1003, until_ns=1004) == [(1, b"2\n"), (2, b"3\n")]


def test_reading_stops_for_good_after_until(directory):
    write(directory, (1, b"1\n"), (1, b"2\n"))

    with LogReader(directory, LogQuery(until_ns=1001)) as reader:
        assert [entry.data for entry in reader.read()] == [b"1\n"]
        assert reader.is_past_end


@pytest.mark.parametrize("count", [0, 1, 2, 5, 100])
def test_tail_gives_the_last_lines(directory, count):
    write(directory, *((1 + n % 2, b"%d\n" % n) for n in range(20)))

    assert [data for _, data in lines(directory, tail=count)] == [b"%d\n" % n for n in range(20)][
        20 - min(count, 20) :
    ]


def test_tail_counts_a_last_line_without_an_end(directory):
    write(directory, (1, b"a\nb\nc"))

    assert lines(directory, tail=2) == [(1, b"b\n"), (1, b"c")]


def test_tail_of_lines_that_span_frames_and_files(directory):
    pieces = [(1, b"%05d-" % n + b"x" * 900 + (b"\n" if n % 3 == 2 else b"")) for n in range(300)]
    write(directory, *pieces, max_size_bytes=1 << 16)
    assert len(log_files(directory)) > 1

    everything = [data for _, data in lines(directory)]

    assert [data for _, data in lines(directory, tail=40)] == everything[-40:]


def test_tail_is_taken_before_the_times(directory):
    write(directory, *((1, b"%d\n" % n) for n in range(10)))

    assert lines(directory, tail=3, since_ns=1009) == [(1, b"8\n"), (1, b"9\n")]


def test_tail_does_not_read_the_whole_log(directory, monkeypatch):
    write(directory, *((1, b"%07d\n" % n * 100) for n in range(500)))
    read = []
    real = os.pread
    monkeypatch.setattr(
        "orlop.runtime.logfiles.os.pread", lambda *args: read.append(len(data := real(*args))) or data
    )

    assert len(lines(directory, tail=10)) == 10
    assert sum(read) < 120_000  # of 400 KB


def test_a_very_long_line_comes_in_pieces(directory):
    write(directory, *((1, b"x" * 100_000) for _ in range(25)), (1, b"end\n"), max_size_bytes=8 << 20)

    pieces = [data for _, data in lines(directory)]

    assert b"".join(pieces) == b"x" * 2_500_000 + b"end\n"
    assert max(map(len, pieces)) <= (1 << 20) + 100_000


def test_chunks_are_the_reads_as_they_were(directory):
    write(directory, (1, b"a\nb"), (2, b"c"))

    assert lines(directory, as_chunks=True) == [(1, b"a\nb"), (2, b"c")]


def test_rotation_keeps_so_many_files_of_such_a_size(directory):
    write(directory, *((1, b"%06d\n" % n * 1000) for n in range(100)), max_size_bytes=1 << 16, max_files=3)

    numbers = log_files(directory)
    assert len(numbers) == 3
    assert all(os.path.getsize(f"{directory}/{file_name(n)}") <= 1 << 16 for n in numbers)
    assert lines(directory)[-1] == (1, b"000099\n")


def test_a_second_writer_goes_on_where_the_first_ended(directory):
    write(directory, (1, b"first\n"))
    write(directory, (1, b"second\n"))

    assert lines(directory) == [(1, b"first\n"), (1, b"second\n")]
    assert len(log_files(directory)) == 1
    with open(f"{directory}/{file_name(1)}", "rb") as file:
        data = file.read()
    first = logframe.decode(data)
    assert logframe.decode(data, first.size_bytes).sequence == first.sequence + 1


@pytest.mark.parametrize("cut", [1, 5, 20, 33, 40])
def test_a_frame_torn_by_a_crash_costs_that_frame_only(directory, cut):
    write(directory, (1, b"good\n"), (1, b"torn line\n"))
    path = f"{directory}/{file_name(1)}"
    os.truncate(path, os.path.getsize(path) - cut)
    write(directory, (1, b"after\n"), (2, b"more\n"))

    torn = len(b"torn line\n") + logframe.OVERHEAD_BYTES - cut
    note = (2, b"orlop: %d bytes of this log are damaged and were left out\n" % torn)
    assert lines(directory) == [(1, b"good\n"), note, (1, b"after\n"), (2, b"more\n")]
    assert lines(directory, tail=2) == [(1, b"after\n"), (2, b"more\n")]
    assert lines(directory, tail=4) == [(1, b"good\n"), note, (1, b"after\n"), (2, b"more\n")]
    assert lines(directory, has_stderr=False) == [(1, b"good\n"), (1, b"after\n")]


@settings(max_examples=40)
@given(st.integers(0, 400), st.binary(min_size=1, max_size=30))
def test_damage_anywhere_never_breaks_the_reader(tmp_path_factory, position, junk):
    directory = str(tmp_path_factory.mktemp("log"))
    write(directory, *((1, b"line %d\n" % n) for n in range(10)))
    path = f"{directory}/{file_name(1)}"
    with open(path, "r+b") as file:
        file.seek(position)
        file.write(junk)

    good = {b"line %d\n" % n for n in range(10)}
    everything = lines(directory)
    found = [data for stream, data in everything if stream == 1]
    assert set(found) <= good
    assert len(found) >= 10 - 2 - len(junk) // 40
    # damage of whole frames, but for the last, is told once
    notes = [data for stream, data in everything if stream == 2]
    assert len(notes) == (len(found) < 10 and found[-1:] == [b"line 9\n"])
    assert [data for stream, data in lines(directory, tail=3) if stream == 1] == [
        data for stream, data in everything[-3:] if stream == 1
    ]


def test_damage_in_a_log_is_stepped_over_backwards_too(directory):
    write(directory, *((1, b"%04d\n" % n * 100) for n in range(2000)), max_size_bytes=4 << 20)
    path = f"{directory}/{file_name(1)}"
    with open(path, "r+b") as file:
        file.seek(-30_000, os.SEEK_END)
        file.write(b"\xff" * 2000)

    everything = lines(directory)
    for count in (10, 5000, 50_000):
        assert lines(directory, tail=count) == everything[-count:]


@pytest.mark.parametrize("since", [1000, 1001, 1500, 4980, 9000])
def test_since_finds_its_place_without_reading_what_is_older(directory, monkeypatch, since):
    pieces = [(1 + n % 2, b"%05d " % n + b"x" * 1000 + (b"\n" if n % 4 > 1 else b"")) for n in range(4000)]
    write(directory, *pieces, max_size_bytes=900_000, max_files=100)
    with LogReader(directory) as reader:
        wanted = [(entry.stream, entry.data) for entry in reader if entry.time_ns >= since]
    read = []
    real = os.pread
    for module in ("logfiles", "logseek"):
        monkeypatch.setattr(
            f"orlop.runtime.{module}.os.pread", lambda *args: read.append(len(data := real(*args))) or data
        )

    assert lines(directory, since_ns=since) == wanted
    if since > 4000:
        assert sum(read) < 1_200_000  # of 4 MB


def test_full_files_that_were_compressed_are_read_all_the_same(directory):
    write(directory, *((1, b"%07d\n" % n * 20) for n in range(2000)), max_size_bytes=1 << 16, max_files=100)
    everything, plain = lines(directory), log_files(directory)
    fd = os.open(directory, os.O_RDONLY)
    for number in plain[:-1]:
        compress_file(fd, number)
    os.close(fd)

    assert log_files(directory) == plain
    assert {name[-3:] for name in os.listdir(directory)} == {".gz", "log"}
    assert lines(directory) == everything
    assert lines(directory, tail=7000) == everything[-7000:]
    assert lines(directory, since_ns=1900) == everything[-len(lines(directory, since_ns=1900)) :]


def test_rotation_removes_compressed_files_too(directory):
    full = []
    writer = open_writer(directory, max_size_bytes=1 << 16, max_files=2, on_full=lambda: full.append(1))
    fd = os.open(directory, os.O_RDONLY)
    for n in range(400):
        writer.write(1, memoryview(b"%04d\n" % n * 200))
        for number in log_files(directory)[:-1]:
            compress_file(fd, number)
    writer.close()
    os.close(fd)

    assert len(log_files(directory)) == 2
    assert len(os.listdir(directory)) == 2
    assert len(full) > 3
    write(directory, (1, b"on\n"), max_files=2)
    assert lines(directory, tail=1) == [(1, b"on\n")]


def test_a_damaged_archive_gives_what_is_left(directory):
    write(directory, *((1, os.urandom(4000) + b"\n") for n in range(30)), max_size_bytes=1 << 16, max_files=9)
    fd = os.open(directory, os.O_RDONLY)
    compress_file(fd, log_files(directory)[0])
    os.close(fd)
    with open(f"{directory}/{file_name(1)}.gz", "r+b") as file:
        file.seek(30_000)
        file.write(b"\0" * 64)

    assert lines(directory)[-1][0] == 1


def test_clearing_removes_what_was_and_followers_go_on(directory):
    writer = open_writer(directory, max_size_bytes=1 << 16)
    writer.write(1, memoryview(b"old\n"))
    with LogReader(directory, follow=True) as reader:
        assert [entry.data for entry in reader.read()] == [b"old\n"]
        writer.clear()
        writer.write(1, memoryview(b"new\n"))

        assert [entry.data for entry in reader.read()] == [b"new\n"]
    writer.close()
    assert lines(directory) == [(1, b"new\n")]


def test_following_sees_what_comes_later_over_a_rotation(directory):
    writer = open_writer(directory, max_size_bytes=1 << 16)
    writer.write(1, memoryview(b"one\n"))

    with LogReader(directory, follow=True) as reader:
        assert [entry.data for entry in reader.read()] == [b"one\n"]
        assert reader.read() == []
        assert not select.select([reader.fileno()], [], [], 0)[0]
        writer.write(1, memoryview(b"x" * 70000 + b"\n"))
        assert select.select([reader.fileno()], [], [], 2)[0]
        assert [len(entry.data) for entry in reader.read()] == [70001]
        writer.write(1, memoryview(b"half"))
        assert reader.read() == []
        assert [entry.data for entry in reader.finish()] == [b"half"]
    writer.close()


def test_following_a_log_that_does_not_exist_yet_is_an_error_without_a_leak(directory):
    before = len(os.listdir("/proc/self/fd"))

    with pytest.raises(FileNotFoundError):
        LogReader(directory, follow=True)

    assert len(os.listdir("/proc/self/fd")) == before
    assert lines(directory) == []


def test_following_with_a_tail_starts_with_the_tail(directory):
    writer = open_writer(directory)
    for n in range(5):
        writer.write(1, memoryview(b"%d\n" % n))

    with LogReader(directory, LogQuery(tail=2), follow=True) as reader:
        assert [entry.data for entry in reader.read()] == [b"3\n", b"4\n"]
        writer.write(1, memoryview(b"5\n"))
        assert [entry.data for entry in reader.read()] == [b"5\n"]
    writer.close()


def test_a_reader_that_lags_behind_the_rotation_goes_on_with_what_is_left(directory):
    writer = open_writer(directory, max_size_bytes=1 << 16, max_files=1)
    writer.write(1, memoryview(b"first\n"))
    with LogReader(directory, follow=True) as reader:
        assert len(reader.read()) == 1
        for n in range(10):
            writer.write(1, memoryview(b"%d" % n + b"x" * 40000 + b"\n"))
        got = [entry.data[:1] for entry in reader.read()]
    writer.close()

    assert got[-1] == b"9"


def test_a_full_disk_costs_output_but_not_the_log(directory, monkeypatch):
    import errno

    writer = open_writer(directory)
    writer.write(1, memoryview(b"before\n"))
    real = os.writev

    def full(fd, buffers):
        raise OSError(errno.ENOSPC, "full")

    def short(fd, buffers):
        return real(fd, [buffers[0]])

    monkeypatch.setattr("orlop.runtime.logwriter.os.writev", full)
    writer.write(1, memoryview(b"lost\n"))
    monkeypatch.setattr("orlop.runtime.logwriter.os.writev", short)
    writer.write(1, memoryview(b"torn\n"))
    monkeypatch.setattr("orlop.runtime.logwriter.os.writev", real)
    writer.write(1, memoryview(b"after\n"))
    writer.close()

    assert lines(directory) == [
        (1, b"before\n"),
        (2, b"10 bytes of output were lost: the log could not be written\n"),
        (1, b"after\n"),
    ]


def test_a_line_longer_than_a_batch_is_not_the_end(directory):
    write(directory, *((1, b"x" * 100_000) for _ in range(10)), (1, b"\nend\n"))

    with LogReader(directory) as reader:
        found = [entry.data for entries in reader.batches(1000) for entry in entries]

    assert found == [b"x" * 1_000_000 + b"\n", b"end\n"]


def test_lines_can_be_chosen_by_what_they_contain(directory):
    write(directory, (1, b"one bad\ntwo\nb"), (1, b"ad\n"), (2, b"good\nbad end"))

    assert lines(directory, contains=b"bad") == [(1, b"one bad\n"), (1, b"bad\n"), (2, b"bad end")]
    assert lines(directory, contains=b"bad", tail=2) == [(2, b"bad end")]


def test_tail_does_not_lose_the_only_line_of_a_stream(directory):
    write(directory, (1, b"".join(b"%d\n" % n for n in range(100))), (2, b"bad\n"))

    assert lines(directory, tail=2) == [(1, b"99\n"), (2, b"bad\n")]


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.sampled_from([1, 2]), st.text("ab\n", min_size=1, max_size=8)), max_size=40),
    st.integers(0, 30),
)
def test_tail_is_the_end_of_everything(tmp_path_factory, pieces, count):
    directory = str(tmp_path_factory.mktemp("log"))
    write(directory, *((stream, text.encode()) for stream, text in pieces))

    everything = lines(directory)

    assert lines(directory, tail=count) == everything[len(everything) - min(count, len(everything)) :]
