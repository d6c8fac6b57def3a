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


def test_recording_to_a_file_writes_a_line_per_hit(tmp_path):
    failpoints.record_hits(str(tmp_path / "hits"))

    failpoints.hit("x.y")
    failpoints.hit("x.z")
    failpoints.hit("x.y")

    assert (tmp_path / "hits").read_text().split() == ["x.y", "x.z", "x.y"]


def test_a_setting_in_a_file_is_read_again_when_it_changes(tmp_path):
    path = tmp_path / "setting"
    failpoints.configure(f"@{path}")

    failpoints.hit("a.b")
    path.write_text("a.b=error@2")
    failpoints.hit("a.b")
    with pytest.raises(OSError, match=r"a\.b"):
        failpoints.hit("a.b")
    path.unlink()
    failpoints.hit("a.b")


def test_a_setting_in_a_file_counts_from_when_it_is_written(tmp_path):
    path = tmp_path / "setting"
    failpoints.configure(f"@{path}")

    for _ in range(2):
        path.with_suffix(".new").write_text("a.b=error@1")
        path.with_suffix(".new").rename(path)
        with pytest.raises(OSError, match=r"a\.b"):
            failpoints.hit("a.b")
        failpoints.hit("a.b")
