import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orlop.wire.ignorefile import IgnoreRules, InvalidPattern, _Automaton, _tokens


@pytest.mark.parametrize(
    ("rules", "ignored", "kept"),
    [
        ("a", ["a", "a/b", "a/b/c"], ["b", "b/a", "ab"]),
        ("/a/", ["a", "a/b"], ["b/a"]),
        ("*.md", ["x.md"], ["d/x.md", "x.mdx"]),
        ("**/*.md", ["x.md", "d/x.md", "d/e/x.md"], ["x.mdx"]),
        ("a/**", ["a/b", "a/b/c"], ["a"]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b", "a/b/c"], ["a/bb", "b"]),
        ("a?c", ["abc"], ["a/c", "ac"]),
        ("[a-c]x", ["ax", "cx"], ["dx"]),
        ("[^a]x", ["bx"], ["ax"]),
        ("\\*", ["*"], ["a"]),
        ("# note\n #x", ["#x"], ["# note"]),
        ("*\n!a", ["b", "b/a"], ["a", "a/b"]),
        ("*\n!a/b", ["a", "a/c"], ["a/b"]),
        ("a\n!a/b\na/b/c", ["a", "a/b/c"], ["a/b", "a/b/d"]),
        ("!a\na", ["a"], []),
        (".\n./x/../y", ["y"], ["x"]),
        ("\n   \n", [], ["a"]),
        ("*/temp*", ["a/temporary", "a/temp"], ["temp", "a/b/temp"]),
        ("*/*/temp*", ["a/b/temporary"], ["a/temp"]),
        ("**", ["a", "a/b"], []),
        ("**\n!a/**/z", ["a/b"], ["a/z", "a/b/z"]),
        ("a**z", ["az", "abz", "a/b/z"], ["a"]),
    ],
)
def test_rules_decide_as_docker_does(rules, ignored, kept):
    compiled = IgnoreRules.parse(rules)

    assert [path for path in ignored if not compiled.is_ignored(path)] == []
    assert [path for path in kept if compiled.is_ignored(path)] == []


@pytest.mark.parametrize("text", ["[", "[]", "[a", "[b-a]", "a\\", "!", "[-"])
def test_malformed_patterns_name_their_line(text):
    with pytest.raises(InvalidPattern, match="line 2"):
        IgnoreRules.parse(f"ok\n{text}")


def test_readmission_is_asked_for_only_below_ignored_directories_with_exceptions():
    assert IgnoreRules.parse("a\n!a/b").may_readmit_below("a")
    assert not IgnoreRules.parse("a").may_readmit_below("a")


def test_a_pattern_made_to_explode_answers():
    rules = IgnoreRules.parse("/".join(["**/*a*"] * 40) + "/z")

    assert not rules.is_ignored("/".join(["a" * 30] * 30))  # exponential time would never end


@settings(max_examples=300, deadline=None)
@given(st.text("ab*?/", min_size=1, max_size=10), st.text("ab/", min_size=1, max_size=10))
def test_the_automaton_agrees_with_regular_expressions(pattern, path):
    tokens = _tokens(pattern, 1)
    words = {"star": "[^/]*", "globstar": ".*", "dirs": "(?:.*/)?"}
    expected = re.fullmatch("".join(words.get(kind, text) for kind, text in tokens), path) is not None

    assert _Automaton(tokens).matches(path) == expected
