import pytest

from orlop.base.errors import InvalidInput
from orlop.cli.mount_flags import parse_mount


def test_parts_of_volumes_and_images_are_named():
    assert parse_mount("type=image,source=tools:1,target=/t,image-subpath=bin") == {
        "Type": "image",
        "Source": "tools:1",
        "Target": "/t",
        "ImageOptions": {"Subpath": "bin"},
    }
    assert parse_mount("src=v,dst=/d,volume-subpath=a,ro")["VolumeOptions"] == {"Subpath": "a"}


def test_options_with_commas_are_quoted():
    text = 'src=v,dst=/d,volume-driver=local,volume-opt=type=nfs,"volume-opt=o=addr=h,rw",volume-label=a=b'

    assert parse_mount(text)["VolumeOptions"] == {
        "DriverConfig": {"Name": "local", "Options": {"type": "nfs", "o": "addr=h,rw"}},
        "Labels": {"a": "b"},
    }


@pytest.mark.parametrize(
    ("word", "options"),
    [
        ("disabled", {"NonRecursive": True}),
        ("writable", {"ReadOnlyNonRecursive": True}),
        ("readonly", {"ReadOnlyForceRecursive": True}),
    ],
)
def test_how_far_a_bind_reaches(word, options):
    found = parse_mount(f"type=bind,src=/a,dst=/b,readonly,bind-recursive={word}")

    assert found["BindOptions"] == options
    assert found["ReadOnly"] is True


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("type=bind,src=/a", "target is required"),
        ("dst=/a,colour=red", "unexpected key 'colour' in 'colour=red'"),
        ("dst=/a,type", "invalid field 'type' must be a key=value pair"),
        ("dst=/a,readonly=perhaps", "invalid value for readonly: perhaps"),
        ("dst=/a,bind-recursive=often", "invalid value for bind-recursive: often"),
        ("dst=/a,tmpfs-mode=9", "invalid literal"),
    ],
)
def test_bad_words_are_refused(text, reason):
    with pytest.raises(InvalidInput, match=reason):
        parse_mount(text)
