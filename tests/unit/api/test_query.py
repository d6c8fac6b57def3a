"""Query parameters as dockerd reads them."""

from __future__ import annotations

import pytest

from orlop.api.query import Query, parse_filters
from orlop.base.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", False), ("a", False), ("a=", False), ("a=0", False), ("a=No", False), ("a=FALSE", False), ("a=none", False),
     ("a=1", True), ("a=yes", True), ("a=anything", True)],
)  # fmt: skip
def test_bools_are_false_for_a_few_words_only(text, expected):
    assert Query(text).get_bool("a") is expected


def test_missing_bools_take_the_default_and_values_repeat():
    query = Query("t=a%3Ab&t=c+d&x")

    assert query.get_bool("nope", default=True)
    assert query.get_all("t") == ["a:b", "c d"]
    assert "x" in query


@pytest.mark.parametrize(
    "text", ["a=x", "a=1.5", "a=9223372036854775808", "a=%D9%A3", "a=-", "a=" + "1" * 40]
)
def test_bad_integers_are_refused(text):
    with pytest.raises(InvalidInput, match="strconv"):
        Query(text).get_int("a")


def test_integers():
    assert Query("a=-1").get_int("a") == -1
    assert Query("a=").get_int("a", 7) == 7
    assert Query("").find_int("a") is None


def test_filters_in_both_forms():
    assert parse_filters('{"label":{"a=b":true,"c":false},"name":["x","y"]}')["label"] == ("a=b",)
    assert parse_filters('{"name":["x","y"]}')["name"] == ("x", "y")
    assert not parse_filters("")


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "[]",
        '"x"',
        '{"a":1}',
        '{"a":{"b":1}}',
        '{"a":[1]}',
        '{"a":null}',
        "{" * 500,
        '{"a":' + "[" * 300 + "]" * 300 + "}",
    ],
)
def test_malformed_filters_are_refused(text):
    with pytest.raises(InvalidInput):
        parse_filters(text)


def test_a_flood_of_parameters_is_refused():
    with pytest.raises(InvalidInput, match="too many"):
        Query("&".join(["a=1"] * 5000))
