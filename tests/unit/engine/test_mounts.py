import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orlop.base.errors import InvalidInput
from orlop.engine.mounts import collect_wishes, split_volumes_from
from orlop.engine.requests import (
    BindOptions,
    ContainerConfig,
    HostConfig,
    Mount,
    TmpfsOptions,
    VolumeOptions,
)


def wish_of(bind):
    (found,) = collect_wishes(ContainerConfig(), HostConfig(binds=(bind,)))
    return found


def test_a_bind_names_a_host_directory():
    wish = wish_of("/host/dir:/data:ro,rslave")

    assert (wish.kind, wish.source, wish.target) == ("bind", "/host/dir", "/data")
    assert wish.is_read_only
    assert wish.propagation == "rslave"
    assert wish.create_source


def test_a_name_in_place_of_a_path_is_a_volume_filled_from_the_image():
    wish = wish_of("cache:/var/cache")

    assert (wish.kind, wish.source, wish.copy_up) == ("volume", "cache", True)


def test_nocopy_leaves_a_volume_empty():
    assert not wish_of("cache:/var/cache:nocopy").copy_up


def test_a_lone_path_is_an_anonymous_volume():
    wish = wish_of("/data")

    assert (wish.kind, wish.source, wish.target) == ("volume", "", "/data")


@pytest.mark.parametrize(
    "bind",
    [
        "a:b:c:d",
        "/x:",
        ":/x",
        "/x:relative",
        "/x:/",
        "/x:/y:sometimes",
        "/x:/y:ro,rw",
        "../up:/y",
        "no such:/y",
        "/x:/y:nocopy",
        "name:/y:rshared",
    ],
)
def test_bad_grammar_is_refused(bind):
    with pytest.raises(InvalidInput):
        wish_of(bind)


def test_two_mounts_for_one_path_are_refused():
    host = HostConfig(binds=("/a:/x",), tmpfs={"/x/": ""})

    with pytest.raises(InvalidInput, match="Duplicate mount point: /x"):
        collect_wishes(ContainerConfig(), host)


def test_a_volume_of_the_image_gives_way_to_a_mount():
    config = ContainerConfig(volumes=frozenset({"/data", "/other"}))

    wishes = collect_wishes(config, HostConfig(binds=("/a:/data",)))

    assert [(wish.kind, wish.target) for wish in wishes] == [("bind", "/data"), ("volume", "/other")]


def test_tmpfs_is_safe_unless_the_user_says_otherwise():
    (wish,) = collect_wishes(ContainerConfig(), HostConfig(tmpfs={"/run": "size=1m,exec"}))

    assert wish.tmpfs_options == ("noexec", "nosuid", "nodev", "size=1m", "exec")


@pytest.mark.parametrize("options", ["size=1m\n", "source=/etc", "x"])
def test_options_of_tmpfs_come_from_a_list(options):
    with pytest.raises(InvalidInput):
        collect_wishes(ContainerConfig(), HostConfig(tmpfs={"/run": options}))


def test_mount_entries_are_understood():
    host = HostConfig(
        mounts=(
            Mount("bind", "/host", "/a", read_only=True, bind_options=BindOptions(propagation="shared")),
            Mount("volume", "", "/b", volume_options=VolumeOptions(no_copy=True, labels={"x": "y"})),
            Mount("tmpfs", "", "/c", tmpfs_options=TmpfsOptions(size_bytes=4096, mode=0o1777)),
        )
    )

    bind, volume, tmpfs = collect_wishes(ContainerConfig(), host)

    assert (bind.propagation, bind.is_read_only, bind.create_source) == ("shared", True, False)
    assert (volume.source, volume.copy_up, volume.labels) == ("", False, {"x": "y"})
    assert tmpfs.tmpfs_options[-2:] == ("size=4096", "mode=1777")


@pytest.mark.parametrize(
    ("mount", "text"),
    [
        (Mount("bind", "", "/a"), "field Source must not be empty"),
        (Mount("bind", "rel", "/a"), "mount path must be absolute"),
        (Mount("bind", "/x", ""), "field Target must not be empty"),
        (Mount("tmpfs", "/x", "/a"), "field Source must not be specified"),
        (Mount("npipe", "/x", "/a"), "mount type unknown"),
        (Mount("volume", "../x", "/a"), "invalid characters"),
        (Mount("volume", "vol", "/a", volume_options=VolumeOptions(subpath="../x")), "relative path within"),
    ],
)
def test_wrong_mount_entries_are_refused_with_a_reason(mount, text):
    with pytest.raises(InvalidInput, match=text):
        collect_wishes(ContainerConfig(), HostConfig(mounts=(mount,)))


def test_volumes_from_may_only_take_away_the_right_to_write():
    assert split_volumes_from("web:ro") == ("web", True)
    assert split_volumes_from("web") == ("web", None)
    with pytest.raises(InvalidInput):
        split_volumes_from("web:x")


@settings(max_examples=80)
@given(st.text(max_size=40))
def test_no_text_breaks_the_parser(text):
    try:
        wish = wish_of(text)
    except InvalidInput:
        return
    assert wish.target.startswith("/")
    assert "/../" not in f"{wish.target}/"
