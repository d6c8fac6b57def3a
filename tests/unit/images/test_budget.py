"""The size budget: what goes, in which order, and what never does."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orlop.base.errors import InvalidInput
from orlop.images.budget import Budget, Item, make_plan, parse_budget

NOW, DAY = 10**18, 24 * 3600 * 10**9
SIZES = {"a": 10, "b": 20, "c": 30}


def item(name, layers, used, guard=""):
    return Item("image", name, name, tuple(layers), used, guard)


def going(plan):
    return [verdict.item.name for verdict in plan.verdicts if verdict.goes]


def test_the_longest_unused_goes_first_until_the_rest_fits():
    items = [item("new", "a", NOW - 2 * DAY), item("old", "b", 1), item("middle", "c", 2)]

    plan = make_plan(items, SIZES, Budget(max_bytes=40), NOW)

    assert going(plan) == ["old"]
    assert (plan.total_bytes, plan.left_bytes) == (60, 40)


def test_a_shared_layer_is_freed_with_its_last_user():
    items = [item("one", "ab", 1), item("two", "ac", 2)]

    plan = make_plan(items, SIZES, Budget(max_bytes=1), NOW)

    assert [verdict.frees_bytes for verdict in plan.verdicts] == [20, 40]


def test_guarded_and_young_ones_stay_and_say_why():
    items = [item("pinned", "a", 1, "pinned"), item("young", "b", NOW - 1)]

    plan = make_plan(items, SIZES, Budget(max_bytes=1), NOW)

    assert [verdict.reason for verdict in plan.verdicts] == ["pinned", "used recently"]
    assert plan.left_bytes == plan.total_bytes == 30


def test_without_a_budget_nothing_goes():
    assert going(make_plan([item("old", "a", 1)], SIZES, Budget(), NOW)) == []


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.sets(st.sampled_from("abc")), st.integers(0, 9), st.booleans()), max_size=6),
    st.integers(1, 70),
)
def test_what_is_left_is_what_the_rest_takes(rows, limit):
    items = [
        item(str(number), sorted(layers), used, "pinned" if pinned else "")
        for number, (layers, used, pinned) in enumerate(rows)
    ]

    plan = make_plan(items, SIZES, Budget(max_bytes=limit), NOW)

    rest = {layer for verdict in plan.verdicts if not verdict.goes for layer in verdict.item.layers}
    assert plan.left_bytes == sum(SIZES[layer] for layer in rest)
    assert not any(verdict.goes and verdict.item.guard for verdict in plan.verdicts)
    assert plan.left_bytes <= limit or all(v.item.guard for v in plan.verdicts if not v.goes)


@pytest.mark.parametrize(
    ("options", "budget"),
    [
        ({}, Budget()),
        ({"max-size": "20GB"}, Budget(20_000_000_000)),
        ({"max-size": "1500", "keep": "7d"}, Budget(1500, 7 * DAY)),
    ],
)
def test_settings_are_read(options, budget):
    assert parse_budget(options) == budget


@pytest.mark.parametrize(
    "options", [{"max": "1"}, {"max-size": "-1"}, {"max-size": "kk"}, {"keep": "1"}, {"keep": ""}]
)
def test_wrong_settings_are_refused(options):
    with pytest.raises(InvalidInput, match=r"image-gc|invalid size"):
        parse_budget(options)
