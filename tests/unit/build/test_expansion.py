import pytest

from orlop.build.dockerfile.expansion import ExpansionError, Rules, expand_word, expand_words

ENV = {"x": "value", "e": "", "p": "/a/b/c.tar.gz", "n": "a\nb"}


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("plain", "plain"),
        ("$x", "value"),
        ("${x}y", "valuey"),
        ("$xy", ""),
        ("\\$x", "$x"),
        ("'$x'", "$x"),
        ('"$x \'"', "value '"),
        ('"\\$x \\a"', "$x \\a"),
        ("${u:-w}", "w"),
        ("${e:-w}", "w"),
        ("${e-w}", ""),
        ("${u-w}", "w"),
        ("${x:+w}", "w"),
        ("${e:+w}", ""),
        ("${e+w}", "w"),
        ("${u+w}", ""),
        ("${u:-${x}}", "value"),
        ("${x:?no}", "value"),
        ("${p#*/}", "a/b/c.tar.gz"),
        ("${p##*/}", "c.tar.gz"),
        ("${p%.*}", "/a/b/c.tar"),
        ("${p%%.*}", "/a/b/c"),
        ("${p#?a}", "/b/c.tar.gz"),
        ("${p/b/X}", "/a/X/c.tar.gz"),
        ("${p//\\//-}", "-a-b-c.tar.gz"),
        ("${p//[/X}", "/a/b/c.tar.gz"),
        ("${x//*/z}", "z"),
        ("${n#*b}", "a\nb"),
        ("$", "$"),
        ("a$ b", "a$ b"),
        ("$1x", "x"),
        ("a\\", "a"),
        ("<<E", "<<E"),
        ("a<b", "a<b"),
        ("$$", ""),
    ],
)
def test_words_expand_as_in_the_reference(text, result):
    assert expand_word(text, ENV) == result


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${x", "missing '}'"),
        ("${", "missing '}'"),
        ("${x:-", "missing '}'"),
        ("${}", "bad substitution"),
        ("${:x}", "bad substitution"),
        ("${{x}}", "bad substitution"),
        ("${x!y}", "unsupported modifier (!)"),
        ("${x:#y}", "unsupported modifier (:#)"),
        ("${u?}", "u: is not allowed to be unset"),
        ("${e:?}", "e: is not allowed to be empty"),
        ("${u:?give one}", "u: give one"),
        ("'x", "matching single-quote"),
        ('"x', "matching double-quote"),
        ("${x#\\a}", "invalid escape"),
        ("${u:-" * 40 + "}" * 40, "nest deeper"),
        ("${x:?" * 10_000, "nest deeper"),
    ],
)
def test_bad_substitutions_are_named(text, message):
    with pytest.raises(ExpansionError) as caught:
        expand_word(text, ENV)

    assert message in caught.value.message


def test_words_split_at_unquoted_blanks_only():
    assert expand_words("a  'b c' $two d\\ e", {"two": "1 2"}) == ["a", "b c", "1", "2", "d e"]


def test_unknown_variables_can_be_left_alone():
    rules = Rules(keep_unset=True, keep_quotes=True)

    assert expand_word("$u ${u} ${u:-w} '$x' $x", ENV, rules) == "$u ${u} ${u:-w} '$x' value"


def test_other_escape_character():
    assert expand_word("`$x \\$x", ENV, Rules(escape="`")) == "$x \\value"


def test_doubling_ends_at_the_limit():
    with pytest.raises(ExpansionError, match="longer than"):
        expand_word("$a" * 1_000, {"a": "b" * 2_000})


def test_a_pattern_of_many_stars_ends_early():
    with pytest.raises(ExpansionError, match="too many steps"):
        expand_word("${a//" + "*a" * 30 + "z/y}", {"a": "a" * 100_000})
