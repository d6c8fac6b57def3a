"""The text format of Prometheus, read back by a parser that knows only its grammar."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orlop.wire.promtext import MAX_LABEL_CHARS, Family, encode, label_text

_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)\Z", re.DOTALL)
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\n"])*)"(?:,|\Z)')


def parse(document):
    """[(name, labels, value)]; fails on anything that the grammar does not have."""
    text = document.decode()
    assert text == "" or text.endswith("\n")
    return [parse_sample(line) for line in text.split("\n")[:-1] if not line.startswith("# ")]


def parse_sample(line):
    name, labels, value = _SAMPLE.match(line).groups()
    found, at = {}, 0
    while labels and at < len(labels):
        part = _LABEL.match(labels, at)
        assert part, f"not a label at {at} of {labels!r}"
        assert part[1] not in found
        found[part[1]] = re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], part[2])
        at = part.end()
    return name, found, float(value)


def family(*samples, kind="gauge", help="words"):  # noqa: A002
    made = Family("orlop_test", kind, help)
    for sample in samples:
        made.add(*sample)
    return made


def test_a_family_is_help_type_and_samples():
    shown = encode([family((1, label_text({"a": "x"})), (2.5, "", "_sum"), kind="summary")])

    assert shown == (
        b'# HELP orlop_test words\n# TYPE orlop_test summary\norlop_test{a="x"} 1\norlop_test_sum 2.5\n'
    )


def test_a_family_without_samples_is_not_shown():
    assert encode([family()]) == b""


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, b"0"), (True, b"1"), (1 << 62, b"4611686018427387904"), (float("inf"), b"+Inf"), (1e-9, b"1e-09")],
)
def test_numbers_are_written_as_the_format_has_them(value, text):
    assert encode([family((value,))]).split()[-1] == text


def test_a_name_that_is_none_is_a_bug_of_ours():
    with pytest.raises(ValueError, match="not a metric"):
        encode([Family("no-such name", "gauge", "", []), Family("a b", "gauge", "", family((1,)).samples)])
    with pytest.raises(ValueError, match="name of a label"):
        label_text({'a"b': ""})


def test_help_stays_on_its_line():
    assert (
        encode([family((1,), help="a\nb\\c\rd")]).splitlines()[0]
        == "# HELP orlop_test a\\nb\\\\c\ufffdd".encode()
    )


@settings(max_examples=60)
@given(st.lists(st.tuples(st.text(max_size=400), st.floats(allow_nan=False)), min_size=1, max_size=4))
def test_no_label_value_breaks_the_document(rows):
    made = family(
        *((value, label_text({"name": text, "number": str(at)})) for at, (text, value) in enumerate(rows))
    )

    found = parse(encode([made]))

    assert [(labels["number"], value) for _, labels, value in found] == [
        (str(at), value) for at, (_, value) in enumerate(rows)
    ]
    for (_, labels, _), (text, _) in zip(found, rows, strict=True):
        wanted = "".join(
            "\ufffd" if c != "\n" and (c < " " or c == "\x7f") else c for c in text[:MAX_LABEL_CHARS]
        )
        assert labels["name"] == wanted.encode("utf-8", "replace").decode()
