import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orlop.base.errors import InvalidInput
from orlop.engine.volume_options import check_options, local_mount, size_limit
from orlop.kernel import mount


def test_words_become_flags_and_the_rest_is_the_file_system_s():
    found = local_mount({"type": "tmpfs", "device": "tmpfs", "o": "size=1m,ro,noexec,exec,,mode=0700"})

    assert found is not None
    assert (found.kind, found.device, found.data) == ("tmpfs", "tmpfs", "size=1m,mode=0700")
    assert found.flags == mount.MS_RDONLY


def test_a_bind_and_its_propagation():
    found = local_mount({"type": "none", "device": "/srv", "o": "rbind,rslave"})

    assert found is not None
    assert found.flags == mount.MS_BIND | mount.MS_REC
    assert found.propagation == mount.MS_SLAVE | mount.MS_REC


def test_the_address_of_a_network_volume_is_resolved_by_the_engine():
    found = local_mount({"type": "nfs", "device": ":/x", "o": "addr=nas.example,rw,nfsvers=4"})

    assert found is not None
    assert found.host == "nas.example"
    assert found.with_address("192.0.2.1") == "addr=192.0.2.1,nfsvers=4"


def test_passwords_are_not_shown():
    found = local_mount({"type": "cifs", "device": "//h/s", "o": "username=u,password=s3cret"})

    assert found is not None
    assert "s3cret" not in found.without_secrets(f"mount failed, data: {found.data}")


@pytest.mark.parametrize(
    ("text", "size"), [("10m", 10 << 20), ("1.5GiB", 3 << 29), ("4096", 4096), ("2kb", 2048)]
)
def test_sizes(text, size):
    assert size_limit({"size": text}) == size


@pytest.mark.parametrize(
    "options",
    [
        {"colour": "red"},
        {"type": "tmpfs"},
        {"device": "/x"},
        {"o": "ro"},
        {"size": "-1"},
        {"size": "many"},
        {"size": "0"},
        {"type": "a/b", "device": "x"},
        {"type": "tmpfs", "device": "a\0b"},
        {"type": "tmpfs", "device": "x", "o": "a" * 5000},
    ],
)
def test_bad_options_are_refused(options):
    with pytest.raises(InvalidInput):
        check_options(options)


@settings(max_examples=60)
@given(st.dictionaries(st.sampled_from(["type", "device", "o", "size"]), st.text(max_size=30)))
def test_no_text_breaks_the_check(options):
    try:
        check_options(options)
    except InvalidInput:
        return
    local_mount(options)
