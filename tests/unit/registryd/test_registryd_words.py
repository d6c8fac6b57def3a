"""Names, ranges, pages and paths of the registry server: what is accepted and what is not."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orlop.registryd import names, paging, ranges, routes
from orlop.registryd.problems import Problem, Word

SHA256 = "sha256:" + "ab" * 32
SHA512 = "sha512:" + "ab" * 64


def word_of(action):
    with pytest.raises(Problem) as caught:
        action()
    return caught.value.word


# names


@pytest.mark.parametrize("name", ["a", "a/b", "a-b/c--d/e_f/g__h/i.j", "0", "a" * 255])
def test_a_name_of_the_spec_is_taken(name):
    assert names.check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "a/",
        "/a",
        "a//b",
        "..",
        "a/..",
        "../a",
        "A",
        "a b",
        "a\n",
        "a_",
        "-a",
        "a..b",
        "a___b",
        "é",
        "a\x00",
        "a" * 256,
        "a/./b",
        "a%2e",
        "a:b",
        "a@b",
        "_catalog",
    ],
)
def test_any_other_name_is_refused(name):
    assert word_of(lambda: names.check_name(name)) is Word.NAME_INVALID


@pytest.mark.parametrize("tag", ["", ".a", "-a", "a" * 129, "a/b", "a b", "a\n", "é", "..", "a:b"])
def test_a_wrong_tag_is_refused(tag):
    assert word_of(lambda: names.check_tag(tag)) is Word.TAG_INVALID


@pytest.mark.parametrize(
    "digest",
    ["sha256:", "sha256:" + "AB" * 32, "sha256:../../etc/passwd", SHA256 + "a", SHA256 + "\n", "md5:aa"],
)
def test_a_wrong_digest_is_refused(digest):
    assert word_of(lambda: names.check_reference(digest)) is Word.DIGEST_INVALID


# paths


@pytest.mark.parametrize(
    ("path", "kind", "name", "reference"),
    [
        ("/v2/", "base", "", ""),
        ("/v2", "base", "", ""),
        ("/v2/_catalog", "catalog", "", ""),
        ("/v2/a/b/tags/list", "tags", "a/b", ""),
        ("/v2/tags/list/tags/list", "tags", "tags/list", ""),
        (f"/v2/a/blobs/{SHA256}", "blob", "a", SHA256),
        (f"/v2/a/blobs/{SHA256.replace(':', '%3A')}", "blob", "a", SHA256),
        (f"/v2/a/referrers/{SHA512}", "referrers", "a", SHA512),
        ("/v2/a/manifests/1.0_x-Y", "manifest", "a", "1.0_x-Y"),
        ("/v2/a/blobs/uploads/", "uploads", "a", ""),
        ("/v2/a/blobs/uploads", "uploads", "a", ""),
        ("/v2/blobs/uploads/blobs/uploads/" + "0" * 32, "upload", "blobs/uploads", "0" * 32),
        (f"/v2/a/manifests/b/blobs/{SHA256}", "blob", "a/manifests/b", SHA256),
    ],
)
def test_a_path_is_read(path, kind, name, reference):
    assert routes.locate(path) == routes.Place(kind, name, reference)


@pytest.mark.parametrize(
    ("path", "word"),
    [
        (f"/v2/../blobs/{SHA256}", Word.NAME_INVALID),
        (f"/v2/%2e%2e/blobs/{SHA256}", Word.NAME_INVALID),
        (f"/v2/a/%2e%2e%2f%2e%2e/blobs/{SHA256}", Word.NAME_INVALID),
        ("/v2/a/manifests/%2e%2e", Word.TAG_INVALID),
        ("/v2/a/blobs/uploads/..", Word.BLOB_UPLOAD_UNKNOWN),
        ("/v2/a/blobs/uploads/" + "A" * 32, Word.BLOB_UPLOAD_UNKNOWN),
        ("/v2/a%00/tags/list", Word.NAME_INVALID),
        ("/v2/a%0a/tags/list", Word.NAME_INVALID),
        ("/v2/%ff/tags/list", Word.NAME_INVALID),
        ("/v2/" + "a" * 9000 + "/tags/list", Word.NAME_INVALID),
        ("/v2/a/blobs/sha256:%2e%2e", Word.DIGEST_INVALID),
    ],
)
def test_a_hostile_path_is_refused(path, word):
    assert word_of(lambda: routes.locate(path)) is word


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1/",
        "/v2x",
        "/v2/a",
        "/v2/a/tags",
        "/v2//tags/lists",
        "/v2/a/blobs/sha256:%2e%2e%2fx",
        "*",
        "http://x/v2/",
    ],
)
def test_a_path_beside_the_api_is_nothing(path):
    assert routes.locate(path) is None


@given(st.text(max_size=60))
@settings(max_examples=200)
def test_whatever_a_path_holds_only_checked_names_come_out(text):
    try:
        place = routes.locate("/v2/" + text)
    except Problem:
        return
    if place is not None and place.kind not in {"base", "catalog"}:
        assert names.check_name(place.name) == place.name
        assert "/" not in place.reference
        assert ".." not in place.name.split("/")


def test_a_wrong_method_tells_the_right_ones():
    with pytest.raises(Problem) as caught:
        routes.find_route("PATCH", routes.Place("blob", "a", SHA256))
    assert caught.value.headers == (("Allow", "GET, HEAD, DELETE"),)


# ranges


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-3", (0, 4)), ("bytes=2-", (2, 8)), ("bytes=-3", (7, 3)), ("bytes=-99", (0, 10)),
        ("bytes=9-99", (9, 1)), ("", None), ("bytes=", None), ("bytes=-", None), ("bytes=0-1,4-5", None),
        ("lines=0-1", None), ("bytes=a-b", None), ("bytes=1-" + "9" * 30, None), ("bytes=+1-2", None),
    ],
)  # fmt: skip
def test_a_range_selects_or_is_ignored(header, expected):
    assert ranges.parse_range(header, 10) == expected


@pytest.mark.parametrize(
    ("header", "size"), [("bytes=10-", 10), ("bytes=5-2", 10), ("bytes=-0", 10), ("bytes=0-", 0)]
)
def test_a_range_of_nothing_is_refused(header, size):
    assert word_of(lambda: ranges.parse_range(header, size)) is Word.RANGE_INVALID


@given(st.integers(0, 40), st.integers(0, 40), st.binary(min_size=1, max_size=40))
@settings(max_examples=100)
def test_a_range_is_what_slicing_gives(first, last, data):
    try:
        part = ranges.parse_range(f"bytes={first}-{last}", len(data))
    except Problem:
        assert not data[first : last + 1]
    else:
        assert part is not None
        assert data[part[0] : part[0] + part[1]] == data[first : last + 1]


@pytest.mark.parametrize(
    ("header", "expected"), [("0-9", (0, 9)), ("bytes 3-3/*", (3, 3)), ("bytes=0-1", (0, 1))]
)
def test_a_content_range_is_read(header, expected):
    assert ranges.parse_content_range(header) == expected


@pytest.mark.parametrize("header", ["", "5-4", "-5", "1", "a-b", "0-1-2", "0-" + "9" * 20, "0-1, 2-3", "٣-٤"])
def test_a_wrong_content_range_is_refused(header):
    assert word_of(lambda: ranges.parse_content_range(header)) is Word.BLOB_UPLOAD_INVALID


# pages


@pytest.mark.parametrize("text", ["-1", "x", "1.5", "9" * 19, "+1", "٣"])
def test_a_wrong_count_is_refused(text):
    assert word_of(lambda: paging.parse_page({"n": text})) is Word.PAGINATION_NUMBER_INVALID


def test_pages_have_bounds():
    assert paging.parse_page({}) == paging.Page(paging.DEFAULT_PAGE, "")
    assert paging.parse_page({"n": "99999999", "last": "x" * 5000}).count == paging.MAX_PAGE
    assert paging.parse_page({"n": "0"}).count == 0


@given(st.text(max_size=30))
@settings(max_examples=100)
def test_a_link_holds_one_target_whatever_the_entry(last):
    ((_, value),) = paging.link_to("/v2/a/tags/list", paging.Page(5, ""), last)

    target = value.removeprefix("<").removesuffix('>; rel="next"')
    assert not set(target) & set('<>" \r\n')
    query = routes.parse_query(target.partition("?")[2])
    assert query["last"] == [last.encode("utf-8", "replace").decode()]


def test_a_query_with_too_many_parameters_is_refused():
    assert word_of(lambda: routes.parse_query("&".join(["a=b"] * 500))) is Word.UNSUPPORTED
