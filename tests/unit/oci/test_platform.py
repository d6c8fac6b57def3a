import pytest

from orlop.oci.platform import InvalidPlatform, Platform, host_platform, parse_platform


@pytest.mark.parametrize(
    ("text", "platform"),
    [
        ("linux/amd64", Platform("linux", "amd64")),
        ("linux/x86_64", Platform("linux", "amd64")),
        ("linux/aarch64", Platform("linux", "arm64")),
        ("linux/arm64/v8", Platform("linux", "arm64")),
        ("linux/arm", Platform("linux", "arm", "v7")),
        ("linux/arm/v6", Platform("linux", "arm", "v6")),
        ("arm64", Platform("linux", "arm64")),
    ],
)
def test_names_are_normalised(text, platform):
    assert parse_platform(text) == platform


@pytest.mark.parametrize("text", ["", "a/b/c/d", "linux/", "foobar", "lin ux/amd64"])
def test_other_texts_are_refused(text):
    with pytest.raises(InvalidPlatform):
        parse_platform(text)


def test_an_older_variant_runs_on_a_newer_host():
    assert Platform("linux", "arm", "v6").runs_on(Platform("linux", "arm", "v7"))
    assert not Platform("linux", "arm", "v7").runs_on(Platform("linux", "arm", "v6"))
    assert host_platform().runs_on(host_platform())
