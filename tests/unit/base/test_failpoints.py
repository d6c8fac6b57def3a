import errno

import pytest

from orlop.base import failpoints


@pytest.fixture(autouse=True)
def _off_afterwards():
    yield
    failpoints.configure("")


def test_a_hit_without_setting_does_nothing():
    failpoints.hit("content.commit.before-rename")


def test_error_raises_eio_that_names_the_point():
    failpoints.configure("a.b=error")

    with pytest.raises(OSError, match=r"a\.b") as caught:
        failpoints.hit("a.b")

    assert caught.value.errno == errno.EIO


def test_enospc_acts_on_the_nth_hit_only():
    failpoints.configure("a.b=enospc@2")

    failpoints.hit("a.b")
    with pytest.raises(OSError) as caught:
        failpoints.hit("a.b")
    failpoints.hit("a.b")

    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize("setting", ["a", "a=boom", "a=crash,b"])
def test_a_bad_setting_is_refused(setting):
    with pytest.raises(ValueError, match="invalid failpoint"):
        failpoints.configure(setting)


def test_recording_remembers_names():
    failpoints.record_hits()

    failpoints.hit("x.y")

    assert "x.y" in failpoints.recorded()
