import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orlop.base.errors import InvalidInput
from orlop.engine.idmaps import (
    DEFAULT_POOL,
    MAX_ID,
    RANGE,
    IdMap,
    IdPool,
    IdsExhausted,
    allocate,
    find_pool,
    parse_pool,
    parse_remap,
)
from orlop.runtime.spec import IdMapping


def id_map(*ranges):
    mappings = tuple(IdMapping(0, start, size) for start, size in ranges)
    return IdMap(mappings, mappings)


def test_the_lowest_free_range_is_taken():
    pool = IdPool(100_000, 4 * RANGE)

    taken = [allocate(pool, ())]
    for _ in range(3):
        taken.append(allocate(pool, taken))
    del taken[1]

    starts = [one.uids[0].host_id for one in taken]
    assert starts == [100_000, 100_000 + 2 * RANGE, 100_000 + 3 * RANGE]
    assert allocate(pool, taken).uids == (IdMapping(0, 100_000 + RANGE, RANGE),)


def test_a_full_pool_says_so_with_a_hint():
    pool = IdPool(100_000, RANGE + 1)

    with pytest.raises(IdsExhausted, match="no range of 65536 ids is free") as caught:
        allocate(pool, [id_map((100_000 + RANGE - 1, 1))])

    assert "--userns-pool" in caught.value.hint


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(90_000, 90_000 + 12 * RANGE), st.integers(1, 3 * RANGE)), max_size=8))
def test_a_range_overlaps_nothing_that_is_taken_and_lies_in_the_pool(ranges):
    pool = IdPool(100_000, 10 * RANGE)
    taken = [id_map(one) for one in ranges]

    try:
        start = allocate(pool, taken).uids[0].host_id
    except IdsExhausted:
        places = range(pool.start, pool.start + pool.count - RANGE + 1, RANGE)
        assert all(
            any(place < first + size and first < place + RANGE for first, size in ranges) for place in places
        )
    else:
        assert pool.start <= start <= pool.start + pool.count - RANGE
        assert not any(start < first + size and first < start + RANGE for first, size in ranges)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "1:2",
        "x:65536",
        "0:65536",
        "65535:65536",
        f"{MAX_ID}:65536",
        "-1:65536",
        "100000:65535",
        "1:2:3",
        "٣:65536",
    ],
)
def test_a_bad_pool_is_refused(text):
    with pytest.raises(InvalidInput, match="invalid userns-pool"):
        parse_pool(text)


def test_a_pool_is_read():
    assert parse_pool(f"100000:{RANGE}") == IdPool(100_000, RANGE)
    assert parse_pool(f"{MAX_ID - RANGE + 1}:{RANGE}").count == RANGE


def test_the_pool_comes_from_both_files_or_is_the_default():
    ours = "alice:100000:65536\norlop:300000:200000\ncontainers:600000:200000\n"

    assert find_pool(ours, ours) == IdPool(300_000, 200_000)
    assert find_pool(ours.replace("orlop", "other"), ours) == IdPool(600_000, 200_000)
    assert find_pool(ours, "alice:100000:65536") == DEFAULT_POOL
    assert find_pool("orlop:0:200000", "orlop:0:200000") == DEFAULT_POOL
    assert find_pool("# none\norlop:x:1\norlop:1\n\x00", "") == DEFAULT_POOL


def test_a_remap_joins_the_ranges_of_a_name_and_leaves_binds_alone():
    subuid = "dockremap:100000:1000\nbob:5000000:70000\ndockremap:200000:500\n"
    subgid = "dockremap:300000:65536\nstaff:400000:65536\n"

    by_default = parse_remap("default", subuid, subgid)
    named = parse_remap("bob:staff", subuid, subgid)

    assert by_default.uids == (IdMapping(0, 100_000, 1000), IdMapping(1000, 200_000, 500))
    assert by_default.gids == (IdMapping(0, 300_000, 65536),)
    assert not by_default.maps_binds
    assert (named.uids[0].host_id, named.gids[0].host_id) == (5_000_000, 400_000)


@pytest.mark.parametrize("text", ["nobody", "bob:nobody", ":", "bob:"])
def test_a_remap_without_ranges_is_refused_with_the_line_to_add(text):
    with pytest.raises(InvalidInput, match="ranges found for") as caught:
        parse_remap(text, "bob:1:0\n", "")

    assert ":100000:65536" in caught.value.hint
