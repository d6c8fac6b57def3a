import pytest

from orlop.oci.reference import InvalidReference, parse_reference

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("alpine", "docker.io/library/alpine", "alpine"),
        ("alpine:3.10", "docker.io/library/alpine:3.10", "alpine:3.10"),
        ("user/app", "docker.io/user/app", "user/app"),
        ("docker.io/alpine", "docker.io/library/alpine", "alpine"),
        ("index.docker.io/library/alpine", "docker.io/library/alpine", "alpine"),
        ("localhost/app", "localhost/app", "localhost/app"),
        ("localhost:5000/a/b:x", "localhost:5000/a/b:x", "localhost:5000/a/b:x"),
        ("[::1]:5000/a", "[::1]:5000/a", "[::1]:5000/a"),
        (f"a/b:t@{DIGEST}", f"docker.io/a/b:t@{DIGEST}", f"a/b:t@{DIGEST}"),
        ("a__b/c-d.e", "docker.io/a__b/c-d.e", "a__b/c-d.e"),
    ],
)
def test_short_and_full_forms(text, full, familiar):
    reference = parse_reference(text)

    assert (str(reference), reference.familiar) == (full, familiar)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "a:",
        "a@",
        "a@sha256:short",
        "a//b",
        "-a",
        "a b",
        "a:t\n",
        "../x",
        "a" * 300,
        "a" * 64,
        "a:" + "t" * 129,
    ],
)
def test_other_texts_are_refused(text):
    with pytest.raises(InvalidReference):
        parse_reference(text)


def test_upper_case_has_its_own_message():
    with pytest.raises(InvalidReference, match=r"repository name \(library/Foo\) must be lowercase"):
        parse_reference("Foo")


def test_default_tag_is_added_only_where_nothing_pins():
    assert parse_reference("a").with_default_tag().tag == "latest"
    assert parse_reference(f"a@{DIGEST}").with_default_tag().tag is None
