import asyncio

import pytest

from orlop.base.clock import ManualClock
from orlop.build.cache import BuildCache
from orlop.build.results import BuiltLayer, LayersResult
from orlop.store.db import Database

ONE, TWO, THREE = (f"sha256:{digit * 64}" for digit in "123")
INPUTS = ((("base", ""), ("content", "")), (("ctx", "sel"),))


@pytest.fixture
def db(tmp_path):
    database = Database.open(str(tmp_path / "state.db"))

    def fill(tx):
        for diff_id in (ONE, TWO, THREE):
            columns = [row[1] for row in tx.execute("PRAGMA table_info(layer)")]
            values = {"diff_id": diff_id, "content_bytes": 100}
            tx.execute(
                f"INSERT INTO layer ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})",
                [values.get(column, 0) for column in columns],
            )

    database.write_sync(fill)
    yield database
    database.close()


@pytest.fixture
def clock():
    return ManualClock()


def result(*layers):
    return LayersResult(tuple(BuiltLayer(layer, 5 if layer != ONE else None) for layer in layers))


def run(work):
    return asyncio.run(work)


def query(cache, digest="D", inputs=INPUTS):
    with cache.pins() as pins:
        return run(cache.query(digest, inputs, pins))


def save(cache, key="K", inputs=INPUTS, layers=(ONE, TWO), added=(TWO,)):
    run(cache.save("D", inputs, key, result(*layers), added, "RUN x"))


def test_what_was_saved_is_found_by_any_known_way(db, clock):
    cache = BuildCache(db, clock)
    save(cache)

    for row in ((("base", ""),), (("content", ""), ("other", ""))):
        (match,) = query(cache, inputs=(row, (("ctx", "sel"),)))
        assert (match.key, match.result) == ("K", result(ONE, TWO))


def test_all_inputs_must_lead_to_one_key(db, clock):
    cache = BuildCache(db, clock)
    save(cache, "K", ((("a", ""),), (("x", ""),)))
    save(cache, "L", ((("b", ""),), (("y", ""),)))

    assert query(cache, inputs=((("a", ""),), (("y", ""),))) == ()


@pytest.mark.parametrize(
    ("digest", "inputs"),
    [
        ("E", INPUTS),
        ("D", ((("base", "other"),), (("ctx", "sel"),))),
        ("D", ((("base", ""),), (("ctx", ""),))),
        ("D", ((("ctx", "sel"),), (("base", ""),))),
        ("D", ((), (("ctx", "sel"),))),
    ],
)
def test_a_near_miss_is_a_miss(db, clock, digest, inputs):
    cache = BuildCache(db, clock)
    save(cache)

    assert query(cache, digest, inputs) == ()


def test_a_record_survives_a_restart(db, clock):
    save(BuildCache(db, clock))

    (match,) = query(BuildCache(db, clock))

    assert match.result == result(ONE, TWO)


def test_a_record_without_its_layers_is_a_key_only(db, clock):
    cache = BuildCache(db, clock)
    save(cache)
    db.write_sync(lambda tx: tx.execute("DELETE FROM layer WHERE diff_id = ?", (TWO,)).close())

    (match,) = query(cache)

    assert (match.key, match.result) == ("K", None)


def test_the_newest_usable_record_comes_first(db, clock):
    cache = BuildCache(db, clock)
    save(cache, "old")
    clock.advance(10)
    save(cache, "new", layers=(ONE, THREE))

    assert [match.key for match in query(cache)] == ["new", "old"]


def test_layers_of_records_are_roots(db, clock):
    cache = BuildCache(db, clock)
    save(cache)

    assert set(db.read_sync(lambda tx: list(cache.roots(tx)))) == {("layer", ONE), ("layer", TWO)}


def test_a_pinned_record_is_not_removed(db, clock):
    cache = BuildCache(db, clock)
    save(cache)

    with cache.pins() as pins:
        run(cache.query("D", INPUTS, pins))
        assert run(cache.remove(["K"])) == []
    assert run(cache.remove(["K"])) == ["K"]

    assert query(cache) == ()
    assert db.read_sync(lambda tx: tx.value("SELECT count(*) FROM build_link")) == 0


def test_links_stay_while_a_later_record_hangs_on_them(db, clock):
    cache = BuildCache(db, clock)
    save(cache, "K", ((("base", ""),),))
    run(cache.save("E", ((("K", ""),),), "L", result(ONE, TWO, THREE), (THREE,), "RUN y"))

    run(cache.remove(["K"]))

    (below,) = query(cache, inputs=((("base", ""),),))
    (above,) = query(cache, "E", ((("K", ""),),))
    assert (below.result, above.result) == (None, result(ONE, TWO, THREE))


def test_size_is_that_of_what_the_step_added(db, clock):
    cache = BuildCache(db, clock)
    save(cache)

    (record,) = run(cache.records())

    assert (record.size_bytes, record.description, record.use_count) == (100, "RUN x", 0)


def test_use_is_counted_and_steps_are_remembered(db, clock):
    cache = BuildCache(db, clock)
    save(cache)
    clock.advance(60)

    run(cache.touch(["K", "K"], ["i1", "i2"]))

    (record,) = run(cache.records())
    assert (record.use_count, record.used_ns) == (1, clock.now_ns())
    assert run(cache.known_steps(["i1", "i3"])) == {"i1"}
    run(cache.forget_steps())
    assert run(cache.known_steps(["i1"])) == set()


def test_saving_again_replaces_the_result(db, clock):
    cache = BuildCache(db, clock)
    save(cache)
    save(cache, layers=(ONE, THREE), added=(THREE,))

    (match,) = query(cache)

    assert match.result == result(ONE, THREE)
