import time

import pytest

from orlop.build.patterns import BadPattern, compile_match, has_wildcard


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("*", "a", True),
        ("*", "a/b", False),
        ("*/b", "a/b", True),
        ("a*c", "abc", True),
        ("a*c", "a/c", False),
        ("?", "a", True),
        ("?", "/", False),
        ("[a-c]", "b", True),
        ("[^a-c]", "b", False),
        ("[^a-c]", "/", False),
        ("[]a]", "]", False),
        ("[\\]a]", "]", True),
        ("[z-a]", "b", False),
        ("\\*", "*", True),
        ("\\*", "x", False),
        ("**", "ab", True),
        ("**", "a/b", False),
        ("a.c", "abc", False),
        ("*a*b*c*d*", "xxaxxbxxcxxdxx", True),
        ("*a*b*c*d*", "xxaxxbxxdxxcxx", False),
        ("*a*b*c*/d", "abc/d", True),
        ("", "", True),
        ("\udcff*", "\udcffx", True),
    ],
)
def test_a_pattern_means_what_it_means_to_go(pattern, path, expected):
    if pattern == "[]a]":
        with pytest.raises(BadPattern):
            compile_match(pattern)
        return

    assert compile_match(pattern)(path) is expected


@pytest.mark.parametrize("pattern", ["[", "[a", "[a-", "[a-]", "a\\", "[\\", "[^", "x" * 5_000])
def test_bad_patterns_are_refused(pattern):
    with pytest.raises(BadPattern):
        compile_match(pattern)


def test_many_stars_take_linear_time():
    match = compile_match("*a" * 30 + "b")
    started = time.monotonic()

    assert match("a" * 4_000) is False

    assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    ("path", "expected"),
    [("a*", True), ("a\\*", False), ("a\\\\*", True), ("[", True), ("a?", True), ("/a/b", False)],
)
def test_wildcards_are_seen_unless_escaped(path, expected):
    assert has_wildcard(path) is expected
