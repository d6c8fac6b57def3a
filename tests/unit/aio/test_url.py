import pytest

from orlop.aio.url import InvalidUrl, Origin, parse_url, with_query


@pytest.mark.parametrize(
    ("text", "origin", "target"),
    [
        ("https://Example.com", Origin("https", "example.com", 443), "/"),
        ("http://a:5000/v2/?n=1#x", Origin("http", "a", 5000), "/v2/?n=1"),
        ("https://[::1]:443/x", Origin("https", "::1", 443), "/x"),
        ("https://a?x=1", Origin("https", "a", 443), "/?x=1"),
    ],
)
def test_origin_and_target_are_told_apart(text, origin, target):
    url = parse_url(text)

    assert (url.origin, url.target) == (origin, target)


@pytest.mark.parametrize(
    "text",
    [
        "file:///etc/passwd",
        "unix:///run/x",
        "https://user:pw@host/",
        "https://host\\@evil/",
        "https://ho st/",
        "https://host/\r\nX: y",
        "https://host:0/",
        "https://host:70000/",
        "https://[::1/",
        "//host/x",
        "https://h\u00f6st/",
        "https://host/" + "a" * 20000,
    ],
)
def test_what_two_readers_could_read_differently_is_refused(text):
    with pytest.raises(InvalidUrl):
        parse_url(text)


@pytest.mark.parametrize(
    ("location", "result"),
    [
        ("https://b/y", "https://b/y"),
        ("//b/y", "https://b/y"),
        ("/y?q=1", "https://a/y?q=1"),
        ("y", "https://a/x/y"),
        ("?q=http://b/", "https://a/x/z?q=http://b/"),
    ],
)
def test_locations_are_joined(location, result):
    assert str(parse_url("https://a/x/z?old=1").join(location)) == result


def test_a_location_cannot_smuggle_a_header():
    with pytest.raises(InvalidUrl):
        parse_url("https://a/").join("/x\r\nAuthorization: y")


def test_query_parameters_are_appended_and_quoted():
    assert str(with_query(parse_url("https://a/u?_state=x"), digest="sha256:ab")) == (
        "https://a/u?_state=x&digest=sha256%3Aab"
    )
