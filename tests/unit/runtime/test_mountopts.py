import pytest

from orlop.kernel import mount
from orlop.runtime.mountopts import parse_options


def test_words_become_attributes_and_the_last_of_a_pair_wins():
    options = parse_options(["ro", "nosuid", "rw", "noexec", "rbind", "rslave"])

    assert options.set_attributes == mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NOEXEC
    assert options.clear_attributes == mount.MOUNT_ATTR_RDONLY
    assert (options.is_recursive, options.propagation, options.is_read_only) == (True, "slave", False)


def test_base_attributes_can_be_taken_back():
    options = parse_options(["exec", "size=1m", "huge"], base=mount.MOUNT_ATTR_NOEXEC, takes_data=True)

    assert options.set_attributes == 0
    assert options.data == {"size": "1m", "huge": None}


def test_an_unknown_word_of_a_bind_is_refused():
    with pytest.raises(ValueError, match="unknown mount option 'wide=5'"):
        parse_options(["wide=5"])


def test_a_new_access_time_mode_clears_the_old_one():
    assert parse_options(["noatime"]).clear_attributes & mount.MOUNT_ATTR_ATIME_MASK
